"""Supervision: the protocol of events, the breaker, health with a memory, and what observers hear."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from datetime import timedelta

import pytest

from flexcore.model.errors import InternalError, RuntimeUnavailable
from flexcore.model.execution import Handle, Phase
from flexcore.model.failure import ErrorClass
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    Health,
    HealthStatus,
    LogChunk,
    LogStream,
    PhaseEntered,
    Submitted,
    Succeeded,
)
from flexcore.runtime.supervised import SupervisedRuntime, Supervision
from flexcore.testing.clock import EPOCH, ManualClock, RealClock
from flexcore.testing.factories import attempt_id, capabilities, execution_request, health_status
from flexcore.testing.fakes import ScriptedRuntime, World

SUBMITTED = Submitted(Handle(1, "fx-test", "pid 1"))
LOG = LogChunk(LogStream.STDOUT, 0, b"x")
DONE = Finished(ExecutionResult(outcome=Succeeded(1)))


class Playing:
    """Plays a list of events and raises what is an exception among them."""

    def __init__(self, *events: ExecutionEvent | BaseException) -> None:
        self.events = list(events)
        self.closed = 0
        self.cleaned: list[CleanupScope] = []
        self.answer: Callable[[], HealthStatus] = health_status

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        try:
            for event in self.events:
                if isinstance(event, BaseException):
                    raise event
                yield event
        finally:
            self.closed += 1

    async def health(self) -> HealthStatus:
        return self.answer()

    async def capabilities(self) -> Capabilities:
        return capabilities()

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        self.cleaned.append(scope)
        return CleanupReport()


class Listening:
    """Writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[tuple[str, ...]] = []

    def attempt_started(self, runtime: str, kind: StepKind) -> None:
        self.heard.append(("started", runtime, kind.value))

    def attempt_finished(self, runtime: str, kind: StepKind, outcome: str, seconds: float) -> None:
        self.heard.append(("finished", runtime, kind.value, outcome, f"{seconds:g}"))

    def health_changed(self, runtime: str, status: HealthStatus) -> None:
        self.heard.append(("health", runtime, status.state.value))


def supervised(
    runtime: Playing | ScriptedRuntime, clock: ManualClock | None = None, **figures: object
) -> SupervisedRuntime:
    clock = clock or ManualClock()
    return SupervisedRuntime(
        "test",
        runtime,
        now=clock.now,
        clock=clock.seconds,
        supervision=replace(Supervision(), **figures),  # type: ignore[arg-type]  # a test's shorthand
    )


async def read(runtime: SupervisedRuntime) -> list[ExecutionEvent]:
    return [event async for event in runtime.execute(execution_request())]


def failure_class(events: list[ExecutionEvent]) -> ErrorClass:
    finished = events[-1]
    assert isinstance(finished, Finished)
    assert isinstance(finished.result.outcome, Failed)
    return finished.result.outcome.failure.error_class


async def test_a_sound_stream_passes_unchanged() -> None:
    events: list[ExecutionEvent] = [PhaseEntered(Phase.QUEUE, EPOCH), SUBMITTED, LOG, DONE]

    assert await read(supervised(Playing(*events))) == events


async def test_finished_alone_is_legal() -> None:
    assert await read(supervised(Playing(DONE))) == [DONE]


@pytest.mark.parametrize("events", [[LOG, SUBMITTED, DONE], [SUBMITTED, SUBMITTED, DONE]])
async def test_a_broken_protocol_is_an_internal_failure(events: list[ExecutionEvent]) -> None:
    assert failure_class(await read(supervised(Playing(*events)))) is ErrorClass.INTERNAL


async def test_nothing_follows_the_end() -> None:
    playing = Playing(SUBMITTED, DONE, LOG, DONE)

    assert await read(supervised(playing)) == [SUBMITTED, DONE]
    assert playing.closed == 1


async def test_a_stream_without_an_end_leaves_the_outcome_unknown() -> None:
    with pytest.raises(RuntimeUnavailable, match="stopped reporting"):
        await read(supervised(Playing(SUBMITTED, LOG)))


async def test_a_foreign_exception_is_an_internal_failure_and_the_work_is_ended() -> None:
    playing = Playing(SUBMITTED, KeyError("secret value"))

    events = await read(supervised(playing))

    assert failure_class(events) is ErrorClass.INTERNAL
    assert "secret value" not in repr(events[-1])
    request = execution_request()
    assert playing.cleaned == [AttemptScope(id=request.id, handle=SUBMITTED.handle, grace=request.grace)]


async def test_closing_closes_the_adapter_at_once() -> None:
    playing = Playing(SUBMITTED, LOG, DONE)
    events = supervised(playing).execute(execution_request())
    await anext(events)

    await events.aclose()

    assert playing.closed == 1


async def test_cancelling_the_reader_detaches() -> None:
    world = World()
    runtime = supervised(ScriptedRuntime(world))
    request = execution_request({"gate": "g", "mark": "m"})
    submitted = asyncio.Event()

    async def reader() -> None:
        async for _ in runtime.execute(request):
            submitted.set()

    task = asyncio.create_task(reader())
    await submitted.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)

    assert world.alive("m")
    await world.close()


