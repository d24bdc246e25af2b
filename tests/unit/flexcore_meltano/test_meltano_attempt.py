"""The attempt's own program, piece by piece: markers, stale rows, bookmarks."""

import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flexcore_meltano.attempt_main import (
    FAILED,
    MARKER,
    Attempt,
    database_ready,
    marker_text,
    merged,
    missing_plugins,
    state_in,
)
from flexcore_meltano.stale_runs import clear_run, is_proven_dead, running_rows


@pytest.fixture(autouse=True)
def signals() -> Iterator[None]:
    """An attempt run in this process takes signals over."""
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGALRM)}
    yield
    for number, action in before.items():
        signal.signal(number, action)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "meltano.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table state (state_id text, partial_state text, completed_state text)")
        connection.execute(
            "create table runs (id integer primary key, run_id text, job_name text, state text, started_at text,"
            " ended_at text, payload text, last_heartbeat_at text)"
        )
    connection.close()
    return path


def insert(database: Path, table: str, *values: str | None) -> None:
    with sqlite3.connect(database) as connection:
        marks = ", ".join("?" * len(values))
        columns = "(run_id, job_name, state, started_at, last_heartbeat_at)" if table == "runs" else ""
        connection.execute(f"insert into {table} {columns} values ({marks})", values)
    connection.close()


def group(folder: Path, fingerprint: str, *, always: bool = False) -> dict[str, Any]:
    return {"always": always, "plugins": [{"name": "tap-x", "folder": str(folder), "fingerprint": fingerprint}]}


def complete(folder: Path, fingerprint: str) -> None:
    (folder / "venv" / "bin").mkdir(parents=True)
    (folder / "venv" / "bin" / "python").touch()
    (folder / MARKER).write_text(marker_text({"folder": str(folder), "fingerprint": fingerprint}))


def test_a_plugin_without_a_marker_is_missing(tmp_path: Path) -> None:
    (tmp_path / "venv" / "bin").mkdir(parents=True)
    (tmp_path / "venv" / "bin" / "python").touch()

    assert missing_plugins(group(tmp_path, "f"))


def test_a_complete_plugin_is_not_missing(tmp_path: Path) -> None:
    complete(tmp_path, "f")

    assert not missing_plugins(group(tmp_path, "f"))


def test_a_plugin_made_from_something_else_is_missing(tmp_path: Path) -> None:
    complete(tmp_path, "f")

    assert missing_plugins(group(tmp_path, "g"))


def test_a_plugin_without_its_interpreter_is_missing(tmp_path: Path) -> None:
    complete(tmp_path, "f")
    (tmp_path / "venv" / "bin" / "python").unlink()

    assert missing_plugins(group(tmp_path, "f"))


def test_a_plugin_that_was_copied_here_is_missing(tmp_path: Path) -> None:
    complete(tmp_path / "there", "f")
    (tmp_path / "there").rename(tmp_path / "here")

    assert missing_plugins(group(tmp_path / "here", "f"))


def test_always_means_always(tmp_path: Path) -> None:
    complete(tmp_path, "f")

    assert missing_plugins(group(tmp_path, "f", always=True))


