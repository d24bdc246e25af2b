"""A store on SQLite: one folder with the database, lock files, logs and artifacts, opened and put together here.

    store = open_store(Path(".flexcore"), now=lambda: datetime.now(UTC))
    await store.ownership.acquire()
    await store.journal.commit(change_set)
    store.close()

Several processes may have the same store open. The folder is for its owner's eyes only (0700).
"""

import os
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from flexcore.model.errors import InvalidSettings, StoreUnavailable
from flexcore.model.ids import new_id
from flexcore.store.artifacts import LocalArtifacts
from flexcore.store.audit import AuditTrail
from flexcore.store.database import Lane, SqliteOptions, connect, durability, foreign
from flexcore.store.durable import sync_folder
from flexcore.store.locks import exclusive
from flexcore.store.logs import LogLimits, LogStore
from flexcore.store.observations import Observations
from flexcore.store.queries import Queries, load
from flexcore.store.read import Catalog, Fault, Reader, StoreStatus
from flexcore.store.retention import CollectedArtifacts, Retention
from flexcore.store.rows import microseconds
from flexcore.store.sqlite_audit import SqliteAudit
from flexcore.store.sqlite_catalog import SqliteCatalog
from flexcore.store.sqlite_changes import ChangeWriter
from flexcore.store.sqlite_commands import SqliteCommands
from flexcore.store.sqlite_integrity import faults
from flexcore.store.sqlite_journal import SqliteJournal
from flexcore.store.sqlite_observations import SqliteObservations
from flexcore.store.sqlite_ownership import SqliteOwnership
from flexcore.store.sqlite_reader import SqliteReader
from flexcore.store.sqlite_retention import SqliteRetention
from flexcore.store.sqlite_schema import Migration, installation, migrate, migrations
from flexcore.store.write import Commands, Journal, Ownership

FILE_NAME = "flexcore.db"

_SCHEME = "sqlite:///"


@dataclass(frozen=True, slots=True, kw_only=True)
class Store:
    """An open store: each consumer takes the part it needs. `installation` is the store's own name, made with it."""

    url: str
    folder: Path
    installation: str
    durability: str
    schema_version: int
    journal: Journal
    ownership: Ownership
    commands: Commands
    catalog: Catalog
    reader: Reader
    retention: Retention
    audit: AuditTrail
    observations: Observations
    logs: LogStore
    artifacts: CollectedArtifacts
    writing: Lane
    reading: Lane
    sql: Queries

    async def integrity(self) -> Sequence[Fault]:
        """Look for damage: the file itself, references, gaps in histories. Folding them is done above the store."""
        return await self.reading.run(lambda connection: faults(connection, self.sql))

    def close(self) -> None:
        """Finish what is queued and close the files. An owner's lock is not released by this."""
        self.audit.close()
        self.writing.close()
        self.reading.close()
        self.logs.close()


def _local_artifacts(installation: str, folder: Path) -> CollectedArtifacts:
    return LocalArtifacts(folder)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a store is made of beyond its folder. Most that differs from the defaults is for tests and measurements."""

    options: SqliteOptions = SqliteOptions()
    limits: LogLimits = LogLimits()
    entropy: Callable[[int], bytes] = os.urandom
    sql: Queries | None = None
    migrations: Sequence[Migration] | None = None
    changes: Callable[[Queries], ChangeWriter] = ChangeWriter
    artifacts: Callable[[str, Path], CollectedArtifacts] = _local_artifacts  # the installation's name, its own folder


def database_file(url: str) -> Path:
    """Say which file a `sqlite:///path` names: relative to the working folder, absolute with a fourth slash."""
    path = url.removeprefix(_SCHEME)
    if path == url or not path or "?" in path:
        raise InvalidSettings(f"{url!r} is not a SQLite store", hint=f"write {_SCHEME}.flexcore/{FILE_NAME}")
    return Path(path)


def open_store(
    folder: Path, *, now: Callable[[], datetime], file_name: str = FILE_NAME, parts: Parts | None = None
) -> Store:
    """Open the store in a folder, making or upgrading it under a lock. Blocks for some milliseconds; not for a loop.

    Raises StoreUnavailable, InvalidSettings, or Conflict when a newer FlexCore has upgraded it.
    """
    parts = parts or Parts()
    folder = folder.absolute()
    sql = parts.sql or load("sqlite")
    boot_s = parts.options.busy_timeout / timedelta(seconds=1)
    with _in_our_words(folder):
        _make(folder)
        with exclusive(folder / "locks" / "boot.lock", boot_s):
            writing = connect(folder / file_name, parts.options)
            try:
                store = _put_together(folder, file_name, now, parts, sql, writing)
                sync_folder(folder)
            except BaseException:
                writing.close()
                raise
    return store


@contextmanager
def _in_our_words(folder: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise foreign(error, f"{folder}: ") from error
    except OSError as error:
        hint = "check that the folder can be made and written, and that its disk has space"
        raise StoreUnavailable(f"the store in {folder} cannot be opened: {error}", hint=hint) from error


def _make(folder: Path) -> None:
    for each in (folder, folder / "locks", folder / "logs", folder / "artifacts"):
        each.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_folder(folder.parent)


def _put_together(
    folder: Path,
    file_name: str,
    now: Callable[[], datetime],
    parts: Parts,
    sql: Queries,
    connection: sqlite3.Connection,
) -> Store:
    moment = now()
    version = migrate(connection, sql, parts.migrations or migrations(), moment)
    fresh = new_id("fxi", microseconds(moment) // 1000, parts.entropy(10))
    name = installation(connection, sql, fresh, moment)
    url, lasting = f"{_SCHEME}{folder / file_name}", durability(connection)
    writing, reading = (
        Lane(connection, "flexcore-writer"),
        Lane(connect(folder / file_name, parts.options), "flexcore-reader"),
    )
    ownership = SqliteOwnership(writer=writing, sql=sql, locks=folder / "locks", now=now, entropy=parts.entropy)
    commands = SqliteCommands(writing, sql)
    logs = LogStore(folder / "logs", now=now, limits=parts.limits)
    artifacts = parts.artifacts(name, folder / "artifacts")

    def describe(executions: Mapping[str, int]) -> StoreStatus:
        return StoreStatus(
            url=url, schema_version=version, durability=lasting, installation=name, executions=executions
        )

    return Store(
        url=url,
        folder=folder,
        installation=name,
        durability=lasting,
        schema_version=version,
        journal=SqliteJournal(
            writer=writing,
            reader=reading,
            changes=parts.changes(sql),
            sql=sql,
            owner=ownership.current,
            commands=commands,
            is_alive=ownership.is_alive,
            group_limit=parts.options.group_limit,
        ),
        ownership=ownership,
        commands=commands,
        catalog=SqliteCatalog(writing, reading, sql),
        reader=SqliteReader(
            writer=writing,
            reader=reading,
            sql=sql,
            logs=logs,
            now=now,
            is_alive=ownership.is_alive,
            describe=describe,
        ),
        retention=SqliteRetention(
            writer=writing, reader=reading, sql=sql, log_store=logs, artifact_store=artifacts, folder=folder, now=now
        ),
        audit=SqliteAudit(writing, reading, sql),
        observations=SqliteObservations(reading, sql),
        logs=logs,
        artifacts=artifacts,
        writing=writing,
        reading=reading,
        sql=sql,
    )
