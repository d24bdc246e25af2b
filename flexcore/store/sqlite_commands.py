"""Commands on SQLite: a durable row that the owner will find. The insert is the acknowledgement."""

import sqlite3
from datetime import datetime

from flexcore.model.errors import IllegalTransition, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.values import JSON
from flexcore.store.database import Lane
from flexcore.store.queries import Queries
from flexcore.store.rows import json_text, microseconds


class SqliteCommands:
    """Implements `Commands`."""

    def __init__(self, writer: Lane, sql: Queries) -> None:
        self._writer = writer
        self._sql = sql
        self._has_sent = False

    async def send(self, execution: ExecutionId, kind: str, body: JSON, now: datetime) -> int:
        """Insert a command. Raises NotFound, or IllegalTransition when the execution has ended."""
        asked = {"execution": execution, "kind": kind, "body": json_text(body), "now": microseconds(now)}
        id = await self._writer.write(lambda connection: self._insert(connection, asked))
        self._has_sent = True
        return id

    def take_sent(self) -> bool:
        """Say whether a command was sent from here since the last call."""
        sent, self._has_sent = self._has_sent, False
        return sent

    def _insert(self, connection: sqlite3.Connection, asked: dict[str, object]) -> int:
        rows = connection.execute(self._sql["send_command"], asked).fetchall()
        if rows:
            return int(rows[0][0])
        found = connection.execute(self._sql["command_target"], asked).fetchone()
        if found is None:
            raise NotFound(f"there is no execution {asked['execution']}", hint="see flexcore execution list")
        raise IllegalTransition(f"{asked['execution']} has ended ({found[0]}): nothing can be asked of it any more")
