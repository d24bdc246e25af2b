"""What the log of a run tells: rows and bytes, phases, failures, however it arrives."""

import itertools
import json
from pathlib import Path

from flexcore_meltano.logs import RunLog
from hypothesis import given
from hypothesis import strategies as st

from flexcore.model.execution import Phase
from flexcore.runtime.interface import MetricSample, PhaseEntered, Progress

RECORDED = Path(__file__).parent / "recorded"
FULL = (RECORDED / "full_run.jsonl").read_bytes()


def read(data: bytes, tap: str = "tap-flights") -> RunLog:
    log = RunLog(tap=tap)
    list(log.feed(data))
    list(log.close())
    return log


def totals(log: RunLog) -> dict[str, tuple[int, int | None]]:
    return {name: (each.rows, each.bytes) for name, each in log.streams.items()}


def test_rows_and_bytes_are_summed_per_stream() -> None:
    log = read(FULL)

    assert totals(log) == {"airlines": (16, 1068), "flights": (27004, 1947579)}
    assert (log.rows, log.total_bytes) == (27020, 1948647)


def test_a_run_without_news_has_its_streams_with_zero_rows() -> None:
    assert totals(read((RECORDED / "incremental_run.jsonl").read_bytes())) == {"airlines": (0, 0), "flights": (0, 0)}


@given(cuts=st.lists(st.integers(0, len(FULL)), max_size=20))
def test_the_totals_do_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    log = RunLog(tap="tap-flights")
    places = [0, *sorted(cuts), len(FULL)]

    for begin, end in itertools.pairwise(places):
        list(log.feed(FULL[begin:end]))

    assert totals(log) == totals(read(FULL))


@given(noise=st.binary(max_size=300))
def test_no_bytes_break_the_reading(noise: bytes) -> None:
    log = read(noise + b"\n" + FULL)

    assert log.streams["airlines"].rows == 16


def metric(source: str, name: str, value: int) -> bytes:
    event = "METRIC: " + json.dumps({"type": "counter", "metric": name, "value": value, "tags": {"stream": "s"}})
    return json.dumps({"event": event, "string_id": source}).encode() + b"\n"


def test_rows_that_the_target_reports_again_are_not_counted_twice() -> None:
    log = read(metric("tap-x", "record_count", 7) + metric("target-x", "record_count", 7), tap="tap-x")

    assert log.rows == 7


def test_bytes_are_unknown_when_the_tap_reports_none() -> None:
    log = read(metric("tap-x", "record_count", 7), tap="tap-x")

    assert log.total_bytes is None


def test_our_own_lines_become_phases_and_notes() -> None:
    line = {"event": "installing tap-x", "level": "info", "flexcore": {"phase": "start", "at": 1000.5}}
    log = RunLog()

    notes = list(log.feed(json.dumps(line).encode() + b"\n"))

    assert isinstance(notes[0], PhaseEntered)
    assert (notes[0].phase, notes[0].at.timestamp()) == (Phase.START, 1000.5)
    assert notes[1] == Progress(None, "installing tap-x")


def test_rows_are_told_as_they_come() -> None:
    log = RunLog(tap="tap-x")

    notes = list(log.feed(metric("tap-x", "record_count", 5) + metric("tap-x", "record_count", 6)))

    assert [note.value for note in notes if isinstance(note, MetricSample)] == [5, 11]
