"""The raw floor: a plain loop that commits the very rows the engine wrote, grouped the same way, and does nothing else.

No engine, no event loop, no runtime: sqlite3 with the same schema, WAL and synchronous=FULL. What an engine costs on
top of this is what the ratio shows.
"""

import sqlite3
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Commit:
    """The rows of one change set."""

    execution: Row
    history: list[Row]
    steps: list[Row]


def change_sets(database: Path, workflow: str) -> list[list[Commit]]:
    """Read what the engine wrote for a workflow's executions: per execution, its change sets in order.

    Entries of one change set have the same time. Each step's row is written with the entry that dispatched it and
    once more with the one that ended it, as the engine does.
    """
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    found = []
    for (id,) in connection.execute("SELECT id FROM executions WHERE workflow = ?", (workflow,)).fetchall():
        header = connection.execute("SELECT * FROM executions WHERE id = ?", (id,)).fetchone()
        history = connection.execute("SELECT * FROM history WHERE execution = ? ORDER BY seq", (id,)).fetchall()
        steps = connection.execute("SELECT * FROM steps WHERE execution = ?", (id,)).fetchall()
        found.append(list(_split(header, history, steps)))
    connection.close()
    return found


def _split(header: Row, history: Sequence[Row], steps: Sequence[Row]) -> Iterator[Commit]:
    times = list(dict.fromkeys(row[2] for row in history))
    per_commit = -(-2 * len(steps) // len(times))
    for index, at in enumerate(times):
        some = [steps[(index * per_commit + offset) // 2 % len(steps)] for offset in range(per_commit)]
        yield Commit(header, [row for row in history if row[2] == at], some)


def floor_seconds(schema_from: Path, groups: Sequence[Sequence[Commit]]) -> float:
    """Commit the groups, one transaction each, into a fresh database; give seconds."""
    with tempfile.TemporaryDirectory() as folder:
        connection = sqlite3.connect(Path(folder) / "floor.db", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        source = sqlite3.connect(f"file:{schema_from}?mode=ro", uri=True)
        for (sql,) in source.execute("SELECT sql FROM sqlite_master WHERE type IN ('table', 'index') AND sql NOT NULL"):
            if "sqlite_sequence" not in sql:
                connection.execute(sql)
        source.close()
        statements = _statements(connection)
        begun = time.perf_counter()
        for group in groups:
            connection.execute("BEGIN IMMEDIATE")
            for name, rows in _rows(group).items():
                connection.executemany(statements[name], rows)
            connection.execute("COMMIT")
        seconds = time.perf_counter() - begun
        connection.close()
    return seconds


def _rows(group: Sequence[Commit]) -> dict[str, list[Row]]:
    return {
        "executions": [each.execution for each in group],
        "history": [row for each in group for row in each.history],
        "steps": [row for each in group for row in each.steps],
    }


def _statements(connection: sqlite3.Connection) -> dict[str, str]:
    def width(table: str) -> int:
        return len(connection.execute(f"PRAGMA table_info({table})").fetchall())

    again = " ON CONFLICT DO UPDATE SET body = excluded.body"
    return {
        name: f"INSERT INTO {name} VALUES ({', '.join('?' * width(name))}){'' if name == 'history' else again}"
        for name in ("executions", "history", "steps")
    }


def interleaved(executions: Sequence[Sequence[Commit]], at_a_time: int) -> list[list[Commit]]:
    """Group as the engine does when many executions run side by side: one change set of each per transaction."""
    groups: list[list[Commit]] = []
    for first in range(0, len(executions), at_a_time):
        batch = executions[first : first + at_a_time]
        longest = max(map(len, batch))
        groups += [[each[index] for each in batch if index < len(each)] for index in range(longest)]
    return groups
