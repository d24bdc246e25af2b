"""Runs a `sql` step: a script in one transaction, the rows of its last statement as the result.

Runs in a child process. Values reach the database through the driver's parameters only. Dates become ISO text,
decimals text (they are exact), bytes base64.
"""

import base64
import os
import sqlite3
import sys
from collections.abc import Iterator, Sequence
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

from flexcore_local.far import runner

MAX_ROWS = 100_000
_OWN_TRANSACTION = ("begin", "commit", "rollback", "savepoint", "release", "pragma", "vacuum", "attach", "detach")
_OUTSIDE = ("SQLITE_CANTOPEN", "SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_IOERR", "SQLITE_FULL", "SQLITE_NOTADB")
_OUTSIDE_STATES = ("08", "53", "57", "40", "55", "28", "3D")  # connection, resources, operator, rollback, lock, login


class Refused(Exception):
    """The step asks for something that cannot be; `error_class` says whose fault it is."""

    def __init__(self, message: str, error_class: str = "input") -> None:
        super().__init__(message)
        self.error_class = error_class


def main() -> int:
    """Run the script and say the exit code."""
    failure = os.environ.pop(runner.FAILURE)
    sys.path.pop(0)  # ours; a driver comes from the interpreter's own packages, which may be those of the step
    order = runner.read_order()
    scheme = order["connection"].partition(":")[0]
    try:
        if scheme == "sqlite":
            result = run_sqlite(order)
        elif scheme in ("postgresql", "postgres"):
            result = run_postgres(order)
        else:
            raise Refused(f"no driver for {scheme!r} connections; present: sqlite, postgresql")
    except Refused as error:
        return runner.fail(failure, str(error), name="Refused", error_class=error.error_class)
    except sqlite3.Error as error:
        name = getattr(error, "sqlite_errorname", type(error).__name__)
        error_class = "dependency" if name.startswith(_OUTSIDE) else "user"
        return runner.fail(failure, f"{error} ({name})", name=name, error_class=error_class)
    return runner.succeed(runner.encode(result))


def run_sqlite(order: dict[str, Any]) -> dict[str, Any]:
    """Run on a SQLite file; `sqlite:///name` is relative to the workflow's folder, `sqlite:////name` is not."""
    path = order["connection"].removeprefix("sqlite://").removeprefix("/")
    if order["read_only"]:
        connection = sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=10)
    else:
        connection = sqlite3.connect(path or ":memory:", timeout=10)
    connection.isolation_level = None
    texts = list(statements(order["script"]))
    if isinstance(order["params"], list) and order["params"] and len(texts) != 1:
        raise Refused("positional params need a script of one statement; name them instead")
    try:
        return _run_all(connection, texts, order["params"] or ())
    finally:
        connection.close()


def statements(script: str) -> Iterator[str]:
    """Split a script at the semicolons that end a statement, not at those within text or a trigger."""
    begin = 0
    for position, character in enumerate(script):
        if character == ";" and sqlite3.complete_statement(script[begin : position + 1]):
            yield script[begin : position + 1]
            begin = position + 1
    rest = script[begin:]
    if any(line.strip() and not line.strip().startswith("--") for line in rest.splitlines()):
        yield rest


def run_postgres(order: dict[str, Any]) -> dict[str, Any]:
    """Run on Postgres, if psycopg is installed."""
    try:
        import psycopg  # optional, and slow to import
    except ImportError as error:
        raise Refused("postgresql connections need the extra `postgres` (psycopg)") from error
    try:
        # The client-side cursor takes parameters for a script of several statements.
        with psycopg.connect(order["connection"], cursor_factory=psycopg.ClientCursor) as connection:
            connection.read_only = order["read_only"]
            cursor = connection.execute(order["script"], order["params"] or None)
            while cursor.nextset():
                pass
            return _result(cursor, cursor.rowcount)
    except psycopg.Error as error:
        outside = error.sqlstate is None or error.sqlstate.startswith(_OUTSIDE_STATES)
        raise Refused(str(error).strip(), "dependency" if outside else "user") from error


def _run_all(connection: sqlite3.Connection, texts: Sequence[str], params: Any) -> dict[str, Any]:
    result: dict[str, Any] = {"rows": [], "row_count": 0}
    together = not any(_first_word(text) in _OWN_TRANSACTION for text in texts)
    if together:
        connection.execute("BEGIN")
    for text in texts:
        cursor = connection.execute(text, params)
        result = _result(cursor, cursor.rowcount)
    if connection.in_transaction:
        connection.execute("COMMIT")
    return result


def _first_word(text: str) -> str:
    lines = (line.strip() for line in text.splitlines())
    words = " ".join(line for line in lines if not line.startswith("--")).split()
    return words[0].lower().rstrip(";") if words else ""


def _result(cursor: Any, affected: int) -> dict[str, Any]:
    if cursor.description is None:
        return {"rows": [], "row_count": max(0, affected)}
    names = [column[0] for column in cursor.description]
    rows = [dict(zip(names, map(plain, row), strict=True)) for row in cursor.fetchmany(MAX_ROWS + 1)]
    if len(rows) > MAX_ROWS:
        raise Refused(f"more than {MAX_ROWS} rows; write them to a table or a file instead", "user")
    return {"rows": rows, "row_count": len(rows)}


def plain(value: Any) -> Any:
    """Turn a column's value into JSON."""
    match value:
        case bytes() | memoryview():
            return base64.b64encode(bytes(value)).decode()
        case date() | time():
            return value.isoformat()
        case timedelta():
            return value.total_seconds()
        case Decimal() | UUID():
            return str(value)
        case list():
            return [plain(each) for each in value]
        case _:
            return value
