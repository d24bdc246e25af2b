"""The journal on SQLite: gathers the change sets that wait at one moment into one transaction.

Nobody waits on purpose: a lone change set is written at once; while a transaction is on its way to the disk, the next
group gathers by itself. Change sets become rows in the caller's task, so what cannot be stored fails only its caller.
"""

import asyncio
import sqlite3
from collections import deque
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence, Set
from datetime import datetime
from functools import partial
from itertools import islice
from typing import TypeAlias

from flexcore.model.changes import HistoryEntry
from flexcore.model.errors import FlexCoreError, InternalError, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.pools import Party, PoolUse
from flexcore.model.values import Payload
from flexcore.store.database import Lane
from flexcore.store.queries import Queries
from flexcore.store.rows import PAYLOAD, Rows, command_from, entry_from, microseconds, rows_of
from flexcore.store.sqlite_changes import ChangeWriter, Outcome, refused_alike
from flexcore.store.sqlite_commands import SqliteCommands
from flexcore.store.sqlite_pools import queue_of
from flexcore.store.write import NOBODY, ChangeSet, Command, OpenExecution, Owner, ServerId

Waiting: TypeAlias = tuple[Rows, Owner, asyncio.Future[None]]


class SqliteJournal:
    """Implements `Journal`. `owner` gives this process as the store knows it now; without one nothing is written."""

    def __init__(
        self,
        *,
        writer: Lane,
        reader: Lane,
        changes: ChangeWriter,
        sql: Queries,
        owner: Callable[[], Owner],
        commands: SqliteCommands,
        is_alive: Callable[[ServerId], bool],
        group_limit: int,
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._changes = changes
        self._sql = sql
        self._owner = owner
        self._commands = commands
        self._is_alive = is_alive
        self._group_limit = group_limit
        self._waiting: deque[Waiting] = deque()
        self._is_announced = False
        self._data_version: int | None = None

    async def commit(self, changes: ChangeSet) -> None:
        """Return after the fsync of the group this change set joined. Cancelling the wait does not undo the write."""
        owner = self._owner()
        loop = asyncio.get_running_loop()
        done: asyncio.Future[None] = loop.create_future()
        self._waiting.append((rows_of(changes, owner.server), owner, done))
        if not self._is_announced:
            self._is_announced = True
            # At the end of this turn of the loop: whoever is ready in the same turn joins the same group.
            loop.call_soon(self._announce)
        await done

    async def open_executions(self, only: Collection[ExecutionId] = ()) -> AsyncIterator[OpenExecution]:
        """Give every unfinished execution of this owner, or those of `only` among them."""
        owner = self._owner().server
        ids = await self._reader.run(lambda c: c.execute(self._sql["owned_executions"], {"owner": owner}).fetchall())
        for (id,) in ids:
            if not only or id in only:
                yield await self._reader.run(partial(self._whole, ExecutionId(id)))

    async def history(self, id: ExecutionId) -> Sequence[HistoryEntry]:
        """Give the whole history of any execution. Raises NotFound."""
        found = await self._reader.run(partial(self._whole, id))
        if not found.history:
            raise NotFound(f"there is no execution {id}")
        return found.history

    async def commands(self) -> Sequence[Command]:
        """Give the unconsumed commands for unfinished executions of this owner, oldest first."""
        asked = {"owner": self._owner().server}
        rows = await self._reader.run(lambda c: c.execute(self._sql["waiting_commands"], asked).fetchall())
        return [command_from(row) for row in rows]

    async def changed(self) -> bool:
        """Say whether another process has committed anything since the last call; the first call says yes.

        Asked on the writing connection, whose own commits do not count. A command sent through this very store
        counts, so that a process finds what it asked of itself.
        """
        version = await self._writer.run(lambda c: int(c.execute(self._sql["data_version"]).fetchone()[0]))
        was, self._data_version = self._data_version, version
        return self._commands.take_sent() or version != was

    async def cached(self, key: str, now: datetime) -> Payload | None:
        """Give a cached result that has not expired."""
        asked = {"key": key, "now": microseconds(now)}
        row = await self._reader.run(lambda c: c.execute(self._sql["cached_result"], asked).fetchone())
        return None if row is None else PAYLOAD.decode(row[0])

    async def pools(
        self,
        wanted: Mapping[str, int],
        execution: ExecutionId | None = None,
        without: Mapping[str, Set[ExecutionId]] = NOBODY,
    ) -> Mapping[str, PoolUse]:
        """Look at pools at one moment. Owners that are dead wait for nothing: nobody would take the place."""

        def look(connection: sqlite3.Connection) -> Mapping[str, PoolUse]:
            return {
                pool: PoolUse(
                    held=self._held(connection, pool, execution),
                    waiting=self._queue(connection, pool, limit, without.get(pool, frozenset())),
                )
                for pool, limit in wanted.items()
            }

        return await self._reader.read(look)

    def _held(self, connection: sqlite3.Connection, pool: str, execution: ExecutionId | None) -> int:
        asked = {"pool": pool, "execution": execution or ""}
        (held,) = connection.execute(self._sql["places_held"], asked).fetchone()
        return int(held)

    def _queue(
        self, connection: sqlite3.Connection, pool: str, limit: int, without: Set[ExecutionId]
    ) -> tuple[Party, ...]:
        queue = queue_of(connection, self._sql, pool, self._is_alive)
        return tuple(islice((each for each in queue if each.execution not in without), limit))

    def _whole(self, id: ExecutionId, connection: sqlite3.Connection) -> OpenExecution:
        rows = connection.execute(self._sql["whole_history"], {"execution": id}).fetchall()
        return OpenExecution(id=id, history=tuple(entry_from(row) for row in rows))

    def _announce(self) -> None:
        try:
            self._writer.post(self._flush)
        except FlexCoreError as error:
            group = self._take()
            self._is_announced = False
            if group:
                self._report([done for _, _, done in group], refused_alike(error, len(group)))

    def _flush(self, connection: sqlite3.Connection) -> None:
        """In the writer's thread: write what waits, up to the limit, and see to the rest."""
        # Before taking: whoever appends after this line announces a flush of its own.
        self._is_announced = False
        group = self._take()
        if group:
            futures = [done for _, _, done in group]
            self._report(futures, self._outcomes(connection, group))
        if self._waiting and not self._is_announced:
            self._is_announced = True
            self._announce()

    def _take(self) -> list[Waiting]:
        """Take what waits, as long as it was written by one owner: the fence is checked once per group."""
        group: list[Waiting] = []
        while self._waiting and len(group) < self._group_limit and (not group or self._waiting[0][1] is group[0][1]):
            group.append(self._waiting.popleft())
        return group

    def _outcomes(self, connection: sqlite3.Connection, group: Sequence[Waiting]) -> Sequence[Outcome]:
        try:
            return self._changes.commit(connection, group[0][1], [rows for rows, _, _ in group])
        except FlexCoreError as error:
            return refused_alike(error, len(group))
        except Exception as error:  # a shell: a future that never ends would be worse than any bug
            return refused_alike(InternalError(f"the journal failed: {error!r}"), len(group))

    def _report(self, futures: Sequence["asyncio.Future[None]"], outcomes: Sequence[Outcome]) -> None:
        """Wake everybody of the group at once."""
        loop = futures[0].get_loop()
        if not loop.is_closed():
            loop.call_soon_threadsafe(_settle, futures, outcomes)


def _settle(futures: Sequence["asyncio.Future[None]"], outcomes: Sequence[Outcome]) -> None:
    for future, outcome in zip(futures, outcomes, strict=True):
        if future.done():  # its caller was cancelled and waits no more
            continue
        if outcome is None:
            future.set_result(None)
        else:
            future.set_exception(outcome)
