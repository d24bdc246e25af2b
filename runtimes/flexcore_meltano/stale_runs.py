"""Rows of Meltano's own table that say RUNNING: whose run still lives, whose is proven dead, and clearing the dead.

Meltano refuses a state id for five minutes after a kill, and for a day when the kill came before the first heartbeat.
Standard library alone: part of the attempt's program. A row is only ever cleared with the state id's lock held.
"""

import os
import sqlite3
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

_SILENT_S = 10.0  # Meltano beats every second; a silence this long is worth a look at who is there
_NAME_VARIABLE = b"FLEXCORE_NAME="  # in the environment of all that FlexCore runs
_RUNNING = (
    "select id, replace(run_id, '-', ''), coalesce(last_heartbeat_at, started_at) from runs"
    " where job_name = ? and state = 'RUNNING'"
)


@dataclass(frozen=True, slots=True)
class RunningRow:
    """A run that Meltano believes to be under way. `silent_s` is the time since its last sign of life."""

    number: int
    run_id: str  # without dashes
    silent_s: float


def running_rows(database: str | None, state_id: str) -> list[RunningRow]:
    """Read them; none when the system database is not SQLite: then Meltano itself must judge."""
    if database is None:
        return []
    return [
        RunningRow(number, run_id or "", time.time() - datetime.fromisoformat(beat).replace(tzinfo=UTC).timestamp())
        for number, run_id, beat in rows(database, _RUNNING, state_id)
    ]


def is_proven_dead(row: RunningRow, holders: Sequence[str], database: str) -> bool:
    """Say whether a run cannot be alive: it held the lock that we hold now, or nobody has its database open.

    A stopped or frozen process is silent too, so silence alone proves nothing.
    """
    return row.run_id in holders or (row.silent_s > _SILENT_S and not in_use_by_others(database))


def clear_run(database: str, row: RunningRow) -> None:
    """Let the row say what is true: the run failed. Changes nothing when it ended in the meantime. Raises OSError."""
    ended = datetime.fromtimestamp(time.time(), UTC).replace(tzinfo=None).isoformat(" ")
    try:
        with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
            connection.execute(
                "update runs set state = 'FAIL', ended_at = ?, payload = ? where id = ? and state = 'RUNNING'",
                (ended, '{"error": "the run was killed"}', row.number),
            )
    except sqlite3.OperationalError as error:
        raise OSError(f"{error}: {database}") from error


def in_use_by_others(database: str) -> bool:
    """Say whether a process that is not FlexCore's has a database file open. What cannot be seen counts as yes."""
    target = os.path.realpath(database)
    return any(_has_open(process, target) for process in Path("/proc").iterdir() if process.name.isdigit())


def _has_open(process: Path, target: str) -> bool:
    if int(process.name) == os.getpid():
        return False
    try:
        descriptors = list((process / "fd").iterdir())
    except PermissionError:
        return b"meltano" in _read(process / "cmdline")
    except OSError:
        return False
    for each in descriptors:
        with suppress(OSError):
            if os.readlink(each) == target:  # noqa: PTH115 (a Path for each of thousands of descriptors shows)
                return _NAME_VARIABLE not in _read(process / "environ")
    return False


def rows(database: str, query: str, *parameters: str) -> list[Any]:
    """Read from the system database; nothing when it is not there, or not made yet."""
    if not Path(database).exists():
        return []
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10)) as connection:
            return connection.execute(query, parameters).fetchall()
    except sqlite3.OperationalError:
        return []


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:
        return b""
