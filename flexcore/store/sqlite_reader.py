"""The reader on SQLite: a connection of its own that never writes, so reading never waits for the journal."""

import sqlite3
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from itertools import islice

from flexcore.model.changes import HistoryEntry
from flexcore.model.errors import IllegalTransition, InvalidInput, NotFound
from flexcore.model.execution import ExecutionHeader, ExecutionState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.pools import PoolView
from flexcore.model.requests import ExecutionQuery, Page
from flexcore.store.database import Lane
from flexcore.store.logs import LogStore
from flexcore.store.queries import Queries
from flexcore.store.read import ExecutionView, StoreStatus
from flexcore.store.rows import SCOPE, STEP, entry_from, header_from, json_text, microseconds
from flexcore.store.sqlite_pools import queue_of
from flexcore.store.write import ServerId

_MOST_RANKS = 100  # of a queue: nobody wants to read more
_LATEST = 2**62  # later than any time, and below what SQLite can count


class SqliteReader:
    """Implements `Reader`. `describe` gives what is fixed while the store is open."""

    def __init__(
        self,
        *,
        writer: Lane,
        reader: Lane,
        sql: Queries,
        logs: LogStore,
        now: Callable[[], datetime],
        is_alive: Callable[[ServerId], bool],
        describe: Callable[[Mapping[str, int]], StoreStatus],
    ) -> None:
        self._writer = writer
        self._reader = reader
        self._sql = sql
        self._logs = logs
        self._now = now
        self._is_alive = is_alive
        self._describe = describe
        self._data_version: int | None = None

    async def execution(self, id: ExecutionId) -> ExecutionView:
        """Give an execution as of one moment. Raises NotFound."""
        state, owner = await self._reader.read(lambda connection: self._state(connection, id))
        return ExecutionView(state=state, owner=owner, owner_alive=self._is_alive(ServerId(owner)))

    async def executions(self, query: ExecutionQuery) -> Page[ExecutionHeader]:
        """Give a page of executions, newest first. Raises InvalidInput for a cursor that is none."""
        asked = {
            "workspace": query.workspace,
            "workflow": query.workflow,
            "status": query.status.value if query.status else None,
            "since": microseconds(query.since) if query.since else -_LATEST,
            "unfinished": query.unfinished,
            "limit": query.limit + 1,
            **_position(query.cursor),
            **_searched(query),
        }
        listing = self._listing(query)
        rows = await self._reader.run(lambda connection: connection.execute(listing, asked).fetchall())
        headers = tuple(header_from(body, input) for body, input, _ in rows[: query.limit])
        more = len(rows) > query.limit and bool(headers)
        return Page(headers, f"{rows[len(headers) - 1][2]}.{headers[-1].id}" if more else None)

    async def history(self, id: ExecutionId, after: int = 0, limit: int = 1000) -> Page[HistoryEntry]:
        """Give history entries with a `seq` above `after`; the page's `next` is the next `after`. Raises NotFound."""
        asked = {"execution": id, "after": after, "limit": limit + 1}
        rows = await self._reader.read(lambda connection: self._history(connection, asked))
        entries = tuple(entry_from(row) for row in rows[:limit])
        return Page(entries, str(entries[-1].seq) if len(rows) > limit and entries else None)

    async def started_with(self, workspace: str, workflow: str, key: str) -> tuple[ExecutionId, str] | None:
        """Give the execution and the fingerprint that an idempotency key stands for, while it is kept."""
        asked = {"workspace": workspace, "workflow": workflow, "key": key, "now": microseconds(self._now())}
        row = await self._reader.run(lambda connection: connection.execute(self._sql["started_with"], asked).fetchone())
        return None if row is None else (ExecutionId(row[0]), str(row[1]))

    async def ids(self, after: str = "", limit: int = 1000) -> Page[ExecutionId]:
        """Give the executions of all workspaces, oldest first, with an id above `after`, which is a page's `next`."""
        asked = {"after": after, "limit": limit + 1}
        rows = await self._reader.run(lambda connection: connection.execute(self._sql["list_ids"], asked).fetchall())
        found = tuple(ExecutionId(id) for (id,) in rows[:limit])
        return Page(found, found[-1] if len(rows) > limit and found else None)

    async def pools(self, names: Iterable[str]) -> Mapping[str, PoolView]:
        """Give limited pools as of one moment."""
        wanted = sorted(set(names))
        if not wanted:
            return {}
        return await self._reader.read(lambda connection: {name: self._pool(connection, name) for name in wanted})

    def _pool(self, connection: sqlite3.Connection, name: str) -> PoolView:
        asked = {"pool": name}
        (held,) = connection.execute(self._sql["count_of_pool"], asked).fetchone()
        holders = connection.execute(self._sql["holders_of_pool"], asked).fetchall()
        return PoolView(
            held=held,
            holders=tuple(ExecutionId(id) for (id,) in holders),
            waiting=tuple(islice(queue_of(connection, self._sql, name, self._is_alive), _MOST_RANKS)),
        )

    async def claims(self, id: ExecutionId) -> Collection[tuple[str, StepPath, bool]]:
        """Give what is in pools for an execution."""
        query, asked = self._sql["claims_of_execution"], {"execution": id}
        rows = await self._reader.run(lambda connection: connection.execute(query, asked).fetchall())
        return {(pool, StepPath(path), queued is None) for pool, path, queued in rows}

    async def changed(self) -> bool:
        """Say whether anybody, this process included, has committed anything since the last call; at first, yes."""
        query = self._sql["reader_data_version"]
        version = await self._reader.run(lambda connection: int(connection.execute(query).fetchone()[0]))
        was, self._data_version = self._data_version, version
        return version != was

    async def delete(self, id: ExecutionId) -> None:
        """Remove a finished execution with its history and logs. Raises NotFound, IllegalTransition."""
        await self._writer.write(lambda connection: self._delete(connection, id))
        await self._logs.delete(id)

    async def status(self) -> StoreStatus:
        """Describe the store."""
        rows = await self._reader.run(lambda connection: connection.execute(self._sql["count_by_status"]).fetchall())
        return self._describe(dict(rows))

    def _state(self, connection: sqlite3.Connection, id: ExecutionId) -> tuple[ExecutionState, str]:
        asked = {"execution": id}
        row = connection.execute(self._sql["execution_row"], asked).fetchone()
        if row is None:
            raise _unknown(id)
        steps = [STEP.decode(body) for (body,) in connection.execute(self._sql["step_rows"], asked)]
        scopes = [SCOPE.decode(body) for (body,) in connection.execute(self._sql["scope_rows"], asked)]
        state = ExecutionState(
            header=header_from(row[0], row[1]),
            steps={step.path: step for step in steps},
            scopes={scope.scope: scope for scope in scopes},
            seq=row[3],
        )
        return state, row[2]

    def _listing(self, query: ExecutionQuery) -> str:
        """Choose the statement whose index fits; the other conditions only filter what it finds."""
        if query.labels:
            return self._sql["search_executions_of_label"]
        if query.search or query.failed_step or query.until:
            return self._sql["search_executions"]
        if query.workflow is not None:
            return self._sql["list_executions_of_workflow"]
        if query.status is not None:
            return self._sql["list_executions_of_status"]
        return self._sql["list_unfinished_executions"] if query.unfinished else self._sql["list_executions"]

    def _history(self, connection: sqlite3.Connection, asked: dict[str, object]) -> list[tuple[object, ...]]:
        rows = connection.execute(self._sql["history_page"], asked).fetchall()
        if not rows and connection.execute(self._sql["execution_exists"], asked).fetchone() is None:
            raise _unknown(asked["execution"])
        return rows

    def _delete(self, connection: sqlite3.Connection, id: ExecutionId) -> None:
        if connection.execute(self._sql["delete_execution"], {"execution": id}).rowcount == 1:
            return
        if connection.execute(self._sql["deletable_execution"], {"execution": id}).fetchone() is None:
            raise _unknown(id)
        raise IllegalTransition(f"{id} has not ended and cannot be deleted", hint="cancel it first")


def _position(cursor: str | None) -> dict[str, object]:
    if cursor is None:
        return {"before": _LATEST, "before_id": ""}
    before, _, before_id = cursor.partition(".")
    if not before.lstrip("-").isdigit() or not before_id:
        raise InvalidInput(f"{cursor!r} is not a cursor", hint="use the `next` of the page before")
    return {"before": int(before), "before_id": before_id}


def _searched(query: ExecutionQuery) -> dict[str, object]:
    key, value = next(iter(query.labels.items()), (None, None))
    return {
        "until": microseconds(query.until) if query.until else _LATEST,
        "search": _lowered(query.search) if query.search else None,
        "failed_step": query.failed_step or None,
        "label_key": key,
        "label_value": value,
        "labels": json_text(dict(query.labels)),
    }


def _lowered(text: str) -> str:
    """Fold case as the store's own `lower` does: it knows ASCII only, and both sides have to agree."""
    return "".join(each.lower() if each.isascii() else each for each in text)


def _unknown(id: object) -> NotFound:
    hint = "see flexcore execution list; finished ones are removed when they are older than retention.executions"
    return NotFound(f"there is no execution {id}", hint=hint)
