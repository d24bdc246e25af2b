"""Every store keeps what is learned by the same suite; wrong ones fail at exactly the check that names their fault."""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from conformance.wrong_stores import failing

from flexcore.store.queries import load
from flexcore.store.rows import Rows
from flexcore.store.sqlite import Parts
from flexcore.store.sqlite_changes import ChangeWriter, Outcome
from flexcore.store.sqlite_schema import migrations
from flexcore.store.write import Owner
from flexcore.testing.store_suite import Check, SqlitePlace
from flexcore.testing.store_suite_learning import CHECKS


class LearnsFromWhatWasRefused(ChangeWriter):
    """Keeps what a change set tells also if nothing else of it is kept."""

    def commit(self, connection: sqlite3.Connection, owner: Owner, group: Sequence[Rows]) -> Sequence[Outcome]:
        outcomes = super().commit(connection, owner, group)
        refused = [rows for rows, outcome in zip(group, outcomes, strict=True) if outcome is not None]
        self._many(connection, self._sql["insert_observation"], [row for each in refused for row in each.observed])
        return outcomes


def _saying(query: str, right: str, wrong: str) -> Parts:
    sql = dict(load("sqlite"))
    assert right in sql[query]
    sql[query] = sql[query].replace(right, wrong)
    return Parts(sql=sql)


def _made_by(right: str, wrong: str) -> Parts:
    made = [replace(each, sql=each.sql.replace(right, wrong)) for each in migrations()]
    assert made != list(migrations())
    return Parts(migrations=made)


WRONG: Mapping[str, tuple[Callable[[], Parts], set[str]]] = {
    "forgets up to where it was read": (
        lambda: _saying("observations_after", "id > :after", "id > 0 * :after"),
        {"observations_come_with_their_transition"},
    ),
    "gives the oldest of many": (
        lambda: _saying(
            "observations_after", "ORDER BY id DESC LIMIT :limit", "AND id <= :after + :limit ORDER BY id DESC"
        ),
        {"of_many_observations_the_newest_are_given_in_their_order"},
    ),
    "learns from what was refused": (
        lambda: Parts(changes=LearnsFromWhatWasRefused),
        {"a_refused_transition_teaches_nothing"},
    ),
    "forgets with the execution": (
        lambda: _made_by(
            "CREATE TRIGGER observations_never_change",
            "CREATE TRIGGER gone AFTER DELETE ON executions BEGIN DELETE FROM observations; END;\n"
            "CREATE TRIGGER observations_never_change",
        ),
        {"observations_outlive_their_execution"},
    ),
    "grows without end": (
        lambda: _made_by("WHEN NEW.id % 1000 = 0", "WHEN NEW.id < 0"),
        {"observations_do_not_grow_without_end"},
    ),
}


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_sqlite(check: Check, tmp_path: Path) -> None:
    await check(SqlitePlace(tmp_path / "store"))


@pytest.mark.parametrize("fault", WRONG)
async def test_a_wrong_store_fails_at_exactly_the_named_check(fault: str, tmp_path: Path) -> None:
    parts, named = WRONG[fault]

    assert await failing(CHECKS, tmp_path, parts) == named
