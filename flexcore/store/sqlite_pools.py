"""The queue of a limited pool on SQLite: the journal lets in by it, the reader shows it, so both must see the same."""

import sqlite3
from collections.abc import Callable, Iterator
from functools import cache

from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.pools import Party
from flexcore.store.queries import Queries
from flexcore.store.write import ServerId


def queue_of(
    connection: sqlite3.Connection, sql: Queries, pool: str, is_alive: Callable[[ServerId], bool]
) -> Iterator[Party]:
    """Give who waits and can be let in, in order: what belongs to dead owners is passed over, and has no number."""
    alive = cache(is_alive)
    for id, path, owner in connection.execute(sql["queue_of_pool"], {"pool": pool}):
        if alive(ServerId(owner)):
            yield Party(ExecutionId(id), StepPath(path))
