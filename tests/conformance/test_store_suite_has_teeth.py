"""Stores that are wrong on purpose fail at exactly the check that names their fault, and at no other."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from conformance.wrong_stores import failing

from flexcore.store.database import SqliteOptions
from flexcore.store.queries import Queries, load
from flexcore.store.rows import Rows
from flexcore.store.sqlite import Parts
from flexcore.store.sqlite_changes import ChangeWriter, Outcome
from flexcore.store.write import Owner
from flexcore.testing import store_suite
from flexcore.testing.store_suite import CHECKS

WITH_CHILDREN = frozenset(  # their children run a right store: they would only cost time here
    {
        "killed_processes_lose_nothing_acknowledged",
        "a_killed_owner_is_found_and_taken_over",
        "one_execution_can_be_taken_alone",
        "two_takers_never_get_the_same",
    }
)


class RefusesTheWholeGroup(ChangeWriter):
    """One bad change set takes its neighbours down."""

    def commit(self, connection: sqlite3.Connection, owner: Owner, group: Sequence[Rows]) -> Sequence[Outcome]:
        outcomes = super().commit(connection, owner, group)
        bad = next((outcome for outcome in outcomes if outcome is not None), None)
        return [bad] * len(group)


class AcknowledgesBeforeCommit(ChangeWriter):
    """Says yes to what opens a scope, and writes it with the next group."""

    def __init__(self, sql: Queries) -> None:
        super().__init__(sql)
        self._late: list[tuple[Owner, Sequence[Rows]]] = []

    def commit(self, connection: sqlite3.Connection, owner: Owner, group: Sequence[Rows]) -> Sequence[Outcome]:
        late, self._late = self._late, []
        for each in late:
            super().commit(connection, *each)
        if all(rows.scopes for rows in group):
            self._late.append((owner, group))
            return [None] * len(group)
        return super().commit(connection, owner, group)


class ForgetsWhatConsumedCommands(ChangeWriter):
    """Does not look at how many commands were really consumed."""

    def _many(self, connection: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        if sql == self._sql["consume_command"]:
            connection.executemany(sql, rows)
        else:
            super()._many(connection, sql, rows)


class IgnoresRowCounts(ChangeWriter):
    """Takes the transitions of a group for done without counting them."""

    def _many(self, connection: sqlite3.Connection, sql: str, rows: Sequence[tuple[object, ...]]) -> None:
        if sql == self._sql["advance_execution"] and len(rows) > 1:
            connection.executemany(sql, rows)
        else:
            super()._many(connection, sql, rows)


def _without(query: str, guard: str, instead: str = "") -> Mapping[str, str]:
    sql = dict(load("sqlite"))
    assert guard in sql[query]
    sql[query] = sql[query].replace(guard, instead)
    return sql


WRONG: Mapping[str, tuple[Callable[[], Parts], set[str]]] = {
    "drops the token check": (
        lambda: Parts(sql=_without("put_step", "AND steps.token <= excluded.token")),
        {"an_old_token_is_refused"},
    ),
    "overwrites ended steps": (
        lambda: Parts(sql=_without("put_step", "steps.finished_at IS NULL AND")),
        {"an_ended_step_never_changes"},
    ),
    "does not check the epoch": (
        lambda: Parts(sql=_without("holds_epoch", "WHERE id = ?1 AND epoch = ?2", "WHERE ?1 <> '' OR ?2 > 0")),
        {"a_zombie_is_fenced"},
    ),
    "writes others' executions": (
        lambda: Parts(sql=_without("advance_execution", "AND owner = ?3", "AND ?3 <> ''")),
        {"another_owners_execution_is_not_written"},
    ),
    "goes on after the end": (
        lambda: Parts(sql=_without("advance_execution", "AND finished_at IS NULL")),
        {"an_ended_execution_never_changes"},
    ),
    "starts twice under one key": (
        lambda: Parts(sql=_without("take_start_key", "WHERE start_keys.expires_at <= ?7", "WHERE ?7 > 0")),
        {"one_start_per_idempotency_key"},
    ),
    "consumes a command twice": (
        lambda: Parts(changes=ForgetsWhatConsumedCommands),
        {"a_command_is_consumed_with_its_answer"},
    ),
    "gives out more places than there are": (
        lambda: Parts(sql=_without("take_place", "< ?4", "< ?4 + 1")),
        {"a_pool_never_has_more_holders_than_places"},
    ),
    "counts who waits as a holder": (
        lambda: Parts(sql=_without("take_place", "AND queued IS NULL) <", ") <")),
        {"who_waits_longest_is_first_in_a_pool"},
    ),
    "forgets the order of a queue": (
        lambda: Parts(sql=_without("queue_of_pool", "claims.queued, claims.execution", "claims.execution")),
        {"who_waits_longest_is_first_in_a_pool"},
    ),
    "keeps places that were given back": (
        lambda: Parts(sql=_without("free_place", "AND path = ?3", "AND path = ?3 || '?'")),
        {"a_place_that_is_given_back_can_be_taken_in_the_same_group"},
    ),
    "refuses the whole group": (
        lambda: Parts(changes=RefusesTheWholeGroup),
        {"a_wrong_precondition_is_refused_alone", "one_start_per_idempotency_key"},
    ),
    "acknowledges before commit": (
        lambda: Parts(changes=AcknowledgesBeforeCommit),
        {"acknowledged_means_visible_to_others"},
    ),
    "runs with synchronous=NORMAL": (
        lambda: Parts(options=SqliteOptions(synchronous="NORMAL")),
        {"full_durability_is_verified"},
    ),
    "does not look at row counts": (
        lambda: Parts(changes=IgnoresRowCounts),
        {"a_wrong_precondition_is_refused_alone"},
    ),
}


@pytest.mark.parametrize("fault", WRONG)
async def test_a_wrong_store_fails_at_exactly_the_named_check(fault: str, tmp_path: Path) -> None:
    parts, named = WRONG[fault]
    checks = [check for check in CHECKS if check.__name__ not in WITH_CHILDREN]

    assert await failing(checks, tmp_path, parts) == named


def test_every_check_of_the_suite_is_listed() -> None:
    named = {
        name
        for name, value in vars(store_suite).items()
        if callable(value) and getattr(value, "__annotations__", {}) == {"place": store_suite.Place, "return": None}
    }

    assert named == {check.__name__ for check in CHECKS}
