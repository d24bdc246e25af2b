"""The conformance kit for runtimes: checks by name that every adapter has to pass. Needs no test framework.

With pytest, for an own runtime with an own `Harness`:

    @pytest.mark.parametrize("check", CHECKS, ids=str)
    async def test_runtime(check, tmp_path):
        await check.examine(MyHarness(tmp_path))

A feature that the adapter declares unsupported turns its checks into checks of the refusal; nothing is skipped.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from flexcore.testing import runtime_lifetime, runtime_reports
from flexcore.testing.runtime_harness import (
    Examination,
    Harness,
)


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that every runtime has to do, and why it matters."""

    name: str
    why: str
    run: Callable[[Examination], Awaitable[None]]

    def __str__(self) -> str:
        return self.name

    async def examine(self, harness: Harness) -> None:
        """Hold the check against a runtime. Raises CheckFailed, or whatever the runtime raises."""
        runtime = await harness.runtime(harness.installation)
        capabilities = await runtime.capabilities()
        examination = Examination(harness, runtime, capabilities.unsupported)
        try:
            await self.run(examination)
        finally:
            await examination.end_all()


async def failing_checks(harness: Callable[[], Harness], checks: Sequence[Check] | None = None) -> dict[str, str]:
    """Hold all checks against runtimes that the factory makes; give the name of each that fails with its reason."""
    failing = {}
    for check in CHECKS if checks is None else checks:
        try:
            await check.examine(harness())
        except Exception as error:  # the shell of the examination: whatever goes wrong is the finding
            failing[check.name] = f"{type(error).__name__}: {error}"
    return failing


def _check(run: Callable[[Examination], Awaitable[None]]) -> Check:
    return Check(run.__name__, (run.__doc__ or "").strip(), run)


CHECKS = [
    _check(run)
    for run in (
        runtime_reports.success_gives_the_result,
        runtime_reports.null_is_a_result,
        runtime_reports.large_result_arrives,
        runtime_reports.failing_work_is_a_user_failure,
        runtime_reports.death_by_signal_names_the_signal,
        runtime_reports.invalid_parameters_start_nothing,
        runtime_reports.submitted_comes_once_and_first,
        runtime_reports.finished_comes_once_and_last,
        runtime_reports.handle_is_named_after_the_attempt,
        runtime_reports.log_offsets_have_no_gap,
        runtime_reports.logs_are_bytes,
        runtime_lifetime.closing_detaches,
        runtime_lifetime.adopted_by_handle,
        runtime_lifetime.adopted_by_name,
        runtime_lifetime.adoption_repeats_no_log_byte,
        runtime_lifetime.two_executes_run_once,
        runtime_lifetime.execute_after_the_end_gives_the_same_result,
        runtime_lifetime.cleanup_asks_before_it_kills,
        runtime_lifetime.cleanup_kills_after_the_grace,
        runtime_lifetime.cleanup_is_idempotent,
        runtime_lifetime.cleanup_of_the_unknown_is_gone,
        runtime_lifetime.cleanup_ends_the_whole_tree,
        runtime_lifetime.vanished_work_is_lost,
        runtime_lifetime.survey_lists_what_runs_here,
        runtime_reports.health_answers_in_time,
        runtime_reports.capabilities_are_sane,
        runtime_reports.secrets_stay_inside,
    )
]
