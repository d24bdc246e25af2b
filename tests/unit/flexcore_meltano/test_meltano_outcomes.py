"""Every row of the outcome table, from a recorded run or a recorded way to end."""

import json
from pathlib import Path

import pytest
from flexcore_meltano.logs import Pair, RunLog
from flexcore_meltano.outcomes import TABLE, Ending, failure_of

from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.shim import End, Lost, Reason, Status

RECORDED = Path(__file__).parent / "recorded"
PAIR = Pair(tap="tap-flights", target="target-duckdb", mappers=("mapper-x",))


def status(
    code: int | None = 1, *, signal: int | None = None, reason: Reason = Reason.BY_ITSELF, problem: str = ""
) -> Status:
    return Status(
        exit_code=code, signal=signal, reason=reason, problem=problem, errno=0, started=1.0, finished=2.0,
        cpu_s=0.5, peak_bytes=1,
    )  # fmt: skip


def recorded(name: str) -> RunLog:
    log = RunLog(pairs=[PAIR])
    list(log.feed((RECORDED / f"{name}.jsonl").read_bytes()))
    list(log.close())
    return log


def ours(failed: str, note: str) -> RunLog:
    log = RunLog()
    line = {"event": note, "level": "error", "flexcore": {"phase": "failed", "at": 1.0, "failed": failed}}
    list(log.feed(json.dumps(line).encode() + b"\n"))
    return log


def early(name: str, said: str, **more: object) -> RunLog:
    log = RunLog(pairs=[PAIR])
    ended = {"event": f"{name} ended before it had read everything", "flexcore": {"phase": "early", "plugin": name}}
    lines = [{"stdio": "stderr", "name": name, "event": said}, ended]
    if more:
        lines.append({"event": "Block run completed", "success": False, "err": "it failed", **more})
    list(log.feed("".join(json.dumps(line) + "\n" for line in lines).encode()))
    return log


ROWS: list[tuple[End, RunLog, ErrorClass, str, str]] = [
    (Lost(ended_by_us=True), RunLog(), ErrorClass.CANCELLED, "cancelled", "ended"),
    (Lost(ended_by_us=False), RunLog(), ErrorClass.LOST, "lost", "shim was killed"),
    (status(143, reason=Reason.CANCELLED), RunLog(), ErrorClass.CANCELLED, "cancelled", "cancelled"),
    (status(143, reason=Reason.TIMEOUT), RunLog(), ErrorClass.TIMEOUT, "timeout", "time was over"),
    (status(None, signal=9, reason=Reason.OOM), RunLog(), ErrorClass.OOM, "out of memory", "memory"),
    (status(127, problem="command"), RunLog(), ErrorClass.DEPENDENCY, "cannot start", "command failed"),
    (status(143), ours("timeout", "the time was over"), ErrorClass.TIMEOUT, "timeout", "the time was over"),
    (status(70), ours("busy", "state id a was still busy"), ErrorClass.QUOTA, "state id busy", "still busy"),
    (status(70), ours("install", "cannot install t"), ErrorClass.DEPENDENCY, "install failed", "cannot install t"),
    (status(70), ours("database", "cannot make"), ErrorClass.DEPENDENCY, "no system database", "cannot make"),
    (status(70), ours("install", "No space left on device"), ErrorClass.DEPENDENCY, "disk full", "No space left"),
    (status(70), ours("disk", "cannot be written: Read-only"), ErrorClass.DEPENDENCY, "no access", "Read-only"),
    (status(), recorded("already_running"), ErrorClass.QUOTA, "state id busy", "already running"),
    (status(None, signal=9), RunLog(), ErrorClass.LOST, "SIGKILL", "killed"),
    (status(143), RunLog(), ErrorClass.CANCELLED, "SIGTERM", "told to end"),
    (status(), recorded("tap_config"), ErrorClass.INPUT, "bad plugin settings", "Config validation failed"),
    (status(), recorded("unknown_block"), ErrorClass.INPUT, "bad project", "Block tap-nothing not found"),
    (status(), recorded("tap_fails"), ErrorClass.USER, "tap-flights exit 1", "No such file or directory: 'data/none"),
    (status(), early("target-duckdb", "loading"), ErrorClass.LOST, "target-duckdb ended early", "loading"),
    (status(0), early("target-duckdb", "bye"), ErrorClass.USER, "target-duckdb ended early", "rows are missing"),
    (status(3), RunLog(), ErrorClass.USER, "meltano exit 3", "meltano ended with exit 3"),
]  # fmt: skip


