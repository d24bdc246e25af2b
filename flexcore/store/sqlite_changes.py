"""Writes groups of change sets into SQLite: one transaction for all, each with its own precondition.

First everything at once, table by table, which is what nearly always works. When a count comes out short, somebody's
precondition does not hold: the group is rolled back and written again one by one, each in a savepoint, so that only
the bad one is refused. Runs in the writer's thread; knows no future and no loop.
"""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from flexcore.model.errors import (
    AlreadyExists,
    Ambiguous,
    Fenced,
    FlexCoreError,
    IllegalTransition,
    InternalError,
    PoolFull,
    StoreUnavailable,
)
from flexcore.store.database import abandon, foreign
from flexcore.store.queries import Queries
from flexcore.store.rows import Row, Rows, microseconds
from flexcore.store.write import Owner

Outcome: TypeAlias = FlexCoreError | None


class _Mismatch(Exception):
    """A statement changed fewer rows than it was given: a precondition does not hold."""


class ChangeWriter:
    """The statements of the write path on one connection."""

    def __init__(self, sql: Queries) -> None:
        self._sql = sql

    def commit(self, connection: sqlite3.Connection, owner: Owner, group: Sequence[Rows]) -> Sequence[Outcome]:
        """Write a group durably and give each member's outcome. Raises only what concerns the whole group."""
        try:
            connection.execute("BEGIN IMMEDIATE")
            check_epoch(connection, self._sql, owner)
            outcomes = self._write(connection, owner, group)
        except sqlite3.Error as error:
            abandon(connection)
            raise foreign(error) from error
        except FlexCoreError:
            abandon(connection)
            raise
        self._end(connection, [rows for rows, outcome in zip(group, outcomes, strict=True) if outcome is None])
        return outcomes

    def _write(self, connection: sqlite3.Connection, owner: Owner, group: Sequence[Rows]) -> Sequence[Outcome]:
        try:
            for wave in _waves(group):
                self._write_tables(connection, wave)
        except (_Mismatch, sqlite3.IntegrityError):
            connection.execute("ROLLBACK")
            connection.execute("BEGIN IMMEDIATE")
            check_epoch(connection, self._sql, owner)
            return [self._write_alone(connection, rows) for rows in group]
        return [None] * len(group)

    def _write_alone(self, connection: sqlite3.Connection, rows: Rows) -> Outcome:
        connection.execute("SAVEPOINT alone")
        try:
            self._write_tables(connection, (rows,))
            refusal: Outcome = None
        except _Mismatch as mismatch:
            connection.execute("ROLLBACK TO alone")
            refusal = self._refusal(connection, rows, str(mismatch))
        except sqlite3.IntegrityError as error:
            connection.execute("ROLLBACK TO alone")
            refusal = InternalError(f"the change set for {rows.source.execution} breaks the store's rules: {error}")
        connection.execute("RELEASE alone")
        return refusal

    def _write_tables(self, connection: sqlite3.Connection, wave: Sequence[Rows]) -> None:
        sql = self._sql
        self._many(connection, sql["insert_execution"], [row for each in wave for row in each.started])
        self._many(connection, sql["advance_execution"], [row for each in wave for row in each.advanced])
        self._many(connection, sql["insert_input"], [row for each in wave for row in each.inputs])
        self._many(connection, sql["take_start_key"], [row for each in wave for row in each.start_keys])
        self._many(connection, sql["append_history"], [row for each in wave for row in each.history])
        self._many(connection, sql["put_step"], [row for each in wave for row in each.steps])
        self._many(connection, sql["put_scope"], [row for each in wave for row in each.scopes])
        self._many(connection, sql["consume_command"], [row for each in wave for row in each.consumed])
        self._many(connection, sql["put_cache"], [row for each in wave for row in each.cache])
        self._many(connection, sql["insert_observation"], [row for each in wave for row in each.observed])
        if claiming := [each for each in wave if each.source.claims]:
            self._write_claims(connection, claiming)

    def _write_claims(self, connection: sqlite3.Connection, wave: Sequence[Rows]) -> None:
        """First what becomes free, for all of the wave: it may be what another of them takes."""
        if freed := [row for each in wave for row in each.freed]:
            # Not counted: what is gone already is as free as can be.
            connection.executemany(self._sql["free_place"], freed)
        self._many(connection, self._sql["queue_for_place"], [row for each in wave for row in each.queued])
        self._many(connection, self._sql["take_place"], [row for each in wave for row in each.claimed])

    def _many(self, connection: sqlite3.Connection, sql: str, rows: Sequence[Row]) -> None:
        if rows and connection.executemany(sql, rows).rowcount != len(rows):
            raise _Mismatch(sql)

    def _refusal(self, connection: sqlite3.Connection, rows: Rows, statement: str) -> FlexCoreError:
        """Say which precondition did not hold, by looking at what the statement stumbled over."""
        changes = rows.source
        key = changes.start_key
        if key is not None and statement == self._sql["take_start_key"]:
            asked = {"workspace": key.workspace, "workflow": key.workflow, "key": key.key}
            now = microseconds(changes.header.created_at or changes.entries[0].at)
            holder = connection.execute(self._sql["start_key_holder"], {**asked, "now": now}).fetchone()
            return AlreadyExists(f"the idempotency key {key.key!r} already stands for {holder[0] if holder else '?'}")
        if statement == self._sql["put_step"]:
            return self._step_refusal(connection, rows)
        if statement == self._sql["consume_command"]:
            return IllegalTransition(f"a command for {changes.execution} was answered before: {changes.consumed}")
        if statement == self._sql["take_place"]:
            wanted = tuple(pool for pool, *_ in rows.claimed)
            return PoolFull(f"no place is free for {changes.execution} in {', '.join(wanted)}", pools=wanted)
        guard = connection.execute(self._sql["execution_guard"], {"execution": changes.execution}).fetchone()
        return _execution_refusal(rows, guard)

    def _step_refusal(self, connection: sqlite3.Connection, rows: Rows) -> FlexCoreError:
        for step in rows.source.steps:
            asked = {"execution": rows.source.execution, "path": step.path}
            status, token = connection.execute(self._sql["step_guard"], asked).fetchone() or ("waiting", 0)
            if token > step.token:
                return Fenced(f"step {step.path} is at token {token}; {step.token} is late and changes nothing")
            if status in ("succeeded", "failed", "skipped", "cancelled"):
                return IllegalTransition(f"step {step.path} has ended ({status}) and never changes")
        return InternalError(f"the steps of the change set for {rows.source.execution} name one path twice")

    def _end(self, connection: sqlite3.Connection, written: Sequence[Rows]) -> None:
        """Commit. When the answer is an error, the last entries tell whether it happened nevertheless."""
        try:
            connection.execute("COMMIT")
        except sqlite3.Error as error:
            try:
                abandon(connection)
                happened = all(self._happened(connection, rows) for rows in written)
            except sqlite3.Error as second:
                raise Ambiguous(
                    f"it is not known whether the store has written: {error}; looking failed too: {second}",
                    hint="read the execution's history when the store answers again",
                ) from error
            if not happened:
                raise foreign(error) from error

    def _happened(self, connection: sqlite3.Connection, rows: Rows) -> bool:
        if not rows.history:
            raise sqlite3.OperationalError("a change set without entries leaves no trace to look for")
        execution, seq, _, _, body = rows.history[-1]
        asked = {"execution": execution, "seq": seq, "body": body, "owner": rows.owner}
        return connection.execute(self._sql["has_entry"], asked).fetchone() is not None


