"""Output read page by page: every byte once, and the fields of every JSON line, wherever pages and pieces tear it."""

import asyncio
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from flexcore.control.log_fields import LONGEST_LINE
from flexcore.control.log_pages import read_on
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.runtime.interface import LogStream
from flexcore.store.logs import LogStore

ID, STEP = ExecutionId("exe_1"), StepPath("load")

line = st.one_of(
    st.builds(lambda n: json.dumps({"level": "info", "event": f"e{n}", "n": n}), st.integers(0, 99)),
    st.sampled_from(["", "plain", "{torn", '{"a": "é"}', '{"x": {"y": "}"}}', "}", '{"a": 1} ']),
)
written = st.tuples(st.sampled_from([LogStream.STDOUT, LogStream.STDERR]), st.integers(1, 40), st.booleans())


def records(text: str) -> list[dict[str, Any]]:
    """Read the JSON lines of a whole stream, with the offsets of their bytes."""
    found, offset = [], 0
    for each in text.encode().split(b"\n"):
        try:
            content = json.loads(each)
        except ValueError:
            content = None
        if isinstance(content, dict):
            found.append({"offset": offset, "content": content})
        offset += len(each) + 1
    return found


def whole(document: dict[str, Any]) -> dict[str, Any]:
    named = {"level": document["level"], "event": document["message"]}
    content = {key: value for key, value in named.items() if value is not None} | document["fields"]
    return {"offset": document["offset"], "content": content}


async def pages(chunks: Sequence[tuple[LogStream, bytes, bool]]) -> tuple[dict[str, bytes], dict[str, list[Any]]]:
    """Write chunks, reading a page after those that say so; give the text and the lines of each stream."""
    texts: dict[str, bytes] = defaultdict(bytes)
    lines: dict[str, list[Any]] = defaultdict(list)
    offsets: dict[LogStream, int] = defaultdict(int)
    positions: dict[str, int] = {}
    with tempfile.TemporaryDirectory() as folder:
        store = LogStore(Path(folder), now=lambda: datetime(2026, 1, 1, tzinfo=UTC))
        for stream, data, read in [*chunks, (LogStream.STDOUT, b"", True), (LogStream.STDOUT, b"", True)]:
            await store.append(ID, STEP, 1, 1, stream, offsets[stream], data)
            offsets[stream] += len(data)
            for piece in await read_on(store, ID, STEP, 1, positions) if read else []:
                assert piece["offset"] == len(texts[piece["stream"]])
                texts[piece["stream"]] += piece["text"].encode()
                lines[piece["stream"]] += piece.get("lines", [])
        store.close()
    return texts, lines


@settings(max_examples=60)
@given(st.lists(line, max_size=8), st.lists(line, max_size=8), st.lists(written, min_size=1, max_size=20))
def test_lines_are_whole_however_they_are_torn(
    out: list[str], err: list[str], order: list[tuple[LogStream, int, bool]]
) -> None:
    rest = {LogStream.STDOUT: "\n".join(out).encode(), LogStream.STDERR: "\n".join(err).encode()}
    expected = {stream.value: records(data.decode()) for stream, data in rest.items()}
    chunks: list[tuple[LogStream, bytes, bool]] = []
    for stream, length, read in [*order, (LogStream.STDOUT, 10**6, True), (LogStream.STDERR, 10**6, True)]:
        cut = len(rest[stream][:length].decode(errors="ignore").encode())  # text of a piece is read by itself
        chunks.append((stream, rest[stream][:cut], read))
        rest[stream] = rest[stream][cut:]

    _, lines = asyncio.run(pages(chunks))

    assert {stream: [whole(each) for each in lines[stream]] for stream in expected} == expected


async def test_a_line_that_is_too_long_is_text_only_and_the_next_is_read_again() -> None:
    long = json.dumps({"event": "x" * LONGEST_LINE}).encode()
    chunks = [
        (LogStream.STDERR, long[:1000], True),
        (LogStream.STDERR, long[1000:] + b"\n", True),
        (LogStream.STDERR, b'{"event": "short"}\n', True),
    ]

    texts, lines = await pages(chunks)

    assert texts["stderr"].startswith(long)
    assert [each["message"] for each in lines["stderr"]] == ["short"]


async def test_a_line_that_waits_while_another_stream_writes_much_gives_way() -> None:
    chunks = [
        (LogStream.STDOUT, b'{"event": ', True),
        *((LogStream.STDERR, b'{"event": "e"}\n' * 20_000, True) for _ in range(5)),
        (LogStream.STDOUT, b'"late"}\n{"event": "next"}\n', True),
    ]

    texts, lines = await pages([*chunks, *[(LogStream.STDOUT, b"", True)] * 10])

    assert len(lines["stderr"]) == 100_000
    assert [each["message"] for each in lines["stdout"]] == ["next"]
    assert texts["stdout"] == b'{"event": "late"}\n{"event": "next"}\n'
