"""Runtimes that are wrong in one way each. They keep all other rules, so that one check of the kit finds them.

All are scripted runtimes: adapters have been seen to do each of these wrongs, here on a stage that costs nothing.
"""

import asyncio
import math
import os
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Handle, Phase, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import external_name
from flexcore.model.values import JSON
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    ExecutionScope,
    Failed,
    Feature,
    Finished,
    Health,
    HealthStatus,
    LogChunk,
    LogStream,
    MetricSample,
    PhaseEntered,
    Submitted,
    Succeeded,
    Survey,
)
from flexcore.testing.fakes import ScriptedRuntime, ScriptedWork

Events = AsyncGenerator[ExecutionEvent, None]


class Changing(ScriptedRuntime):
    """What most of them share: the request is changed on its way in, the events on their way out."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return request

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return [event]

    async def execute(self, request: ExecutionRequest) -> Events:
        async for event in super().execute(self.asked(request)):
            for each in self.told(event, request):
                yield each

    def work(self, request: ExecutionRequest) -> ScriptedWork | None:
        """Give the work of an attempt, if it is there."""
        return self.world.works.get(external_name(self._installation, request.id))


def with_outcome(event: ExecutionEvent, change: Callable[[JSON], JSON]) -> list[ExecutionEvent]:
    if not isinstance(event, Finished) or not isinstance(event.result.outcome, Succeeded):
        return [event]
    return [Finished(replace(event.result, outcome=Succeeded(change(event.result.outcome.output))))]


def with_failure(event: ExecutionEvent, change: Callable[[Failure], Failure]) -> list[ExecutionEvent]:
    if not isinstance(event, Finished) or not isinstance(event.result.outcome, Failed):
        return [event]
    return [Finished(replace(event.result, outcome=Failed(change(event.result.outcome.failure))))]


# Results.


class Empty(Changing):
    """Takes null for nothing."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return with_outcome(event, lambda output: {} if output is None else output)


class Loose(Changing):
    """Takes every number for the same kind."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return with_outcome(event, self._floating)

    def _floating(self, value: JSON) -> JSON:
        match value:
            case bool():
                return value
            case int():
                return float(value)
            case dict():
                return {key: self._floating(each) for key, each in value.items()}
            case _:
                return value


class Cutting(Changing):
    """Has room for ten megabytes, and says nothing of the rest."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return with_outcome(event, lambda output: output[: 10 << 20] if isinstance(output, str) else output)


class Imprecise(Changing):
    """Knows that work failed, not how."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        code_7 = request.parameters.get("exit_code") == 7
        return with_failure(event, lambda found: Failure(message="it failed") if code_7 else found)


class Deaf(Changing):
    """Does not tell a signal from an exit code."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return with_failure(event, lambda found: Failure(message="exit 138") if "SIG" in found.name else found)


class Submissive(Changing):
    """Starts what cannot be right, and sees then."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        is_input = isinstance(event, Finished) and isinstance(event.result.outcome, Failed)
        wrong = is_input and "no_such_parameter" in request.parameters
        return [Submitted(Handle(1, external_name(self._installation, request.id), "x")), event] if wrong else [event]


class Obscure(Changing):
    """Says that something is wrong with the parameters, and not what."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return with_failure(
            event, lambda found: replace(found, message="bad") if found.error_class is ErrorClass.INPUT else found
        )


class Bare(Changing):
    """Gives work no variables."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, env={})


class Sharing(Changing):
    """Gives work all variables, the control plane's too."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, env={**os.environ, **request.env})


class Conservative(Changing):
    """Takes a second attempt for the first."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, id=replace(request.id, number=1))


class Timeless(Changing):
    """Leaves all deadlines to the control plane, but for work that is easy to end."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, deadline=None) if request.parameters.get("ignores_term") else request


class Generous(Changing):
    """Knows no limit of memory, and does not say so."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, requirements=replace(request.requirements, memory=None))


# Logs.


class Decoding(Changing):
    """Takes output for text."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        if isinstance(event, LogChunk):
            event = replace(event, data=event.data.decode(errors="replace").encode())
        return [event]


class ByLine(Changing):
    """Waits for the end of a line that never comes."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        work = self.work(request)
        if isinstance(event, LogChunk) and work is not None:
            is_last = event.offset + len(event.data) == len(work.logs[event.stream])
            if is_last and not event.data.endswith(b"\n"):
                event = replace(event, data=event.data[: event.data.rfind(b"\n") + 1])
        return [event]


class Mixing(Changing):
    """Has one stream for both."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return [replace(event, stream=LogStream.STDOUT) if isinstance(event, LogChunk) else event]


class Buffering(Changing):
    """Gives the log when all is over."""

    async def execute(self, request: ExecutionRequest) -> Events:
        kept: list[ExecutionEvent] = []
        async for event in super().execute(request):
            if isinstance(event, LogChunk):
                kept.append(event)
                continue
            if isinstance(event, Finished):
                for each in kept:
                    yield each
            yield event


