"""Ownership on SQLite: a row with an epoch, and an OS lock that the dead cannot hold.

A server's name is used once and never again, so who is dead stays dead: between looking at the lock and moving the
executions nobody can come back to life, and the write transaction lets only one taker have each of them.
"""

import os
import platform
import sqlite3
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from flexcore.model.errors import Conflict, Fenced, IllegalTransition
from flexcore.model.ids import ExecutionId, new_id
from flexcore.store.database import Lane
from flexcore.store.locks import HeldLock, is_free, remove_free
from flexcore.store.queries import Queries
from flexcore.store.rows import microseconds
from flexcore.store.sqlite_changes import check_epoch
from flexcore.store.write import Owner, ServerId


class SqliteOwnership:
    """Implements `Ownership`; `locks` is the folder of the lock files."""

    def __init__(
        self,
        *,
        writer: Lane,
        sql: Queries,
        locks: Path,
        now: Callable[[], datetime],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._writer = writer
        self._sql = sql
        self._locks = locks
        self._now = now
        self._entropy = entropy
        self._owner: Owner | None = None
        self._held: HeldLock | None = None

    def current(self) -> Owner:
        """Give this process as an owner. Raises Fenced when it is none: nothing may be written then."""
        if self._owner is None:
            raise Fenced("this process owns nothing in the store", hint="acquire ownership first")
        return self._owner

    async def acquire(self) -> Owner:
        """Become an owner; the rows of dead owners that left no work go away on this occasion."""
        if self._owner is not None:
            raise IllegalTransition(f"this process is already {self._owner.server}", allowed=("release",))
        now = self._now()
        server = ServerId(new_id("srv", microseconds(now) // 1000, self._entropy(10)))
        # The lock first: a row without a lock is a dead owner to everybody else.
        held = HeldLock(self._lock(server))
        row = {"id": server, "pid": os.getpid(), "host": platform.node(), "now": microseconds(now)}
        try:
            await self._writer.write(lambda connection: self._enter(connection, row))
        except BaseException:
            held.release(remove=True)
            raise
        self._held, self._owner = held, Owner(server, 1)
        return self._owner

    async def dead(self) -> Sequence[ServerId]:
        """Name the owners whose lock is free and who still have unfinished executions."""
        rows = await self._writer.run(lambda c: c.execute(self._sql["owners_of_unfinished"]).fetchall())
        return [ServerId(server) for (server,) in rows if not self.is_alive(ServerId(server))]

    async def take_over(self, dead: ServerId, only: ExecutionId | None = None) -> Sequence[ExecutionId]:
        """Fence a dead owner and take its unfinished executions, or just `only`. Raises Conflict when it is alive."""
        owner = self.current()
        if self.is_alive(dead):
            raise Conflict(f"{dead} is alive: its executions stay its own", hint="send it a command instead")
        moved, is_empty = await self._writer.write(lambda connection: self._move(connection, owner, dead, only))
        if is_empty:
            remove_free(self._lock(dead))
        return moved

    async def release(self) -> None:
        """Give up the row and the lock. With unfinished executions the row stays, for whoever comes next."""
        owner, held = self._owner, self._held
        self._owner, self._held = None, None
        if owner is None or held is None:
            return
        is_idle = False
        try:
            is_idle = await self._writer.write(lambda connection: self._remove_idle(connection, owner.server))
        finally:
            held.release(remove=is_idle)

    def is_alive(self, server: ServerId) -> bool:
        """Say whether the owner's process lives: its lock is held."""
        return not is_free(self._lock(server))

    def _enter(self, connection: sqlite3.Connection, row: dict[str, object]) -> None:
        for (idle,) in connection.execute(self._sql["idle_servers"]).fetchall():
            if not self.is_alive(ServerId(idle)) and self._remove_idle(connection, ServerId(idle)):
                remove_free(self._lock(ServerId(idle)))
        connection.execute(self._sql["insert_server"], row)

    def _move(
        self, connection: sqlite3.Connection, owner: Owner, dead: ServerId, only: ExecutionId | None
    ) -> tuple[Sequence[ExecutionId], bool]:
        check_epoch(connection, self._sql, owner)
        connection.execute(self._sql["fence_server"], {"id": dead})
        asked = {"heir": owner.server, "dead": dead, "only": only}
        moved = connection.execute(self._sql["move_executions"], asked).fetchall()
        return [ExecutionId(id) for (id,) in sorted(moved)], self._remove_idle(connection, dead)

    def _remove_idle(self, connection: sqlite3.Connection, server: ServerId) -> bool:
        return connection.execute(self._sql["remove_idle_server"], {"id": server}).rowcount == 1

    def _lock(self, server: ServerId) -> Path:
        return self._locks / f"{server}.lock"
