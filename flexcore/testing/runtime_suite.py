"""The conformance kit for runtimes: checks by name that every adapter has to pass. Needs no test framework.

With pytest, for an own runtime that runs `bash` steps (others write a `Harness` of their own):

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    async def test_runtime(check, tmp_path):
        await check.examine(BashHarness.of(PLUGIN, tmp_path))

A feature that the adapter declares unsupported turns its checks into checks of the refusal; nothing is skipped.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

from flexcore.runtime.interface import Feature
from flexcore.testing import runtime_adoption, runtime_lifetime, runtime_logs, runtime_reports, runtime_results
from flexcore.testing.runtime_examination import Examination, Patience
from flexcore.testing.runtime_harness import CheckFailed, Harness, HarnessFactory

_WHOLE_CHECK = 4  # so many times the patience for work; a check waits for several things in a row


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that every runtime has to do, and why it matters. `theme` is the part of the kit it belongs to."""

    name: str
    theme: str
    why: str
    run: Callable[[Examination], Awaitable[None]]

    def __str__(self) -> str:
        return self.name

    async def examine(self, harness: Harness, patience: Patience | None = None) -> Mapping[Feature, str]:
        """Hold the check against a runtime. Raises CheckFailed, or whatever the runtime raises.

        Gives the features whose refusal was seen, with the declared reasons: empty when all was there to be had.
        """
        patience = patience or Patience()
        runtime = await harness.runtime(harness.installation)
        examination = Examination(harness, runtime, (await runtime.capabilities()).unsupported, patience)
        limit = _WHOLE_CHECK * patience.for_work
        try:
            async with asyncio.timeout(limit) as clock:
                await self.run(examination)
        except TimeoutError as error:
            if clock.expired():
                raise CheckFailed(f"the check did not come to an end within {limit:g} s") from error
            raise
        finally:
            await examination.end_all()
        return examination.refused


