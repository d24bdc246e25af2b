"""The kit is worth something only if a broken runtime fails it, and at the check that says what is broken."""

from collections.abc import AsyncGenerator
from dataclasses import replace

import pytest
from runtime_harnesses import ScriptedHarness

from flexcore.model.execution import Handle
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Feature,
    Finished,
    HealthStatus,
    LogChunk,
    Runtime,
    Submitted,
    Succeeded,
    Survey,
)
from flexcore.testing.fakes import ScriptedRuntime
from flexcore.testing.runtime_suite import CHECKS, failing_checks


class Renaming(ScriptedRuntime):
    """Invents a name of its own for the work."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        handle = request.handle and replace(request.handle, name=request.handle.name.removesuffix("-x"))
        async for event in super().execute(replace(request, handle=handle)):
            if isinstance(event, Submitted):
                event = replace(event, handle=replace(event.handle, name=f"{event.handle.name}-x"))
            yield event

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        if not isinstance(scope, Survey):
            return report
        return replace(
            report,
            pending=frozenset(f"{name}-x" for name in report.pending),
            attempts={f"{name}-x": attempt for name, attempt in report.attempts.items()},
        )


class ReportingOn(ScriptedRuntime):
    """Says that it has finished, twice."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for event in super().execute(request):
            yield event
        if isinstance(event, Finished) and _is_plain(request):
            yield event


class Empty(ScriptedRuntime):
    """Takes null for nothing."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for event in super().execute(request):
            if isinstance(event, Finished) and event.result.outcome == Succeeded(None):
                event = Finished(ExecutionResult(outcome=Succeeded({})))
            yield event


class Repeating(ScriptedRuntime):
    """Gives the logs from the start again after a restart."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for event in super().execute(replace(request, log_offsets={})):
            yield event


class Decoding(ScriptedRuntime):
    """Takes output for text."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for event in super().execute(request):
            if isinstance(event, LogChunk):
                event = replace(event, data=event.data.decode(errors="replace").encode())
            yield event


class Merciless(ScriptedRuntime):
    """Kills without asking."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        for work in self.world.works.values():
            work.told_to_end = False
        return report


class Careless(ScriptedRuntime):
    """Cannot tell a stranger's work from work that never was."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        if isinstance(scope, AttemptScope) and not report.gone & self.world.works.keys():
            return CleanupReport(unknown=dict.fromkeys(report.gone, "never heard of it"))
        return report


class Nosy(ScriptedRuntime):
    """Lists the neighbours' work too."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        if not isinstance(scope, Survey):
            return await super().cleanup(scope)
        running = {name: work.attempt for name, work in self.world.works.items() if work.result is None}
        return CleanupReport(pending=frozenset(running), attempts=running)


class Talkative(ScriptedRuntime):
    """Keeps the environment in the handle."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for event in super().execute(request):
            if isinstance(event, Submitted):
                handle = Handle(1, event.handle.name, event.handle.identity, {"env": dict(request.env)})
                event = replace(event, handle=handle)
            yield event


class Optimistic(ScriptedRuntime):
    """Starts lost work again."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for event in super().execute(replace(request, handle=None)):
            yield event


class Vague(ScriptedRuntime):
    """Says that something is missing, and not why."""

    async def capabilities(self) -> Capabilities:
        return replace(await super().capabilities(), unsupported={Feature.USAGE: ""})


class Mute(ScriptedRuntime):
    """Has a state of health and no word about it."""

    async def health(self) -> HealthStatus:
        return replace(await super().health(), reason="")


class Attached(ScriptedRuntime):
    """Ends the work when nobody reads any more."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        try:
            async for event in super().execute(request):
                yield event
        except GeneratorExit:
            await self.cleanup(AttemptScope(id=request.id))
            raise


class Examined(ScriptedHarness):
    """A harness for one of the broken runtimes."""

    def __init__(self, broken: type[ScriptedRuntime]) -> None:
        super().__init__()
        self._broken = broken

    async def runtime(self, installation: str) -> Runtime:
        return self._broken(self.world, installation)


def _is_plain(request: ExecutionRequest) -> bool:
    """Whether nothing is asked of the work but some output, as in the check for the order of events."""
    return bool(request.parameters.get("stdout_base64")) and not request.parameters.get("stderr")


@pytest.mark.parametrize(
    ("broken", "named"),
    [
        (Renaming, {"handle_is_named_after_the_attempt"}),
        (Empty, {"null_is_a_result"}),
        (Repeating, {"adoption_repeats_no_log_byte"}),
        (Decoding, {"logs_are_bytes"}),
        (Merciless, {"cleanup_asks_before_it_kills"}),
        (Careless, {"cleanup_of_the_unknown_is_gone"}),
        (Nosy, {"survey_lists_what_runs_here"}),
        (Talkative, {"secrets_stay_inside"}),
        (Optimistic, {"vanished_work_is_lost"}),
        (Vague, {"capabilities_are_sane"}),
        (Mute, {"health_answers_in_time"}),
    ],
)
async def test_a_broken_runtime_fails_at_the_check_that_names_it(
    broken: type[ScriptedRuntime], named: set[str]
) -> None:
    failing = await failing_checks(lambda: Examined(broken))

    assert failing.keys() == named, failing


@pytest.mark.parametrize(
    ("broken", "named"), [(ReportingOn, "finished_comes_once_and_last"), (Attached, "closing_detaches")]
)
async def test_a_fault_that_spoils_much_is_named_too(broken: type[ScriptedRuntime], named: str) -> None:
    failing = await failing_checks(lambda: Examined(broken))

    assert named in failing


async def test_a_sound_runtime_fails_nowhere() -> None:
    assert await failing_checks(ScriptedHarness) == {}


def test_every_check_has_a_name_of_its_own_and_says_why() -> None:
    assert len({check.name for check in CHECKS}) == len(CHECKS)
    assert all(check.why for check in CHECKS)
