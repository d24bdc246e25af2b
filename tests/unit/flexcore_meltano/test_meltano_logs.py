"""What the log of a run tells: rows and bytes, phases, failures, however it arrives."""

import itertools
import json
from pathlib import Path

from flexcore_meltano.logs import Pair, RunLog
from hypothesis import given
from hypothesis import strategies as st

from flexcore.model.execution import Phase
from flexcore.runtime.interface import MetricSample, PhaseEntered, Progress

RECORDED = Path(__file__).parent / "recorded"
FULL = (RECORDED / "full_run.jsonl").read_bytes()


def pair(tap: str) -> Pair:
    return Pair(tap=tap, target="target-x")


def read(data: bytes, *taps: str) -> RunLog:
    log = RunLog(pairs=[pair(tap) for tap in taps or ("tap-flights",)])
    list(log.feed(data))
    list(log.close())
    return log


def totals(log: RunLog) -> dict[str, tuple[int, int | None]]:
    return {name: (each.rows or 0, each.bytes) for (_, name), each in log.streams.items()}


def test_rows_and_bytes_are_summed_per_stream() -> None:
    log = read(FULL)

    assert totals(log) == {"airlines": (16, 1068), "flights": (27004, 1947579)}
    assert (log.rows, log.total_bytes) == (27020, 1948647)


def test_a_run_without_news_has_its_streams_with_zero_rows() -> None:
    assert totals(read((RECORDED / "incremental_run.jsonl").read_bytes())) == {"airlines": (0, 0), "flights": (0, 0)}


@given(cuts=st.lists(st.integers(0, len(FULL)), max_size=20))
def test_the_totals_do_not_depend_on_how_the_bytes_were_cut(cuts: list[int]) -> None:
    log = RunLog(pairs=[pair("tap-flights")])
    places = [0, *sorted(cuts), len(FULL)]

    for begin, end in itertools.pairwise(places):
        list(log.feed(FULL[begin:end]))

    assert totals(log) == totals(read(FULL))


@given(noise=st.binary(max_size=300))
def test_no_bytes_break_the_reading(noise: bytes) -> None:
    log = read(noise + b"\n" + FULL)

    assert log.streams[0, "airlines"].rows == 16


def metric(source: str, name: str, value: int) -> bytes:
    event = "METRIC: " + json.dumps({"type": "counter", "metric": name, "value": value, "tags": {"stream": "s"}})
    return json.dumps({"event": event, "string_id": source}).encode() + b"\n"


def test_rows_that_the_target_reports_again_are_not_counted_twice() -> None:
    log = read(metric("tap-x", "record_count", 7) + metric("target-x", "record_count", 7), "tap-x")

    assert log.rows == 7


def test_bytes_are_unknown_when_the_tap_reports_none() -> None:
    log = read(metric("tap-x", "record_count", 7), "tap-x")

    assert log.total_bytes is None


def test_our_own_lines_become_phases_and_notes() -> None:
    line = {"event": "installing tap-x", "level": "info", "flexcore": {"phase": "start", "at": 1000.5}}
    log = RunLog()

    notes = list(log.feed(json.dumps(line).encode() + b"\n"))

    assert isinstance(notes[0], PhaseEntered)
    assert (notes[0].phase, notes[0].at.timestamp()) == (Phase.START, 1000.5)
    assert notes[1] == Progress(None, "installing tap-x")


def test_rows_are_told_as_they_come() -> None:
    log = RunLog(pairs=[pair("tap-x")])

    notes = list(log.feed(metric("tap-x", "record_count", 5) + metric("tap-x", "record_count", 6)))

    assert [note.value for note in notes if isinstance(note, MetricSample)] == [5, 11]


def over(success: bool = True, **more: object) -> bytes:
    return json.dumps({"event": "Block run completed", "success": success, **more}).encode() + b"\n"


def test_what_each_pipe_of_a_run_did_is_told_apart() -> None:
    lines = metric("tap-a", "record_count", 2) + over() + metric("tap-a", "record_count", 3) + over()

    assert {key: each.rows for key, each in read(lines, "tap-a", "tap-a").streams.items()} == {(0, "s"): 2, (1, "s"): 3}


def test_a_target_that_counts_stands_in_for_a_tap_that_does_not() -> None:
    log = read(metric("target-x", "record_count", 7), "tap-x")

    assert (log.rows, log.streams[0, "s"].read, log.streams[0, "s"].written) == (7, None, 7)


def test_a_stream_under_another_name_behind_a_mapper_is_not_counted_again() -> None:
    renamed = metric("target-x", "record_count", 7).replace(b'\\"s\\"', b'\\"t\\"')

    log = read(metric("tap-x", "record_count", 7) + renamed, "tap-x")

    assert (log.rows, list(log.streams)) == (7, [(0, "s")])


def test_seconds_of_plugins_are_summed_over_the_pipes() -> None:
    spans = [{"name": "tap-x", "seconds": 1.5}, {"name": "target-x", "seconds": 2}, {"name": "tap-x", "seconds": 1}]
    line = {"event": "plugins ran", "flexcore": {"phase": "plugins", "at": 1.0, "spans": spans}}

    assert read(json.dumps(line).encode() + b"\n").seconds == {"tap-x": 2.5, "target-x": 2}
