"""Output of steps as it is shown: whole lines, and JSON log lines as their message."""

import json
from typing import Any

import pytest
from fake_control_plane import NOON, history

from flexcore.cli.board import Board
from flexcore.cli.log_lines import LogLine, LogLines, read
from flexcore.model.requests import WatchEvent


def log(**fields: Any) -> str:
    return json.dumps({"level": "info", **fields})


def told(board: Board, text: str) -> list[str]:
    event = WatchEvent(kind="log", at=NOON, body={"path": "extract", "stream": "stderr", "text": text})
    return list(board.take(event).lines)


@pytest.mark.parametrize(
    ("line", "text"),
    [
        (log(event="Beginning sync", name="tap-flights"), "tap-flights: Beginning sync"),
        (log(event="Environment 'dev' is active"), "Environment 'dev' is active"),
        (log(event="no state", name="tap", level="warning"), "warning: tap: no state"),
        (log(event="broken", level="error"), "error: broken"),
        (log(message="slow", logger="web", ms=12, to="a b", pid=7), 'web: slow ms=12 to="a b"'),
        (log(event="synced", name="tap", stdio="stderr", cmd_type="elb"), "tap: synced"),
        (log(event="a\x1b[31mb"), "ab"),
        ('{"event": "order placed", "n": 3}', '{"event": "order placed", "n": 3}'),
        ('{"rows": 3}', '{"rows": 3}'),
        ("{not json", "{not json"),
        ("[1]", "[1]"),
        ("", ""),
    ],
)
def test_a_line_is_read(line: str, text: str) -> None:
    assert [(each.text, each.is_bookkeeping) for each in read(line)] == [(text, False)]


def test_a_level_is_known_and_in_colour_where_there_are_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flexcore.cli.render.has_colours", lambda stream: True)

    (line,) = read(log(event="broken", level="FATAL"))

    assert line == LogLine("error: broken", level="critical")
    assert line.coloured() == "\x1b[31merror\x1b[0m: broken"


def test_an_event_of_several_lines_and_its_traceback_stay_together() -> None:
    shown = read(log(event="one\ntwo", level="error", name="tap", exception="Traceback\nValueError"))

    assert [each.text for each in shown] == ["error: tap: one", "  two", "  Traceback", "  ValueError"]


@pytest.mark.parametrize("line", [log(event='METRIC: {"value": 3}'), log(event="running", flexcore={"phase": "run"})])
def test_bookkeeping_is_not_told_while_it_runs(line: str) -> None:
    assert all(each.is_bookkeeping for each in read(line))
    assert told(Board("exe_1"), f"{line}\nrows\n") == ["rows"]


def test_our_own_errors_are_told() -> None:
    assert told(Board("exe_1"), log(event="no meltano", level="error", flexcore={"phase": "failed"}) + "\n") == [
        "error: no meltano"
    ]


def test_a_line_that_comes_in_pieces_is_told_when_it_is_whole() -> None:
    board, line = Board("exe_1"), log(event="synced", name="tap")

    first, second = told(board, line[:10]), told(board, line[10:] + "\nrest")
    last = board.take(history(1, "StepSucceeded", path="extract"))

    assert (first, second) == ([], ["tap: synced"])
    assert list(last.lines) == ["rest"]


def test_streams_do_not_mix() -> None:
    lines = LogLines()

    lines.take({"path": "a", "stream": "stdout", "text": "out"})
    found = lines.take({"path": "a", "stream": "stderr", "text": "err\n"})

    assert [each.text for each in found] == ["err"]
    assert [each.text for each in lines.rest("a")] == ["out"]


def test_a_line_without_an_end_is_not_kept_forever() -> None:
    lines = LogLines()

    found = lines.take({"path": "a", "text": "x" * 100_000})

    assert [len(each.text) for each in found] == [100_000]


def test_the_tail_is_of_the_last_attempt() -> None:
    board = Board("exe_1")
    told(board, "first\n")

    board.take(history(1, "StepDispatched", path="extract", runtime="local", attempt=2))
    told(board, "second\n")

    assert list(board.tail("extract")) == ["second"]
