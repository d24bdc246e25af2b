"""A SQLite connection and the one thread that uses it; what is asked of SQLite, and whether it obeyed.

Nothing here knows a table. Foreign exceptions end here: callers see `StoreUnavailable` or `InternalError`.
"""

import asyncio
import sqlite3
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal, TypeVar

from flexcore.model.errors import FlexCoreError, InternalError, InvalidSettings, StoreUnavailable

Result = TypeVar("Result")

_CLOSED, _REOPEN = "the store is closed", "open it again"
_FULL = 2
_OLDEST = (3, 37, 0)  # strict tables
_UNAVAILABLE = frozenset(
    {
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_PROTOCOL,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteOptions:
    """How a store is driven. Anything but the defaults is for tests and measurements.

    `busy_timeout` is how long a write waits for another process's transaction. `group_limit` bounds a transaction.
    """

    busy_timeout: timedelta = timedelta(seconds=10)
    synchronous: Literal["FULL", "NORMAL", "OFF"] = "FULL"
    group_limit: int = 512


class Lane:
    """A connection and the one thread that uses it: work is done one piece after the other, off the event loop."""

    def __init__(self, connection: sqlite3.Connection, name: str) -> None:
        self._connection = connection
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do a piece of work and give its result. Raises StoreUnavailable, InternalError, or what the work raises."""
        try:
            started = asyncio.get_running_loop().run_in_executor(self._thread, self._translated, work)
        except RuntimeError as error:
            raise StoreUnavailable(_CLOSED, hint=_REOPEN) from error
        return await started

    async def write(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do a piece of work as one transaction: all of it is durable on return, or nothing was done."""

        def transaction(connection: sqlite3.Connection) -> Result:
            with immediate(connection):
                return work(connection)

        return await self.run(transaction)

    async def read(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        """Do several reads on one and the same snapshot."""

        def snapshot(connection: sqlite3.Connection) -> Result:
            with transaction(connection, "BEGIN"):
                return work(connection)

        return await self.run(snapshot)

    def post(self, work: Callable[[sqlite3.Connection], None]) -> None:
        """Queue a piece of work that reports its outcome by itself. Raises StoreUnavailable when closed."""
        try:
            self._thread.submit(work, self._connection)
        except RuntimeError as error:
            raise StoreUnavailable(_CLOSED, hint=_REOPEN) from error

    def close(self) -> None:
        """Finish what is queued, then close. Later work is refused. Doing it twice is harmless."""
        self._thread.shutdown(wait=True)
        self._connection.close()

    def _translated(self, work: Callable[[sqlite3.Connection], Result]) -> Result:
        try:
            return work(self._connection)
        except sqlite3.Error as error:
            raise foreign(error) from error


@contextmanager
def transaction(connection: sqlite3.Connection, begin: str) -> Iterator[None]:
    """Commit what happens inside, or roll all of it back."""
    connection.execute(begin)
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        abandon(connection)
        raise


def immediate(connection: sqlite3.Connection) -> AbstractContextManager[None]:
    """Take the write lock at once: a transaction that reads first and writes later can fail half-way."""
    return transaction(connection, "BEGIN IMMEDIATE")


def abandon(connection: sqlite3.Connection) -> None:
    """Roll back, if SQLite has not done so itself, as it does when the disk is full."""
    if connection.in_transaction:
        connection.execute("ROLLBACK")


def connect(file: Path, options: SqliteOptions) -> sqlite3.Connection:
    """Open the database as a store needs it. Raises StoreUnavailable, InvalidSettings."""
    if sqlite3.sqlite_version_info < _OLDEST:
        raise InvalidSettings(
            f"SQLite {sqlite3.sqlite_version} is too old for a store; it needs 3.37",
            hint="use a Python that was built with a newer SQLite",
        )
    timeout_s = options.busy_timeout / timedelta(seconds=1)
    try:
        # Made in one thread, used in another, never in two at a time.
        connection = sqlite3.connect(
            file, timeout=timeout_s, isolation_level=None, check_same_thread=False, cached_statements=256
        )
        for pragma in _pragmas(options):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as error:
        raise foreign(error, f"{file}: ") from error
    return connection


def durability(connection: sqlite3.Connection) -> str:
    """Say `full`, or `reduced: …` with the reason, by reading back what SQLite made of our wishes."""
    journal_mode = str(connection.execute("PRAGMA journal_mode").fetchone()[0]).lower()
    synchronous = int(connection.execute("PRAGMA synchronous").fetchone()[0])
    reasons = []
    if journal_mode != "wal":
        reasons.append(f"journal_mode is {journal_mode}, not wal")
    if synchronous < _FULL:
        reasons.append(f"synchronous is {('off', 'normal')[synchronous]}, not full")
    return f"reduced: {', '.join(reasons)}" if reasons else "full"


def foreign(error: sqlite3.Error, what: str = "") -> FlexCoreError:
    """Say a driver's error in our words: what may work later is unavailable, anything else is our bug."""
    code = getattr(error, "sqlite_errorcode", None)
    if code is not None and code & 0xFF in _UNAVAILABLE:
        return StoreUnavailable(f"{what}the store cannot be used now: {error}", hint=_hint(code & 0xFF))
    if isinstance(error, sqlite3.ProgrammingError) and "closed" in str(error):
        return StoreUnavailable(_CLOSED, hint=_REOPEN)
    return InternalError(f"{what}the store refused a statement: {error}")


def _pragmas(options: SqliteOptions) -> tuple[str, ...]:
    return (
        "journal_mode = WAL",
        f"synchronous = {options.synchronous}",
        "fullfsync = ON",  # macOS: fsync alone leaves data in the drive's cache
        "foreign_keys = ON",
        "cache_size = -16000",
        "temp_store = MEMORY",
    )


def _hint(code: int) -> str:
    match code:
        case sqlite3.SQLITE_FULL:
            return "free some space on the disk; nothing was changed, and the store goes on by itself"
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return "another process is writing; try again"
        case sqlite3.SQLITE_CORRUPT | sqlite3.SQLITE_NOTADB:
            return "the file is damaged; run flexcore verify, or restore a backup"
        case sqlite3.SQLITE_READONLY | sqlite3.SQLITE_PERM | sqlite3.SQLITE_CANTOPEN:
            return "check that the folder exists and can be written"
        case _:
            return "look at the disk; the same request may be sent again"
