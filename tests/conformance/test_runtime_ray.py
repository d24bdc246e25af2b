"""Ray passes the conformance kit, directly and served: a real cluster in a network of its own, which ends with it."""

from collections.abc import Iterator, Mapping
from contextlib import AsyncExitStack
from typing import Any

import pytest
from examining import asked, examine_asked

from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_harness import Harness
from flexcore.testing.runtime_processes import Subject
from flexcore.testing.runtime_ray import RayHarness, end_cluster, no_box
from flexcore.testing.runtime_remote import through_the_wire
from flexcore.testing.runtime_suite import CHECKS, Check, Finding, Verdict, find

AT_ONCE = 4  # a job waits for processes to start for most of its time
PATIENCE = Patience(for_work=90)  # others may want the cores too
CONFIG: dict[str, Any] = {"cluster": "local", "boxed": True, "cpus": 8, "idle_timeout": 120}

# A job takes a second of a core, and these are many jobs, or kept by what is shared with `local`.
DEAR = {
    "large_parameters_arrive",
    "closing_detaches",
    "handle_is_named_after_the_attempt",
    "health_answers_beside_work",
    "json_types_are_kept",
    "large_result_arrives",
    "many_at_once_do_not_mix",
    "slots_are_kept",
    "next_attempt_is_new_work",
    "deadline_ends_work_that_ignores_it",
    "torn_lines_arrive",
    "logs_go_on_after_adoption",
    "logs_are_there_after_the_end",
    "cancelled_reading_detaches",
    "adopted_by_handle",
    "crash_after_submitted_starts_once",
    "two_installations_do_not_collide",
    "failure_is_the_same_after_the_end",
    "cleanup_after_the_end",
    "cleanup_is_idempotent",
    "execution_scope_ends_all_of_it",
    "foreign_installation_is_left_alone",
    "survey_finds_what_a_dead_server_left",
    "finished_comes_once_and_last",
    "samples_are_sane",
    "secrets_stay_inside",
    "vanished_work_is_lost",
}


# A third of the kit again, through the wire: what the wire carries, and what depends on who is at its other end.
SERVED = {
    "success_gives_the_result",
    "null_is_a_result",
    "failing_work_is_a_user_failure",
    "invalid_parameters_start_nothing",
    "invalid_parameters_are_named",
    "foreign_kind_is_refused",
    "environment_arrives",
    "files_of_the_workflow_are_there",
    "deadline_ends_work",
    "log_offsets_have_no_gap",
    "logs_are_bytes",
    "logs_are_live",
    "adoption_repeats_no_log_byte",
    "adopted_by_name",
    "stranger_is_not_adopted",
    "crash_before_submitted_starts_once",
    "cleanup_asks_before_it_kills",
    "cleanup_of_the_unknown_is_gone",
    "cleanup_by_name_alone",
    "survey_lists_what_runs_here",
    "submitted_comes_once_and_first",
    "phases_are_in_order",
    "capabilities_are_sane",
    "unsupported_features_have_reasons",
    "secrets_are_not_shown",
}


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Finding]]:
    """Examine Ray some checks at a time, on one cluster."""
    if reason := no_box():
        pytest.skip(f"no network namespace can be made: {reason}")
    shared = tmp_path_factory.mktemp("ray")

    async def examine(check: Check, test: str) -> Finding:
        async with AsyncExitStack() as around:
            harness: Harness = RayHarness(Subject.of("ray", tmp_path_factory.mktemp(check.name), shared, **CONFIG))
            if test == test_ray_through_the_wire.__name__:
                harness = await around.enter_async_context(through_the_wire(harness, tmp_path_factory.mktemp("wire")))
            return await find(check, harness, PATIENCE)

    try:
        yield examine_asked(request, examine, at_once=AT_ONCE)
    finally:
        end_cluster(shared)


@pytest.mark.timeout(600)  # the first one waits for all
@pytest.mark.parametrize("check", [asked(each, dear=each.name in DEAR) for each in CHECKS])
def test_ray(check: Check, finding: Finding) -> None:
    assert finding.check is check
    assert finding.verdict in (Verdict.PASSED, Verdict.REFUSED), finding.seen


@pytest.mark.timeout(600)
@pytest.mark.parametrize("check", [asked(each, dear=each.name not in SERVED) for each in CHECKS])
def test_ray_through_the_wire(check: Check, finding: Finding) -> None:
    assert finding.check is check
    assert finding.verdict in (Verdict.PASSED, Verdict.REFUSED), finding.seen


def test_the_third_is_one_of_checks_that_there_are() -> None:
    names = {each.name for each in CHECKS}

    assert not (SERVED | DEAR) - names
    assert 3 * len(SERVED) >= len(names)
