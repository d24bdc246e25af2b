"""Logs are bounded, survive a torn end, and cost nothing when there is nothing to say."""

from pathlib import Path

from flexcore.model.ids import ExecutionId, StepPath
from flexcore.runtime.interface import LogStream
from flexcore.store.logs import LogLimits, LogStore
from flexcore.testing.store_samples import now

ID, PATH = ExecutionId("exe_1"), StepPath("load")
OUT, ERR = LogStream.STDOUT, LogStream.STDERR
SMALL = LogLimits(head=4000, segment=1000, tail_segments=3)


def logs(folder: Path) -> LogStore:
    return LogStore(folder, now=now, limits=SMALL)


async def written(store: LogStore, lines: int) -> bytes:
    whole = b""
    for number in range(lines):
        line = b"line %06d\n" % number
        await store.append(ID, PATH, 1, 1, OUT, len(whole), line)
        whole += line
    return whole


async def everything(store: LogStore, limit: int = 500) -> tuple[bytes, str]:
    kept, told, cursor = b"", "", 0
    while True:
        pieces, following = await store.read(ID, PATH, offset=cursor, limit=limit)
        kept += b"".join(piece.data for piece in pieces if piece.stream is OUT)
        told += "".join(piece.data.decode() for piece in pieces if piece.stream is LogStream.SYSTEM)
        if following == cursor:
            return kept, told
        cursor = following


async def test_silence_makes_no_file(tmp_path: Path) -> None:
    await logs(tmp_path).append(ID, PATH, 1, 1, OUT, 0, b"")

    assert list(tmp_path.iterdir()) == []
    assert await logs(tmp_path).read(ID, PATH) == ([], 0)


async def test_head_and_tail_are_kept_above_the_cap(tmp_path: Path) -> None:
    store = logs(tmp_path)
    whole = await written(store, 1000)

    kept, told = await everything(store)
    head = len(kept.split(b"line 000999\n")[0])
    dropped = len(whole) - len(kept)
    first_gap = next(
        index for index in range(0, len(kept), 12) if kept[index : index + 12] != whole[index : index + 12]
    )

    assert kept == whole[:first_gap] + whole[first_gap + dropped :]
    assert told == f"... {dropped} bytes of output were dropped here: more than is kept of one attempt ...\n"
    assert head and sum(file.stat().st_size for file in tmp_path.rglob("*.log")) < 4000 + 4 * 1200


async def test_offsets_are_known_after_the_head_has_rolled_away(tmp_path: Path) -> None:
    await logs(tmp_path).append(ID, PATH, 1, 1, ERR, 0, b"only once\n")
    whole = await written(logs(tmp_path), 1000)
    again = logs(tmp_path)
    await again.append(ID, PATH, 1, 1, OUT, 0, whole)

    assert await again.offsets(ID, PATH, 1) == {OUT: len(whole), ERR: 10}


async def test_a_torn_end_is_cut_off_and_written_again(tmp_path: Path) -> None:
    await logs(tmp_path).append(ID, PATH, 1, 1, OUT, 0, b"first\nsecond\n")
    await logs(tmp_path).append(ID, PATH, 1, 1, OUT, 13, b"third\n")
    (file,) = tmp_path.rglob("*.log")
    file.write_bytes(file.read_bytes()[:-3])

    store = logs(tmp_path)
    assert (await everything(store))[0] == b"first\nsecond\n"
    assert await store.offsets(ID, PATH, 1) == {OUT: 13}
    await store.append(ID, PATH, 1, 1, OUT, 13, b"third\n")
    assert (await everything(store))[0] == b"first\nsecond\nthird\n"


async def test_large_chunks_are_read_in_small_pages(tmp_path: Path) -> None:
    store = LogStore(tmp_path, now=now)
    data = bytes(range(256)) * 2000
    await store.append(ID, PATH, 1, 1, OUT, 0, data)

    assert (await everything(store, limit=10_000))[0] == data
