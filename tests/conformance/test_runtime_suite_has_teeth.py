"""The kit is worth something only if a broken runtime fails it, and at the check that says what is broken."""

import asyncio
from pathlib import Path

import broken_runtimes as broken
import pytest
from runtime_harnesses import CONFIG, ScriptedHarness

from flexcore.runtime.interface import Runtime
from flexcore.testing.fakes import ScriptedRuntime, World
from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_suite import CHECKS, Verdict, failing_checks, findings

BROKEN = {
    broken.Empty: "null_is_a_result",
    broken.Loose: "json_types_are_kept",
    broken.Cutting: "huge_result_arrives_or_is_refused",
    broken.Imprecise: "failing_work_is_a_user_failure",
    broken.Deaf: "death_by_signal_names_the_signal",
    broken.Submissive: "invalid_parameters_start_nothing",
    broken.Obscure: "invalid_parameters_are_named",
    broken.Bare: "environment_arrives",
    broken.Sharing: "our_environment_stays_here",
    broken.Conservative: "next_attempt_is_new_work",
    broken.Timeless: "deadline_ends_work_that_ignores_it",
    broken.Generous: "memory_limit_is_kept",
    broken.Decoding: "logs_are_bytes",
    broken.ByLine: "torn_lines_arrive",
    broken.Mixing: "streams_are_kept_apart",
    broken.Buffering: "logs_are_live",
    broken.Forgetful: "hundred_megabytes_of_log",
    broken.Repeating: "adoption_repeats_no_log_byte",
    broken.Dutiful: "cancelled_reading_detaches",
    broken.Doubling: "two_executes_run_once",
    broken.Hospitable: "stranger_is_not_adopted",
    broken.Optimistic: "vanished_work_is_lost",
    broken.Faithful: "work_that_vanishes_while_read_is_lost",
    broken.Blurred: "failure_is_the_same_after_the_end",
    broken.Merciless: "cleanup_asks_before_it_kills",
    broken.Patient: "cleanup_kills_after_the_grace",
    broken.Orderly: "harsher_cleanup_overtakes",
    broken.Careless: "cleanup_of_the_unknown_is_gone",
    broken.Hoarding: "cleanup_after_the_end",
    broken.Undead: "cleaned_up_work_is_not_started_again",
    broken.Shallow: "cleanup_ends_the_whole_tree",
    broken.Untidy: "children_end_with_the_work",
    broken.Partial: "execution_scope_ends_all_of_it",
    broken.Trespassing: "foreign_installation_is_left_alone",
    broken.Nosy: "survey_lists_what_runs_here",
    broken.Renaming: "handle_is_named_after_the_attempt",
    broken.Stuttering: "finished_comes_once_and_last",
    broken.Inventive: "usage_is_told",
    broken.Local: "phases_are_in_order",
    broken.Dividing: "samples_are_sane",
    broken.Mute: "health_answers_in_time",
    broken.Busy: "health_answers_beside_work",
    broken.Hanging: "health_is_true_when_unreachable",
    broken.Rosy: "health_is_true_when_unreachable",
    broken.Terse: "unreachable_runtime_says_what_to_do",
    broken.Vague: "unsupported_features_have_reasons",
    broken.Fickle: "capabilities_stay_the_same",
    broken.Talkative: "secrets_stay_inside",
    broken.Quoting: "failures_hide_secrets",
    broken.Visible: "secrets_are_not_shown",
    broken.Archiving: "secrets_are_not_kept",
}
THEMES = {check.name: check.theme for check in CHECKS}
SPOILING_RESULTS_OR_LOGS = [each for each, named in BROKEN.items() if THEMES[named] in ("results", "logs")]
PATIENCE = Patience(for_work=3, for_answers=3)
LARGE = ("hundred_megabytes_of_log", "huge_result_arrives_or_is_refused", "large_result_arrives")

Failing = dict[type[ScriptedRuntime], dict[str, str]]


class Examined(ScriptedHarness):
    """A harness for one of the broken runtimes."""

    def __init__(self, runtime: type[ScriptedRuntime], folder: Path) -> None:
        super().__init__(folder)
        self._runtime = runtime

    def instance(self, world: World, installation: str) -> Runtime:
        return self._runtime(world, installation, CONFIG)


@pytest.fixture(scope="module")
def failing(tmp_path_factory: pytest.TempPathFactory) -> Failing:
    """Examine all broken runtimes side by side: most of the time, they wait."""
    folder = tmp_path_factory.mktemp("workflow")
    small = [check for check in CHECKS if check.name not in LARGE]
    large = [check for check in CHECKS if check.name in LARGE]
    places = asyncio.Semaphore(8)

    async def examined(runtime: type[ScriptedRuntime]) -> tuple[type[ScriptedRuntime], dict[str, str]]:
        async with places:
            found = await failing_checks(lambda: Examined(runtime, folder), small, patience=PATIENCE, at_once=True)
        return runtime, found

    async def all_examined() -> Failing:
        found = dict(await asyncio.gather(*map(examined, BROKEN)))
        for runtime, named in BROKEN.items():  # so much at once may starve a sound check of the little time it has
            beside = [check for check in small if check.name in found[runtime].keys() - {named}]
            again = await failing_checks(lambda each=runtime: Examined(each, folder), beside)
            found[runtime] = {name: seen for name, seen in found[runtime].items() if name == named} | again
        for runtime in SPOILING_RESULTS_OR_LOGS:  # one after the other: these take memory, and the loop's time
            found[runtime] |= await failing_checks(lambda each=runtime: Examined(each, folder), large)
        return found

    return asyncio.run(all_examined())


@pytest.mark.parametrize(("runtime", "named"), BROKEN.items(), ids=lambda each: getattr(each, "__name__", each))
def test_a_broken_runtime_fails_at_the_check_that_names_it(
    runtime: type[ScriptedRuntime], named: str, failing: Failing
) -> None:
    assert failing[runtime].keys() == {named}, failing[runtime]


async def test_a_fault_that_spoils_much_is_named_too(tmp_path: Path) -> None:
    failing = await failing_checks(lambda: Examined(broken.Attached, tmp_path), patience=PATIENCE, at_once=True)

    assert "closing_detaches" in failing


async def test_a_runtime_that_can_do_little_and_says_so_passes(tmp_path: Path) -> None:
    found = [each async for each in findings(lambda: Examined(broken.Modest, tmp_path))]

    assert {each.check.name: each.seen for each in found if each.verdict is Verdict.FAILED} == {}
    refused = {feature for each in found if each.verdict is Verdict.REFUSED for feature in each.reasons}
    assert refused == {"adoption", "cancel_grace", "logs", "resource_limits", "survey", "usage"}


async def test_an_exempt_check_is_told_and_not_run(tmp_path: Path) -> None:
    harness = ScriptedHarness(tmp_path)
    harness.exempt = {"null_is_a_result": "it has no null"}

    found = [each async for each in findings(lambda: harness, [each for each in CHECKS if "null" in each.name])]

    assert [(each.verdict, each.reasons) for each in found] == [(Verdict.EXEMPT, {"python": "it has no null"})]


def test_every_check_has_a_name_of_its_own_and_says_why() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.why for check in CHECKS)