def test_an_installation_that_is_made_anew_is_not_complete_before_its_end(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    complete(tmp_path / "tap-x", "f")
    anew = {**group(tmp_path / "tap-x", "f", always=True), "root": str(tmp_path)}
    order = {
        "work": str(tmp_path), "installs": [anew], "install_lock": str(tmp_path / "lock"), "states": [],
        "meltano": [sys.executable, "-c", "raise SystemExit(1)"], "database": None,
    }  # fmt: skip

    code = Attempt(order).run()

    assert code == FAILED
    assert "cannot install tap-x" in capfd.readouterr().err
    assert missing_plugins(group(tmp_path / "tap-x", "f"))


def test_a_run_by_hand_that_does_not_end_is_waited_for_no_longer_than_the_time_limit(
    tmp_path: Path, database: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    insert(database, "runs", "by-hand", "one", "RUNNING", ago(0), ago(0))
    order = {
        "work": str(tmp_path), "installs": [], "links": [], "output": str(tmp_path), "time_limit_s": 0.1,
        "database": str(database), "states": [{"id": "one", "lock": str(tmp_path / "lock")}], "run_id": "a",
    }  # fmt: skip

    code = Attempt(order).run()

    assert code == FAILED
    assert "still busy when the time was over" in capfd.readouterr().err


def test_a_database_is_ready_once_it_has_its_tables(tmp_path: Path, database: Path) -> None:
    (tmp_path / "empty.db").touch()

    assert database_ready(str(database))
    assert not database_ready(str(tmp_path / "empty.db"))
    assert not database_ready(str(tmp_path / "none.db"))
    assert database_ready(None)


def ago(seconds: float) -> str:
    return datetime.fromtimestamp(time.time() - seconds, UTC).replace(tzinfo=None).isoformat(sep=" ")


def test_the_rows_of_running_runs_tell_their_id_and_how_long_they_are_silent(database: Path) -> None:
    insert(database, "runs", "aa-bb", "dev:a-to-b", "RUNNING", ago(90), ago(60))
    insert(database, "runs", "dd", "dev:a-to-b", "RUNNING", ago(90), None)  # killed before its first heartbeat
    insert(database, "runs", "cc", "dev:a-to-b", "SUCCESS", ago(60), ago(60))

    rows = running_rows(str(database), "dev:a-to-b")

    assert [(row.run_id, round(row.silent_s, -1)) for row in rows] == [("aabb", 60), ("dd", 90)]
    assert running_rows(str(database), "dev:other") == []
    assert running_rows(None, "dev:a-to-b") == []


def test_a_run_is_dead_when_its_lock_is_free_or_when_it_is_silent_and_nobody_has_the_database(database: Path) -> None:
    insert(database, "runs", "aa", "one", "RUNNING", ago(1), ago(1))
    insert(database, "runs", "bb", "one", "RUNNING", ago(1), ago(1))
    insert(database, "runs", "cc", "one", "RUNNING", ago(60), ago(60))
    ours, fresh, silent = running_rows(str(database), "one")

    assert is_proven_dead(ours, ["aa"], str(database))
    assert not is_proven_dead(fresh, ["aa"], str(database))
    assert is_proven_dead(silent, ["aa"], str(database))


def test_a_silent_run_is_not_dead_while_a_process_has_the_database_open(database: Path) -> None:
    insert(database, "runs", "cc", "one", "RUNNING", ago(60), ago(60))
    (silent,) = running_rows(str(database), "one")
    code = f"f = open({str(database)!r}); print('open', flush=True); import sys; sys.stdin.read()"
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}

    with subprocess.Popen([sys.executable, "-I", "-c", code], **pipes) as other:
        assert other.stdout is not None
        other.stdout.readline()
        proven = is_proven_dead(silent, [], str(database))
        other.communicate()

    assert not proven


def test_clearing_a_run_says_that_it_failed_and_touches_no_other(database: Path) -> None:
    insert(database, "runs", "aa", "one", "RUNNING", ago(60), ago(60))
    insert(database, "runs", "bb", "one", "RUNNING", ago(60), ago(60))
    dead, other = running_rows(str(database), "one")

    clear_run(str(database), dead)

    assert [row.run_id for row in running_rows(str(database), "one")] == [other.run_id]


def test_bookmarks_of_an_incomplete_run_lie_over_the_complete_ones(database: Path) -> None:
    complete_state = '{"singer_state": {"bookmarks": {"a": {"v": 1}, "b": {"v": 1}}}}'
    partial = '{"singer_state": {"bookmarks": {"b": {"v": 2}}}}'
    insert(database, "state", "one", "{}", complete_state)
    insert(database, "state", "two", partial, complete_state)
    insert(database, "state", "three", partial, None)

    assert state_in(str(database), "one") == {"bookmarks": {"a": {"v": 1}, "b": {"v": 1}}}
    assert state_in(str(database), "two") == {"bookmarks": {"a": {"v": 1}, "b": {"v": 2}}}
    assert state_in(str(database), "three") == {"bookmarks": {"b": {"v": 2}}}
    assert state_in(str(database), "four") is None


def test_merging_keeps_what_only_one_side_has() -> None:
    assert merged({"a": {"x": 1}, "b": 1}, {"a": {"y": 2}, "b": 2}) == {"a": {"x": 1, "y": 2}, "b": 2}
