"""Every store passes the half of the suite that is for those who look after it; wrong ones fail where they should."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from conformance.wrong_stores import failing

from flexcore.store.queries import load
from flexcore.store.sqlite import Parts
from flexcore.testing import store_suite_operations
from flexcore.testing.store_suite import Check, Place, SqlitePlace
from flexcore.testing.store_suite_operations import CHECKS, removing_lets_others_write

AFFORDABLE = [check for check in CHECKS if check is not removing_lets_others_write]

# What is wrong: a statement, a part of it, what stands there instead; and the checks that must notice.
WRONG: Mapping[str, tuple[str, str, str, set[str]]] = {
    "forgets what executions refer to": (
        "history_references", "AND instr(body, 'sha256-') > 0", "AND FALSE", {"content_that_is_referred_to_stays"},
    ),
    "forgets what is cached": (
        "cache_references", "instr(result, 'sha256-') > 0", "FALSE", {"content_that_is_referred_to_stays"},
    ),
    "forgets the files of versions": (
        "definition_bodies", "definitions.rowid > :after", "FALSE AND :after",
        {"content_that_is_referred_to_stays", "versions_that_nobody_uses_can_go"},
    ),
    "forgets what is in flight": (
        "oldest_attempt_in_flight", "'$.in_flight')", "'$.in_flight') AND FALSE",
        {"content_since_an_attempt_in_flight_went_out_stays"},
    ),
    "removes children of what is there": (
        "ended_executions", "parent.id = json_extract(executions.body, '$.parent')", "FALSE",
        {"a_sub_execution_goes_with_its_parent"},
    ),
    "keeps no last ones": (
        "ended_executions", ") >= :keep", ") >= 0 * :keep", {"the_newest_of_a_workflow_can_be_kept"},
    ),
    "removes pinned versions": (
        "definition_bodies", "IN (workflows.version, workflows.pinned)", "IN (workflows.version)",
        {"versions_that_nobody_uses_can_go"},
    ),
    "forgets pins when deploying": (
        "put_head", "SET version = excluded.version", "SET version = excluded.version, pinned = NULL",
        {"a_pinned_version_is_what_a_name_means"},
    ),
    "removes commands that still wait": (
        "collect_commands", "commands.consumed IS NOT NULL OR", "TRUE OR", {"expired_keys_and_answered_commands_go"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_sqlite(check: Check, tmp_path: Path) -> None:
    await check(SqlitePlace(tmp_path / "store"))


@pytest.mark.parametrize("fault", WRONG)
async def test_a_wrong_store_fails_at_exactly_the_named_check(fault: str, tmp_path: Path) -> None:
    query, right, wrong, named = WRONG[fault]
    sql = dict(load("sqlite"))
    assert right in sql[query]
    sql[query] = sql[query].replace(right, wrong)

    assert await failing(AFFORDABLE, tmp_path, lambda: Parts(sql=sql)) == named


def test_every_check_of_the_suite_is_listed() -> None:
    named = {
        name
        for name, value in vars(store_suite_operations).items()
        if callable(value) and getattr(value, "__annotations__", {}) == {"place": Place, "return": None}
    }

    assert named == {check.__name__ for check in CHECKS}
