"""Every runtime passes the conformance kit."""

from collections.abc import Mapping
from pathlib import Path

import pytest
from examining import asked, examine_asked
from runtime_harnesses import ScriptedHarness, SupervisedHarness

from flexcore.runtime.registry import installed_plugins
from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_harness import Harness
from flexcore.testing.runtime_processes import BashHarness, MeltanoHarness, Subject
from flexcore.testing.runtime_suite import CHECKS, Check, Finding, Verdict, find


def harness(runtime: str, folder: Path) -> Harness:
    """Set a runtime up in an empty world."""
    match runtime:
        case "scripted":
            return ScriptedHarness(folder)
        case "supervised":
            return SupervisedHarness(folder)
        case _:
            return BashHarness.of(installed_plugins()[runtime](), folder, slots=4)


@pytest.mark.parametrize("runtime", ["scripted", "supervised", "local"])
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_runtime(check: Check, runtime: str, tmp_path: Path) -> None:
    await check.examine(harness(runtime, tmp_path))


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Finding]:
    """Examine Meltano two checks at a time: it waits for half of its time.

    All share its project, so that Meltano makes its database once: in the first check, alone.
    """
    shared = tmp_path_factory.mktemp("meltano")

    async def examine(check: Check, test: str) -> Finding:
        harness = MeltanoHarness(Subject.of("meltano", tmp_path_factory.mktemp(check.name), shared))
        return await find(check, harness, Patience(for_work=60))

    return examine_asked(request, examine, at_once=2, first_alone=True)


# A run of Meltano takes a second of a core, and these are many runs, or kept by what is shared with `local`.
DEAR_WITH_MELTANO = {
    "json_types_are_kept",
    "many_at_once_do_not_mix",
    "slots_are_kept",
    "next_attempt_is_new_work",
    "deadline_ends_work_that_ignores_it",
    "torn_lines_arrive",
    "streams_are_kept_apart",
    "logs_go_on_after_adoption",
    "logs_are_there_after_the_end",
    "cancelled_reading_detaches",
    "crash_before_submitted_starts_once",
    "stranger_is_not_adopted",
    "two_installations_do_not_collide",
    "failure_is_the_same_after_the_end",
    "harsher_cleanup_overtakes",
    "cleanup_after_the_end",
    "cleaned_up_work_is_not_started_again",
    "execution_scope_ends_all_of_it",
    "foreign_installation_is_left_alone",
    "survey_finds_what_a_dead_server_left",
    "samples_are_sane",
    "health_answers_beside_work",
}


@pytest.mark.timeout(600)  # the first one waits for all
@pytest.mark.parametrize(
    "check",
    [asked(each, dear=each.name in DEAR_WITH_MELTANO) for each in CHECKS if each.name not in MeltanoHarness.exempt],
)
def test_meltano(check: Check, finding: Finding) -> None:
    assert finding.check is check
    assert finding.verdict in (Verdict.PASSED, Verdict.REFUSED), finding.seen
