"""The attempt's own program, piece by piece: markers, stale rows, bookmarks."""

import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flexcore_meltano.attempt_main import (
    MARKER,
    database_ready,
    marker_text,
    merged,
    missing_plugins,
    running_row,
    state_in,
)


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "meltano.db"
    with sqlite3.connect(path) as connection:
        connection.execute("create table state (state_id text, partial_state text, completed_state text)")
        connection.execute(
            "create table runs (run_id text, job_name text, state text, started_at text, last_heartbeat_at text)"
        )
    connection.close()
    return path


def insert(database: Path, table: str, *values: str | None) -> None:
    with sqlite3.connect(database) as connection:
        marks = ", ".join("?" * len(values))
        connection.execute(f"insert into {table} values ({marks})", values)
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


def test_a_database_is_ready_once_it_has_its_tables(tmp_path: Path, database: Path) -> None:
    (tmp_path / "empty.db").touch()

    assert database_ready(str(database))
    assert not database_ready(str(tmp_path / "empty.db"))
    assert not database_ready(str(tmp_path / "none.db"))
    assert database_ready(None)


def test_the_row_of_a_running_run_tells_its_id_and_its_last_beat(database: Path) -> None:
    beat = datetime.fromtimestamp(time.time() - 60, UTC).replace(tzinfo=None).isoformat(sep=" ")
    insert(database, "runs", "aa-bb", "dev:a-to-b", "RUNNING", beat, beat)
    insert(database, "runs", "cc", "dev:a-to-b", "SUCCESS", beat, beat)

    row = running_row(str(database), "dev:a-to-b")

    assert row is not None
    assert row[0] == "aabb"
    assert 59 < row[1] < 70
    assert running_row(str(database), "dev:other") is None


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
