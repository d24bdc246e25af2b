"""The catalog on SQLite. A definition is written once; which one is current, and pinned, is a row of its own."""

import re
import sqlite3
from collections.abc import Callable, Mapping, Sequence

from flexcore.model.errors import Conflict, InvalidRequest, NotFound
from flexcore.store.audit import AuditEntry
from flexcore.store.database import Lane
from flexcore.store.queries import Queries
from flexcore.store.read import Definition, Standing
from flexcore.store.rows import DEFINITION, microseconds
from flexcore.store.sqlite_audit import write_audit

_BARE_HASH = re.compile(r"[0-9a-f]+")


class SqliteCatalog:
    """Implements `Catalog`."""

    def __init__(self, writer: Lane, reader: Lane, sql: Queries) -> None:
        self._writer = writer
        self._reader = reader
        self._sql = sql

    async def put(self, definition: Definition, audit: AuditEntry | None = None) -> None:
        """Store a version and make it the current one of its name."""
        row = {
            "workspace": definition.workspace,
            "name": definition.name,
            "version": definition.version,
            "created_at": microseconds(definition.created_at),
            "body": DEFINITION.encode(definition),
        }

        def write(connection: sqlite3.Connection) -> int:
            connection.execute(self._sql["put_definition"], row)
            return connection.execute(self._sql["put_head"], row).rowcount

        await self._write(write, audit)

    async def get(self, workspace: str, name: str, version: str | None = None) -> Definition:
        """Give a version, by its hash or how that begins; without one, what new executions take."""
        asked = {"workspace": workspace, "name": name, "version": version}
        query = self._sql["newest_definition"] if version is None else self._sql["definition"]
        found = await self._bodies(query, asked)
        if not found and version:
            found = await self._beginning(workspace, name, version)
        if not found:
            raise await self._unknown(workspace, name, version)
        return found[0]

    async def list(self, workspace: str) -> Sequence[Definition]:
        """Give the version of every name that new executions take, by name."""
        return await self._bodies(self._sql["list_definitions"], {"workspace": workspace})

    async def versions(self, workspace: str, name: str) -> Sequence[Definition]:
        """Give all versions of a name, the one deployed last first. Raises NotFound."""
        found = await self._bodies(self._sql["list_versions"], {"workspace": workspace, "name": name})
        if not found:
            raise await self._unknown(workspace, name)
        return found

    async def standing(self, workspace: str, name: str) -> Standing:
        """Say which version of a name is current, and to which it is pinned. Raises NotFound."""
        asked = {"workspace": workspace, "name": name}
        row = await self._reader.run(lambda c: c.execute(self._sql["standing"], asked).fetchone())
        if row is None:
            raise await self._unknown(workspace, name)
        return Standing(*row)

    async def pin(self, workspace: str, name: str, version: str | None, audit: AuditEntry | None = None) -> None:
        """Have new executions take a version, or again the current one. Raises NotFound."""
        asked = {"workspace": workspace, "name": name, "version": version}
        if not await self._write(lambda c: c.execute(self._sql["pin_head"], asked).rowcount, audit):
            raise await self._unknown(workspace, name, version)

    async def move(self, workspace: str, name: str, standing: Standing, version: str, audit: AuditEntry) -> None:
        """Make another version the current one. Raises Conflict when what is current has changed meanwhile."""
        asked = {"workspace": workspace, "name": name, "version": version, "from": standing.current}
        if not await self._write(lambda c: c.execute(self._sql["move_head"], asked).rowcount, audit):
            raise Conflict(f"workflow {name} has just been changed by somebody else", hint="look again, and try again")

    async def delete(self, workspace: str, name: str, audit: AuditEntry | None = None) -> None:
        """Take a name out of the list; its versions stay readable by their hash. Raises NotFound."""
        asked = {"workspace": workspace, "name": name}
        if not await self._write(lambda c: c.execute(self._sql["delete_head"], asked).rowcount, audit):
            raise await self._unknown(workspace, name)

    async def _write(self, work: Callable[[sqlite3.Connection], int], audit: AuditEntry | None) -> int:
        """Do a piece of work and tell of it, unless it changed nothing."""

        def transaction(connection: sqlite3.Connection) -> int:
            changed = work(connection)
            if changed and audit is not None:
                write_audit(connection, self._sql, audit)
            return changed

        return await self._writer.write(transaction)

    async def _beginning(self, workspace: str, name: str, prefix: str) -> Sequence[Definition]:
        """Find the one version that begins like this; `v-` may be left out. Raises InvalidRequest for several."""
        whole = f"v-{prefix}" if _BARE_HASH.fullmatch(prefix) else prefix
        asked = {"workspace": workspace, "name": name, "prefix": whole}
        found = await self._bodies(self._sql["definitions_like"], asked)
        if len(found) > 1:
            versions = ", ".join(each.version for each in found)
            raise InvalidRequest(f"several versions of {name} begin with {prefix}", hint=f"among them: {versions}")
        return found

    async def _bodies(self, query: str, asked: Mapping[str, str | None]) -> Sequence[Definition]:
        rows = await self._reader.run(lambda connection: connection.execute(query, asked).fetchall())
        return [DEFINITION.decode(body) for (body,) in rows]

    async def _unknown(self, workspace: str, name: str, version: str | None = None) -> NotFound:
        asked = {"workspace": workspace, "name": name}
        if version is not None and await self._bodies(self._sql["newest_definition"], asked):
            hint = f"flexcore workflow versions {name}"
            return NotFound(f"workflow {name} has no version '{version}'", hint=hint)
        rows = await self._reader.run(lambda c: c.execute(self._sql["list_names"], asked).fetchall())
        names = ", ".join(name for (name,) in rows) or "nothing yet"
        return NotFound(f"there is no workflow {name}", hint=f"deployed: {names}")