@pytest.mark.parametrize(("end", "log", "error_class", "name", "words"), ROWS, ids=[row[3] for row in ROWS])
def test_every_way_to_end_has_its_class(end: End, log: RunLog, error_class: ErrorClass, name: str, words: str) -> None:
    failure = failure_of(end, log)

    assert isinstance(failure, Failure)
    assert (failure.error_class, failure.name) == (error_class, name)
    assert words in failure.message


def test_no_row_of_the_table_is_without_a_test() -> None:
    hit = {next(index for index, row in enumerate(TABLE) if row.matches(Ending(end, log))) for end, log, *_ in ROWS}

    assert hit == set(range(len(TABLE)))


def test_a_target_that_fails_is_named() -> None:
    failure = failure_of(status(), recorded("target_fails"))

    assert failure is not None
    assert failure.name == "target-duckdb exit 1"
    assert "Cannot open file" in failure.message


def test_a_broken_project_file_is_bad_input() -> None:
    failure = failure_of(status(), recorded("yaml_broken"))

    assert failure is not None
    assert failure.error_class is ErrorClass.INPUT


def test_a_failed_installation_says_what_the_installer_said() -> None:
    log = recorded("install_fails")
    log.failed, log.failed_note = "install", "cannot install target-duckdb: exit 1"

    failure = failure_of(status(70), log)

    assert failure is not None
    assert "no version of target-duckdb==99.0.0" in failure.message


def test_exit_code_zero_is_success() -> None:
    assert failure_of(status(0), RunLog()) is None


def test_a_target_that_complained_before_it_ended_early_is_the_users() -> None:
    failure = failure_of(status(), early("target-duckdb", "RuntimeError: disk full"))

    assert failure is not None
    assert (failure.error_class, failure.name) == (ErrorClass.USER, "target-duckdb ended early")
    assert "disk full" in failure.message


def test_a_plugin_that_was_killed_from_outside_is_lost_work() -> None:
    failure = failure_of(status(), early("tap-flights", "reading", exit_codes={"extractors": -9}))

    assert failure is not None
    assert (failure.error_class, failure.name) == (ErrorClass.LOST, "tap-flights SIGKILL")


def test_a_dead_mapper_is_named_whatever_codes_meltano_makes_up() -> None:
    failure = failure_of(status(), early("mapper-x", "mapping", exit_codes={"extractors": 1, "loaders": 1}))

    assert failure is not None
    assert (failure.error_class, failure.name) == (ErrorClass.LOST, "mapper-x ended early")


def test_a_mapper_that_fails_is_named() -> None:
    log = RunLog(pairs=[PAIR])
    line = {"event": "Block run completed", "success": False, "err": "Mappers failed", "exit_codes": [{"mapper-x": 3}]}
    list(log.feed(json.dumps(line).encode() + b"\n"))

    failure = failure_of(status(), log)

    assert failure is not None
    assert failure.name == "mapper-x exit 3"


def test_a_target_that_dies_with_the_last_rows_before_it_is_known_by_its_broken_pipe() -> None:
    log = RunLog(pairs=[PAIR])
    ended = [{"name": "target-duckdb", "seconds": 1, "ended": 5.0}, {"name": "mapper-x", "seconds": 1, "ended": 6.0}]
    lines = [
        {"event": "", "level": "error", "exception": [{"exc_type": "BrokenPipeError", "exc_value": ""}]},
        {"event": "plugins ran", "flexcore": {"phase": "plugins", "at": 1.0, "spans": ended}},
    ]
    list(log.feed("".join(json.dumps(line) + "\n" for line in lines).encode()))

    failure = failure_of(status(), log)

    assert failure is not None
    assert (failure.error_class, failure.name) == (ErrorClass.LOST, "target-duckdb ended early")
