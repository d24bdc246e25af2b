"""The catalog on SQLite. A definition is written once; which one is newest is a row of its own."""

import sqlite3
from collections.abc import Sequence

from flexcore.model.errors import NotFound
from flexcore.store.database import Lane
from flexcore.store.queries import Queries
from flexcore.store.read import Definition
from flexcore.store.rows import DEFINITION, microseconds


class SqliteCatalog:
    """Implements `Catalog`."""

    def __init__(self, writer: Lane, reader: Lane, sql: Queries) -> None:
        self._writer = writer
        self._reader = reader
        self._sql = sql

    async def put(self, definition: Definition) -> None:
        """Store a version and make it the newest of its name."""
        row = {
            "workspace": definition.workspace,
            "name": definition.name,
            "version": definition.version,
            "created_at": microseconds(definition.created_at),
            "body": DEFINITION.encode(definition),
        }

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["put_definition"], row)
            connection.execute(self._sql["put_head"], row)

        await self._writer.write(write)

    async def get(self, workspace: str, name: str, version: str | None = None) -> Definition:
        """Give a version, the newest without one. Raises NotFound with the names that are there."""
        asked = {"workspace": workspace, "name": name, "version": version}
        query = self._sql["newest_definition"] if version is None else self._sql["definition"]
        found = await self._bodies(query, asked)
        if not found:
            raise await self._unknown(workspace, f"{name} in version {version}" if version else name)
        return found[0]

    async def list(self, workspace: str) -> Sequence[Definition]:
        """Give the newest version of every name, by name."""
        return await self._bodies(self._sql["list_definitions"], {"workspace": workspace})

    async def versions(self, workspace: str, name: str) -> Sequence[Definition]:
        """Give all versions of a name, the one deployed last first. Raises NotFound."""
        found = await self._bodies(self._sql["list_versions"], {"workspace": workspace, "name": name})
        if not found:
            raise await self._unknown(workspace, name)
        return found

    async def delete(self, workspace: str, name: str) -> None:
        """Take a name out of the list; its versions stay readable by their hash. Raises NotFound."""
        asked = {"workspace": workspace, "name": name}
        if not await self._writer.write(lambda c: c.execute(self._sql["delete_head"], asked).rowcount):
            raise await self._unknown(workspace, name)

    async def _bodies(self, query: str, asked: dict[str, str | None]) -> Sequence[Definition]:
        rows = await self._reader.run(lambda connection: connection.execute(query, asked).fetchall())
        return [DEFINITION.decode(body) for (body,) in rows]

    async def _unknown(self, workspace: str, what: str) -> NotFound:
        asked = {"workspace": workspace}
        rows = await self._reader.run(lambda c: c.execute(self._sql["list_names"], asked).fetchall())
        names = ", ".join(name for (name,) in rows) or "nothing yet"
        return NotFound(f"there is no workflow {what}", hint=f"deployed: {names}")