class Verdict(StrEnum):
    """What a check came to."""

    PASSED = "passed"
    REFUSED = "refused"  # passed, with a feature missing as declared
    EXEMPT = "exempt"  # cannot be put to this kind of step
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What one check found: `seen` is what went wrong, `reasons` why something is missing or not asked."""

    check: Check
    verdict: Verdict
    seconds: float = 0.0
    seen: str = ""
    reasons: Mapping[str, str] = field(default_factory=dict)


async def find(check: Check, harness: Harness, patience: Patience | None = None) -> Finding:
    """Hold one check against a runtime, and put down what was seen."""
    if check.name in harness.exempt:
        reasons = {str(harness.kind.value): harness.exempt[check.name]}
        return Finding(check=check, verdict=Verdict.EXEMPT, reasons=reasons)
    began = time.monotonic()
    try:
        refused = await check.examine(harness, patience)
    except Exception as error:  # the shell of the examination: whatever goes wrong is the finding
        seen = str(error) if isinstance(error, CheckFailed) else f"{type(error).__name__}: {error}"
        return Finding(check=check, verdict=Verdict.FAILED, seconds=time.monotonic() - began, seen=seen)
    return Finding(
        check=check,
        verdict=Verdict.REFUSED if refused else Verdict.PASSED,
        seconds=time.monotonic() - began,
        reasons={feature.value: why for feature, why in refused.items()},
    )


async def findings(
    harness: HarnessFactory, checks: Sequence[Check] | None = None, patience: Patience | None = None
) -> AsyncGenerator[Finding, None]:
    """Hold checks one after the other against runtimes that the factory makes."""
    for check in CHECKS if checks is None else checks:
        yield await find(check, harness(), patience)


async def failing_checks(
    harness: HarnessFactory,
    checks: Sequence[Check] | None = None,
    *,
    patience: Patience | None = None,
    at_once: bool = False,
) -> dict[str, str]:
    """Give the name of each check that fails with what was seen; `at_once` for worlds that cost nothing."""
    wanted = CHECKS if checks is None else checks
    if at_once:
        found = await asyncio.gather(*(find(check, harness(), patience) for check in wanted))
    else:
        found = [each async for each in findings(harness, wanted, patience)]
    return {each.check.name: each.seen for each in found if each.verdict is Verdict.FAILED}


def _checks(theme: str, *functions: Callable[[Examination], Awaitable[None]]) -> list[Check]:
    return [Check(each.__name__, theme, (each.__doc__ or "").strip(), each) for each in functions]


CHECKS: Sequence[Check] = [
    *_checks(
        "results",
        runtime_results.success_gives_the_result,
        runtime_results.null_is_a_result,
        runtime_results.json_types_are_kept,
        runtime_results.large_result_arrives,
        runtime_results.huge_result_arrives_or_is_refused,
        runtime_results.failing_work_is_a_user_failure,
        runtime_results.death_by_signal_names_the_signal,
        runtime_results.invalid_parameters_start_nothing,
        runtime_results.invalid_parameters_are_named,
        runtime_results.foreign_kind_is_refused,
        runtime_results.large_parameters_arrive,
        runtime_results.environment_arrives,
        runtime_results.files_of_the_workflow_are_there,
        runtime_results.many_at_once_do_not_mix,
        runtime_results.slots_are_kept,
        runtime_results.next_attempt_is_new_work,
        runtime_results.deadline_ends_work,
        runtime_results.deadline_ends_work_that_ignores_it,
        runtime_results.memory_limit_is_kept,
    ),
    *_checks(
        "logs",
        runtime_logs.log_offsets_have_no_gap,
        runtime_logs.logs_are_bytes,
        runtime_logs.torn_lines_arrive,
        runtime_logs.streams_are_kept_apart,
        runtime_logs.logs_are_live,
        runtime_logs.hundred_megabytes_of_log,
        runtime_logs.adoption_repeats_no_log_byte,
        runtime_logs.logs_go_on_after_adoption,
        runtime_logs.logs_are_there_after_the_end,
    ),
    *_checks(
        "adoption",
        runtime_adoption.closing_detaches,
        runtime_adoption.cancelled_reading_detaches,
        runtime_adoption.adopted_by_handle,
        runtime_adoption.adopted_by_name,
        runtime_adoption.crash_before_submitted_starts_once,
        runtime_adoption.crash_after_submitted_starts_once,
        runtime_adoption.stranger_is_not_adopted,
        runtime_adoption.two_executes_run_once,
        runtime_adoption.two_installations_do_not_collide,
        runtime_adoption.execute_after_the_end_gives_the_same_result,
        runtime_adoption.failure_is_the_same_after_the_end,
        runtime_adoption.vanished_work_is_lost,
        runtime_adoption.work_that_vanishes_while_read_is_lost,
    ),
    *_checks(
        "cleanup",
        runtime_lifetime.cleanup_asks_before_it_kills,
        runtime_lifetime.cleanup_kills_after_the_grace,
        runtime_lifetime.harsher_cleanup_overtakes,
        runtime_lifetime.cleanup_is_idempotent,
        runtime_lifetime.cleanup_of_the_unknown_is_gone,
        runtime_lifetime.cleanup_by_name_alone,
        runtime_lifetime.cleanup_after_the_end,
        runtime_lifetime.cleaned_up_work_is_not_started_again,
        runtime_lifetime.cleanup_ends_the_whole_tree,
        runtime_lifetime.children_end_with_the_work,
        runtime_lifetime.execution_scope_ends_all_of_it,
        runtime_lifetime.foreign_installation_is_left_alone,
        runtime_lifetime.survey_lists_what_runs_here,
        runtime_lifetime.survey_finds_what_a_dead_server_left,
    ),
    *_checks(
        "reports",
        runtime_reports.submitted_comes_once_and_first,
        runtime_reports.finished_comes_once_and_last,
        runtime_reports.handle_is_named_after_the_attempt,
        runtime_reports.usage_is_told,
        runtime_reports.phases_are_in_order,
        runtime_reports.samples_are_sane,
        runtime_reports.health_answers_in_time,
        runtime_reports.health_answers_beside_work,
        runtime_reports.health_is_true_when_unreachable,
        runtime_reports.unreachable_runtime_says_what_to_do,
        runtime_reports.capabilities_are_sane,
        runtime_reports.unsupported_features_have_reasons,
        runtime_reports.capabilities_stay_the_same,
        runtime_reports.secrets_stay_inside,
        runtime_reports.failures_hide_secrets,
        runtime_reports.secrets_are_not_shown,
        runtime_reports.secrets_are_not_kept,
        runtime_reports.our_environment_stays_here,
    ),
]
