"""What can be found wrong in a store by SQL alone. Whether state equals the fold of history is not asked here."""

import sqlite3
from collections.abc import Iterator, Sequence

from flexcore.store.queries import Queries
from flexcore.store.read import Fault


def faults(connection: sqlite3.Connection, sql: Queries) -> Sequence[Fault]:
    """Give everything that is wrong; a damaged file is reported alone, because nothing else can be trusted then."""
    try:
        pages = [message for (message,) in connection.execute(sql["page_faults"]) if message != "ok"]
    except sqlite3.DatabaseError as error:
        pages = [str(error)]
    if pages:
        return [Fault("", f"the database file is damaged: {message}") for message in pages]
    return [*_references(connection, sql), *_histories(connection, sql)]


def _references(connection: sqlite3.Connection, sql: Queries) -> Iterator[Fault]:
    for table, _, parent, _ in connection.execute(sql["foreign_key_faults"]).fetchall():
        yield Fault("", f"a row of {table} refers to something that is missing in {parent}")


def _histories(connection: sqlite3.Connection, sql: Queries) -> Iterator[Fault]:
    for id, seq, count, first, last in connection.execute(sql["broken_histories"]).fetchall():
        yield Fault(id, f"the history has {count} entries from {first} to {last}; it should have {seq} from 1 to {seq}")
    for (id,) in connection.execute(sql["orphaned_histories"]).fetchall():
        yield Fault(id, "there is a history without an execution")