async def test_observers_hear_of_every_attempt() -> None:
    observer, clock = Listening(), ManualClock()
    playing = Playing(SUBMITTED, DONE)
    runtime = SupervisedRuntime("test", playing, now=clock.now, clock=clock.seconds, observer=observer)

    await read(runtime)
    playing.events = [RuntimeUnavailable("gone")]
    with pytest.raises(RuntimeUnavailable):
        await read(runtime)
    playing.events = [ValueError()]
    await read(runtime)
    playing.events = [SUBMITTED, DONE]
    stream = runtime.execute(execution_request())
    await anext(stream)
    await stream.aclose()

    finished = [each[3] for each in observer.heard if each[0] == "finished"]
    assert finished == ["succeeded", "unavailable", "internal", "detached"]
    assert observer.heard[0] == ("started", "test", "python")


async def test_the_circuit_opens_lets_one_try_in_and_closes() -> None:
    clock, playing = ManualClock(), Playing(RuntimeUnavailable("refused"))
    runtime = supervised(playing, clock, breaker_after=2, breaker_open=timedelta(seconds=30))

    for _ in range(2):
        with pytest.raises(RuntimeUnavailable, match="refused"):
            await read(runtime)
    assert runtime.is_circuit_open
    with pytest.raises(RuntimeUnavailable, match="2 times in a row"):
        await read(runtime)
    clock.advance(timedelta(seconds=30))
    assert not runtime.is_circuit_open
    with pytest.raises(RuntimeUnavailable, match="refused"):
        await read(runtime)
    assert runtime.is_circuit_open
    clock.advance(timedelta(seconds=30))
    playing.events = [SUBMITTED, DONE]
    await read(runtime)

    assert not runtime.is_circuit_open
    assert await read(runtime) == [SUBMITTED, DONE]


async def test_an_answer_between_failures_keeps_the_circuit_closed() -> None:
    playing = Playing()
    runtime = supervised(playing, breaker_after=2)
    for _ in range(3):
        playing.events = [RuntimeUnavailable("refused")]
        with pytest.raises(RuntimeUnavailable):
            await read(runtime)
        playing.events = [DONE]
        await read(runtime)

    assert not runtime.is_circuit_open


async def test_a_hanging_health_check_is_down() -> None:
    world = World()
    world.health_hangs = True

    status = await supervised(ScriptedRuntime(world), health_timeout=timedelta(seconds=0.01)).health()

    assert (status.state, status.reason) == (Health.DOWN, "the health check did not answer within 0.01 s")


async def test_a_health_check_that_swallows_its_cancellation_does_not_hold_the_caller() -> None:
    release = asyncio.Event()

    class Stubborn(Playing):
        async def health(self) -> HealthStatus:
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue
            return health_status()

    status = await supervised(Stubborn(), health_timeout=timedelta(seconds=0.01)).health()

    assert status.state is Health.DOWN
    release.set()


async def test_a_broken_health_check_is_down() -> None:
    playing = Playing()

    def broken() -> HealthStatus:
        raise ValueError("secret value")

    playing.answer = broken

    status = await supervised(playing).health()

    assert (status.state, status.reason) == (Health.DOWN, "the health check broke: ValueError")


async def test_health_is_asked_again_only_when_the_answer_is_old() -> None:
    world, clock = World(), ManualClock()
    runtime = supervised(ScriptedRuntime(world), clock)

    await asyncio.gather(*(runtime.health() for _ in range(5)))
    clock.advance(timedelta(seconds=9))
    await runtime.health()
    assert len(world.calls) == 1
    clock.advance(timedelta(seconds=1))
    await runtime.health()

    assert len(world.calls) == 2


async def test_one_bad_answer_only_degrades() -> None:
    world, clock = World(), ManualClock()
    runtime = supervised(ScriptedRuntime(world), clock)
    states = []
    for state, pause in ((Health.UP, 10), (Health.DOWN, 1), (Health.DOWN, 1), (Health.UP, 10)):
        world.health = state
        states.append((await runtime.health()).state)
        clock.advance(timedelta(seconds=pause))

    assert states == [Health.UP, Health.DEGRADED, Health.DOWN, Health.UP]


async def test_the_first_answer_counts_at_once() -> None:
    world = World()
    world.health = Health.DOWN

    assert (await supervised(ScriptedRuntime(world)).health()).state is Health.DOWN


async def test_a_cleanup_that_never_ends_is_given_up() -> None:
    class Endless(Playing):
        async def cleanup(self, scope: CleanupScope) -> CleanupReport:
            await asyncio.Event().wait()
            return CleanupReport()

    runtime = supervised(Endless(), cleanup_margin=timedelta(seconds=0.01))

    with pytest.raises(RuntimeUnavailable, match="did not finish cleaning up"):
        await runtime.cleanup(AttemptScope(id=attempt_id(), grace=timedelta(0)))


async def test_a_foreign_exception_of_cleanup_becomes_ours() -> None:
    class Broken(Playing):
        async def cleanup(self, scope: CleanupScope) -> CleanupReport:
            raise KeyError("x")

    with pytest.raises(InternalError, match="broke while cleaning up: KeyError"):
        await supervised(Broken()).cleanup(AttemptScope(id=attempt_id()))


async def test_scripted_work_survives_an_interrupted_stream() -> None:
    world = World(RealClock())
    runtime = supervised(ScriptedRuntime(world))
    request = execution_request({"unavailable": 1, "interrupted": 1, "mark": "m", "output": 5})
    for _ in range(2):
        with pytest.raises(RuntimeUnavailable):
            [event async for event in runtime.execute(request)]

    events = [event async for event in runtime.execute(request)]

    assert events[-1] == Finished(ExecutionResult(outcome=Succeeded(5)))
    assert world.begun["m"] == 1
