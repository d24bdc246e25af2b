"""The audit trail on SQLite."""

import asyncio
import re
import sqlite3
from collections import deque
from contextlib import suppress

import structlog

from flexcore.model.errors import InvalidInput, StoreUnavailable
from flexcore.model.requests import AuditQuery, Page
from flexcore.store.audit import AuditEntry
from flexcore.store.database import Lane, immediate
from flexcore.store.queries import Queries
from flexcore.store.rows import Row, json_from, json_text, microseconds, moment

_log = structlog.get_logger(__name__)

_GATHERING_SECONDS = 0.05
_CURSOR = re.compile(r"[0-9]{1,18}")  # more is more than a row can be numbered
_EARLIEST = -(2**62)  # earlier than any time


class SqliteAudit:
    """Implements `AuditTrail`."""

    def __init__(self, writer: Lane, reader: Lane, sql: Queries) -> None:
        self._writer = writer
        self._reader = reader
        self._sql = sql
        self._waiting: deque[AuditEntry] = deque()

    async def add(self, entry: AuditEntry) -> None:
        """Add a line, durable on return."""
        await self._writer.write(lambda connection: write_audit(connection, self._sql, entry))

    def post(self, entry: AuditEntry) -> None:
        """Add a line soon: a transaction of its own would stand in the way of what the caller does next."""
        self._waiting.append(entry)
        if len(self._waiting) == 1:
            asyncio.get_running_loop().call_later(_GATHERING_SECONDS, self.close)

    def close(self) -> None:
        """Have what waits written."""
        if self._waiting:
            with suppress(StoreUnavailable):  # closed meanwhile, which wrote them
                self._writer.post(self._flush)

    async def entries(self, query: AuditQuery) -> Page[AuditEntry]:
        """Give lines, the newest first. Raises InvalidInput for a cursor that is none."""
        if query.cursor is not None and not _CURSOR.fullmatch(query.cursor):
            raise InvalidInput(f"{query.cursor!r} is not a cursor", hint="use the `next` of the page before")
        if self._waiting:
            await self._writer.run(self._flush)
        asked = {
            "workspace": query.workspace,
            "actor": query.actor,
            "subject": query.subject,
            "since": microseconds(query.since) if query.since else _EARLIEST,
            "before": int(query.cursor) if query.cursor else None,
            "limit": query.limit + 1,
        }
        rows = await self._reader.run(lambda c: c.execute(self._sql["list_audit"], asked).fetchall())
        entries = tuple(_entry(row) for row in rows[: query.limit])
        return Page(entries, str(rows[len(entries) - 1][0]) if len(rows) > query.limit else None)

    def _flush(self, connection: sqlite3.Connection) -> None:
        taken: list[AuditEntry] = []
        while self._waiting:
            taken.append(self._waiting.popleft())
        try:
            with immediate(connection):
                for entry in taken:
                    write_audit(connection, self._sql, entry)
        except sqlite3.Error as error:
            # What they tell has happened and stays; that nobody wrote it down must at least be seen.
            _log.error("audit.lost", lines=len(taken), reason=str(error))


def write_audit(connection: sqlite3.Connection, sql: Queries, entry: AuditEntry) -> None:
    """Add a line inside somebody's transaction."""
    row = {
        "at": microseconds(entry.at),
        "workspace": entry.workspace,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": json_text(dict(entry.details)),
        "outcome": entry.outcome,
    }
    connection.execute(sql["insert_audit"], row)


def _entry(row: Row) -> AuditEntry:
    _, at, workspace, actor, action, subject, details, outcome = row
    return AuditEntry(
        at=moment(at),
        workspace=workspace,
        actor=actor,
        action=action,
        subject=subject,
        details=json_from(details),
        outcome=outcome,
    )