class Forgetful(Changing):
    """Keeps the first megabytes of a log and drops the end."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return [] if isinstance(event, LogChunk) and event.offset > 32 << 20 else [event]


class Repeating(Changing):
    """Gives the logs from the start again after a restart."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, log_offsets={})


# Adoption.


class Attached(ScriptedRuntime):
    """Ends the work when nobody reads any more."""

    async def execute(self, request: ExecutionRequest) -> Events:
        try:
            async for event in super().execute(request):
                yield event
        except GeneratorExit:
            await self.cleanup(AttemptScope(id=request.id))
            raise


class Dutiful(ScriptedRuntime):
    """Takes the end of the reading task for a cancel."""

    async def execute(self, request: ExecutionRequest) -> Events:
        submitted = False
        try:
            async for event in super().execute(request):
                submitted = True
                yield event
        except asyncio.CancelledError:
            if submitted:
                await self.cleanup(AttemptScope(id=request.id))
            raise


class Doubling(Changing):
    """Looks whether the work is there, and starts it a moment later."""

    async def execute(self, request: ExecutionRequest) -> Events:
        absent = self.work(request) is None
        await asyncio.sleep(0.01)
        if absent and request.handle is None:
            self.world.works.pop(external_name(self._installation, request.id), None)
        async for event in super().execute(request):
            yield event


class Hospitable(Changing):
    """Adopts a stranger for its name alone."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, handle=None) if self.work(request) is not None else request


class Optimistic(Changing):
    """Starts lost work again."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, handle=None) if self.work(request) is None else request


class Faithful(Changing):
    """Waits for ever for work that is no more."""

    async def execute(self, request: ExecutionRequest) -> Events:
        async for event in super().execute(request):
            if isinstance(event, Finished) and request.handle is None and self.work(request) is None:
                outcome = event.result.outcome
                if isinstance(outcome, Failed) and outcome.failure.error_class is ErrorClass.LOST:
                    await asyncio.Event().wait()
            yield event


class Blurred(Changing):
    """Knows of adopted work only whether it failed."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        def blur(found: Failure) -> Failure:
            return Failure(message="failed") if found.error_class is ErrorClass.USER else found

        return with_failure(event, blur) if request.handle is not None else [event]


# Cleanup.


class Merciless(ScriptedRuntime):
    """Kills without asking."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        for work in self.world.works.values():
            work.told_to_end = False
        return report


class Patient(Changing):
    """Asks, and asks again, and never kills."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        if isinstance(scope, AttemptScope) and scope.grace > timedelta(0):
            name = external_name(self._installation, scope.id)
            work = self.world.works.get(name)
            if work is not None and work.script.ignores_term and work.result is None:
                return CleanupReport(pending=frozenset({name}))
        return await super().cleanup(scope)


class Orderly(ScriptedRuntime):
    """Does one cleanup after the other."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        turns: dict[str, asyncio.Lock] = self.world.__dict__.setdefault("turns", {})
        name = external_name(self._installation, scope.id) if isinstance(scope, AttemptScope) else ""
        async with turns.setdefault(name, asyncio.Lock()):
            return await super().cleanup(scope)


class Careless(ScriptedRuntime):
    """Cannot tell a stranger's work from work that never was."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        if isinstance(scope, AttemptScope) and not report.gone & self.world.works.keys():
            return CleanupReport(unknown=dict.fromkeys(report.gone, "never heard of it"))
        return report


class Hoarding(ScriptedRuntime):
    """Goes on listing what ended well."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        if not isinstance(scope, Survey):
            return report
        ended = {name for name, work in self.world.works.items() if work.result and succeeded(work.result)}
        return replace(report, pending=report.pending | ended)


class Undead(Changing):
    """Forgets what it ended, and starts it when asked again."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        work = self.work(request)
        if work is None or work.result is None or not work.told_to_end:
            return request
        del self.world.works[work.name]
        return replace(request, handle=None)


class Shallow(ScriptedRuntime):
    """Ends a process and leaves its children."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        for name in report.gone & self.world.works.keys():
            self.world.works[name].child = self.world.works[name].script.child
        return report


class Untidy(Changing):
    """Does not look for what work leaves behind that ended by itself."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        work = self.work(request)
        if isinstance(event, Finished) and succeeded(event.result) and work is not None:
            work.child = work.script.child
        return [event]


class Partial(ScriptedRuntime):
    """Ends the first of an execution and takes it for all."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        if isinstance(scope, ExecutionScope):
            running = [each for each in self._own() if each.attempt.execution == scope.execution]
            return await self._end([each.name for each in running[:1]], scope.grace)
        return await super().cleanup(scope)


class Trespassing(ScriptedRuntime):
    """Ends an execution wherever it runs."""

    def _own(self) -> list[ScriptedWork]:
        return list(self.world.works.values())


class Nosy(ScriptedRuntime):
    """Lists the neighbours' work too."""

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        if not isinstance(scope, Survey):
            return await super().cleanup(scope)
        running = {name: work.attempt for name, work in self.world.works.items() if work.result is None}
        return CleanupReport(pending=frozenset(running), attempts=running)


# Reports.


