"""The schema of a SQLite store: numbered migrations, each one transaction, applied by whoever opens the store first.

The caller holds the store's boot lock, so two processes never migrate at once. A migration that is killed half-way is
rolled back by SQLite as a whole. Never downgrades: a newer schema is refused.
"""

import re
import sqlite3
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flexcore.model.errors import Conflict
from flexcore.store.database import immediate
from flexcore.store.queries import Queries
from flexcore.store.rows import microseconds

_FILE = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z_]+)\.sql")


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    sql: str


def migrations() -> tuple[Migration, ...]:
    """Read the migrations that this version brings, in order."""
    folder = Path(__file__).parent / "migrations" / "sqlite"
    found = [(match, file) for file in sorted(folder.iterdir()) if (match := _FILE.fullmatch(file.name))]
    return tuple(Migration(int(m["version"]), m["name"], file.read_text(encoding="utf-8")) for m, file in found)


def migrate(connection: sqlite3.Connection, sql: Queries, known: Sequence[Migration], now: datetime) -> int:
    """Bring the schema up to date and give its version. Raises Conflict when a newer FlexCore wrote this store."""
    with immediate(connection):
        connection.execute(sql["create_schema_versions"])
    found = int(connection.execute(sql["schema_version"]).fetchone()[0])
    newest = known[-1].version
    if found > newest:
        raise Conflict(
            f"the store has schema {found}, this FlexCore knows schemas up to {newest}",
            hint="a newer FlexCore has used this store: upgrade, or set FLEXCORE_HOME to another folder",
        )
    for migration in known:
        if migration.version > found:
            _apply(connection, sql, migration, now)
    return newest


def installation(connection: sqlite3.Connection, sql: Queries, fresh: str, now: datetime) -> str:
    """Give the store its name if it has none, and say which it has."""
    with immediate(connection):
        connection.execute(sql["insert_installation"], {"id": fresh, "now": microseconds(now)})
    return str(connection.execute(sql["installation_id"]).fetchone()[0])


def _apply(connection: sqlite3.Connection, sql: Queries, migration: Migration, now: datetime) -> None:
    record = {"version": migration.version, "name": migration.name, "now": microseconds(now)}
    with immediate(connection):
        for statement in _statements(migration.sql):
            connection.execute(statement)
        connection.execute(sql["record_migration"], record)


def _statements(script: str) -> Iterator[str]:
    # Not `executescript`: it commits first, and a migration has to be one transaction.
    pending = ""
    for line in script.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