def check_epoch(connection: sqlite3.Connection, sql: Queries, owner: Owner) -> None:
    """The first thing in every transaction of an owner. Raises Fenced when its row has moved on."""
    if connection.execute(sql["holds_epoch"], (owner.server, owner.epoch)).fetchone() is None:
        raise Fenced(
            f"{owner.server} is no longer an owner at epoch {owner.epoch}; nothing was written",
            hint="another process took its executions over",
        )


def refused_alike(error: FlexCoreError, count: int) -> Sequence[Outcome]:
    """Give every member of a group the same refusal, each an exception of its own: they are raised in many tasks."""
    return [_again(error) for _ in range(count)]


def _again(error: FlexCoreError) -> FlexCoreError:
    match error:
        case Fenced() | StoreUnavailable() | Ambiguous() | InternalError():
            copy: FlexCoreError = type(error)(error.message, hint=error.hint)
        case _:
            copy = InternalError(error.message, hint=error.hint)
    copy.__cause__ = error.__cause__
    return copy


def _waves(group: Sequence[Rows]) -> Iterator[Sequence[Rows]]:
    """Split where an execution appears again: within a wave, the order of rows does not matter."""
    wave: list[Rows] = []
    seen: set[str] = set()
    for rows in group:
        if rows.source.execution in seen:
            yield wave
            wave, seen = [], set()
        wave.append(rows)
        seen.add(rows.source.execution)
    yield wave


def _execution_refusal(rows: Rows, guard: Row | None) -> FlexCoreError:
    changes = rows.source
    if guard is None:
        return IllegalTransition(f"there is no execution {changes.execution} whose history could go on")
    seq, owner, status = guard
    if changes.after and owner != rows.owner:
        return Fenced(f"{changes.execution} belongs to {owner}, not to {rows.owner}; nothing was written")
    if status in ("succeeded", "failed", "cancelled"):
        return IllegalTransition(f"{changes.execution} has ended ({status}) and never changes")
    return IllegalTransition(f"{changes.execution} has {seq} history entries, not {changes.after}")