class Renaming(Changing):
    """Invents a name of its own for the work."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        handle = request.handle and replace(request.handle, name=request.handle.name.removesuffix("-x"))
        return replace(request, handle=handle)

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        if isinstance(event, Submitted):
            event = replace(event, handle=replace(event.handle, name=f"{event.handle.name}-x"))
        return [event]

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        report = await super().cleanup(scope)
        if not isinstance(scope, Survey):
            return report
        return replace(
            report,
            pending=frozenset(f"{name}-x" for name in report.pending),
            attempts={f"{name}-x": attempt for name, attempt in report.attempts.items()},
        )


class Stuttering(Changing):
    """Says that it has finished, twice."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        twice = isinstance(event, Finished) and request.parameters.get("exit_code") == 1
        return [event, event] if twice else [event]


class Inventive(Changing):
    """Makes up what it did not measure."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return [Finished(replace(event.result, usage=Usage(cpu_s=-1.0)))] if isinstance(event, Finished) else [event]


class Local(Changing):
    """Has the time of the place where it runs."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        entered = PhaseEntered(Phase.RUN, datetime(2026, 1, 1))  # noqa: DTZ001  the fault in question
        return [event, entered] if isinstance(event, Submitted) else [event]


class Dividing(Changing):
    """Divides by nothing."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return [event, MetricSample("rate", math.nan, "1/s")] if isinstance(event, Submitted) else [event]


class Mute(ScriptedRuntime):
    """Has a state of health and no word about it."""

    async def health(self) -> HealthStatus:
        found = await super().health()
        return replace(found, reason="") if found.state is Health.UP else found


class Busy(ScriptedRuntime):
    """Cannot be asked while it works."""

    async def health(self) -> HealthStatus:
        while any(work.result is None for work in self.world.works.values()):
            await asyncio.sleep(0.01)
        return await super().health()


class Hanging(ScriptedRuntime):
    """Waits for an answer that does not come."""

    async def health(self) -> HealthStatus:
        if not self.world.reachable:
            await asyncio.Event().wait()
        return await super().health()


class Rosy(ScriptedRuntime):
    """Is well whatever happens."""

    async def health(self) -> HealthStatus:
        return replace(await super().health(), state=Health.UP)


class Terse(ScriptedRuntime):
    """Says that it cannot, and not what to do."""

    async def execute(self, request: ExecutionRequest) -> Events:
        try:
            async for event in super().execute(request):
                yield event
        except RuntimeUnavailable as error:
            raise RuntimeUnavailable(error.message) from error


class Vague(Changing):
    """Says that something is missing, and not why."""

    async def capabilities(self) -> Capabilities:
        return replace(await super().capabilities(), unsupported={Feature.USAGE: ""})

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        return [Finished(replace(event.result, usage=Usage()))] if isinstance(event, Finished) else [event]


class Fickle(ScriptedRuntime):
    """Can do something else every time."""

    async def capabilities(self) -> Capabilities:
        return replace(await super().capabilities(), tags=frozenset({f"tag-{len(self.world.calls)}"}))


class Talkative(Changing):
    """Keeps the environment in the handle."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        if isinstance(event, Submitted):
            data: dict[str, Any] = {"env": dict(request.env)}
            event = replace(event, handle=replace(event.handle, data=data))
        return [event]


class Quoting(Changing):
    """Quotes the last words of work that failed, whatever they are."""

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        said = str(request.parameters.get("stderr"))
        return with_failure(event, lambda found: replace(found, message=f"{found.message}: {said}"))


class Visible(Changing):
    """Hands variables over in the command line."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        self.world.shown += [f"env {name}={value} command" for name, value in request.env.items()]
        return request


class Archiving(Changing):
    """Keeps every request that it ever had."""

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        self.world.kept.append(repr(request))
        return request


# Not broken: it can do little, and says so.


class Modest(Changing):
    """Has none of the features that a runtime may do without, and does what it says."""

    async def capabilities(self) -> Capabilities:
        missing = {feature: f"there is no {feature.value} here" for feature in Feature}
        return replace(await super().capabilities(), unsupported=missing)

    async def execute(self, request: ExecutionRequest) -> Events:
        if request.handle is not None or self.work(request) is not None:
            lost = Failure(message="this runtime finds nothing again", error_class=ErrorClass.LOST)
            yield Finished(ExecutionResult(outcome=Failed(lost)))
            return
        async for event in super().execute(request):
            yield event

    def asked(self, request: ExecutionRequest) -> ExecutionRequest:
        return replace(request, requirements=replace(request.requirements, memory=None))

    def told(self, event: ExecutionEvent, request: ExecutionRequest) -> list[ExecutionEvent]:
        match event:
            case LogChunk():
                return []
            case Finished():
                return [Finished(replace(event.result, usage=Usage()))]
            case _:
                return [event]

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        if isinstance(scope, Survey):
            return CleanupReport(unknown={"*": "this runtime keeps no list"})
        report = await super().cleanup(scope)
        for work in self.world.works.values():
            work.told_to_end = False
        return report


def succeeded(result: ExecutionResult) -> bool:
    return isinstance(result.outcome, Succeeded)
