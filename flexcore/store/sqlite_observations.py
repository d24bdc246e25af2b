"""The observations on SQLite: a reader of a table that the journal appends to."""

import sqlite3

import structlog

from flexcore.model.errors import InternalError
from flexcore.model.observation import Observation
from flexcore.store.database import Lane
from flexcore.store.observations import Observed
from flexcore.store.queries import Queries
from flexcore.store.rows import Row, observation_from

_log = structlog.get_logger(__name__)


class SqliteObservations:
    """Implements `Observations`."""

    def __init__(self, reader: Lane, sql: Queries) -> None:
        self._reader = reader
        self._sql = sql

    async def after(self, position: int, most: int) -> Observed:
        """Give what was appended behind a position, of many the newest."""
        asked = {"after": position, "limit": most}

        def read(connection: sqlite3.Connection) -> Observed:
            rows = connection.execute(self._sql["observations_after"], asked).fetchall()
            return Observed(_read(rows), rows[0][0] if rows else position)

        return await self._reader.run(read)


def _read(rows: list[Row]) -> list[Observation]:
    """Read rows, newest first, into their order; what another version wrote in words of its own is passed over."""
    found: list[Observation] = []
    unreadable = 0
    for _, body in reversed(rows):
        try:
            found.append(observation_from(body))
        except InternalError:
            unreadable += 1
    if unreadable:
        _log.info("observations.unreadable", rows=unreadable)
    return found
