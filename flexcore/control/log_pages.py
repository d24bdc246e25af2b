"""Reads an attempt's output on from a position, with the fields of its JSON lines, also of those that a page tears.

A position is the log store's own; beside it stands, for every stream with a line that has not ended, where that line
begins, and from where to read again to see its beginning. So a page needs nothing but the cursor of the one before.
"""

from collections.abc import Sequence

from flexcore.control.log_fields import UNREADABLE, opened, remaining
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.requests import Document
from flexcore.runtime.interface import LogStream
from flexcore.store.log_frames import LogPiece
from flexcore.store.logs import LogStore

_MOST_READ_AGAIN_BYTES = 2**20


async def read_on(
    logs: LogStore, id: ExecutionId, path: StepPath, attempt: int | None, positions: dict[str, int]
) -> list[Document]:
    """Give the next pieces of an attempt and move its position, which is what `positions` has under its name."""
    place = f"{path}#{attempt}"
    begin = positions.get(place, 0)
    found, after = await logs.read(id, path, attempt, offset=begin)
    if not found:
        return []
    positions[place] = after
    keys = {stream: f"{place}!{stream}" for stream in LogStream}
    starts = {stream: positions.pop(key) for stream, key in keys.items() if key in positions}
    again = positions.pop(f"{place}!", begin)
    earlier: Sequence[LogPiece] = ()
    if again < begin and any(start != UNREADABLE for start in starts.values()):
        earlier, _ = await logs.read(id, path, attempt, offset=again, limit=begin - again)
    reader = opened(starts, earlier, found)
    documents = [_document(path, attempt, each, reader.lines(each)) for each in found]
    still = remaining(starts, found, reader)
    carried = {stream for stream, start in still.items() if start == starts.get(stream) != UNREADABLE}
    if carried and after - again > _MOST_READ_AGAIN_BYTES:
        still |= dict.fromkeys(carried, UNREADABLE)
        carried = set()
    positions |= {keys[stream]: start for stream, start in still.items()}
    if still:
        positions[f"{place}!"] = again if carried else begin
    return documents


def _document(path: StepPath, attempt: int | None, piece: LogPiece, lines: Sequence[Document]) -> Document:
    text = piece.data.decode(errors="replace")
    document = {"path": path, "attempt": attempt, "stream": piece.stream.value, "offset": piece.offset, "text": text}
    return {**document, "lines": list(lines)} if lines else document
