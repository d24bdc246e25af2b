"""What breaks between the control plane and a server, or at the server: nothing loops, and no work is left behind."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flexcore_remote.config import RemoteConfig
from flexcore_remote.runtime import RemoteRuntime

from flexcore.model.errors import InternalError, RuntimeUnavailable
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    LogChunk,
    LogStream,
    Runtime,
    Submitted,
    Succeeded,
)
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import execution_request, runtime_context
from flexcore.testing.fakes import ScriptedRuntime, World
from flexcore.testing.runtime_remote import TOKEN, served

HERE = "test-installation"
PIECE = bytes(1 << 20)


class Breaking(ScriptedRuntime):
    """Its stream breaks after each time that it said `Submitted`."""

    tries = 0

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        self.tries += 1
        async for event in super().execute(request):
            yield event
            return


class Buggy(ScriptedRuntime):
    """Starts the work, and breaks before it says so."""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for _ in super().execute(request):
            raise ZeroDivisionError
        yield Finished(ExecutionResult(outcome=Succeeded()))


class Talkative(ScriptedRuntime):
    """Writes as much as it can, and counts it."""

    told = 0

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        async for event in super().execute(request):
            if isinstance(event, Finished):
                for number in range(100):
                    yield LogChunk(LogStream.STDOUT, number * len(PIECE), PIECE)
                    self.told += 1
            yield event


class Inner:
    """One runtime for whoever calls."""

    def __init__(self, made: Runtime) -> None:
        self.made = made

    async def runtime(self, _installation: str) -> Runtime:
        return self.made


@asynccontextmanager
async def far(folder: Path, inner: Runtime) -> AsyncIterator[RemoteRuntime]:
    async with served(Inner(inner), folder / "server") as address:
        config = RemoteConfig.model_validate({"address": address, "token": TOKEN})
        runtime = RemoteRuntime("far", config, runtime_context(folder, installation=HERE, clock=RealClock()))
        try:
            yield runtime
        finally:
            await runtime.close()


async def events_of(runtime: RemoteRuntime, request: ExecutionRequest) -> list[ExecutionEvent]:
    return [event async for event in runtime.execute(request)]


async def test_a_stream_that_breaks_at_the_same_place_is_given_up(tmp_path: Path) -> None:
    inner = Breaking(World(RealClock()), HERE)
    async with far(tmp_path, inner) as runtime:
        with pytest.raises(RuntimeUnavailable, match="before the attempt ended"):
            await events_of(runtime, execution_request())

    assert inner.tries == 4  # once, and three times more


async def test_work_that_began_before_the_server_broke_is_ended(tmp_path: Path) -> None:
    world, request = World(RealClock()), execution_request({"gate": "never"}, grace=timedelta(0))
    async with far(tmp_path, Buggy(world, HERE)) as runtime:
        with pytest.raises(InternalError):
            await events_of(runtime, request)

    result = world.works[external_name(HERE, request.id)].result
    assert result is not None and isinstance(result.outcome, Failed)
    assert result.outcome.failure.error_class is ErrorClass.CANCELLED


async def test_a_server_waits_for_who_reads_slowly(tmp_path: Path) -> None:
    inner = Talkative(World(RealClock()), HERE)
    async with far(tmp_path, inner) as runtime, aclosing(runtime.execute(execution_request())) as events:
        assert isinstance(await anext(events), Submitted)
        await anext(events)
        await quiet(inner)

        assert inner.told < 40  # of a hundred MiB, some are under way and none is piled up
        rest = [event async for event in events]

    assert sum(isinstance(each, LogChunk) for each in rest) == 99


async def quiet(inner: Talkative) -> None:
    """Look until it writes no more: what is between was filled, and nobody reads."""
    before, same = -1, 0
    async with asyncio.timeout(20):
        while same < 20:
            same = same + 1 if inner.told == before else 0
            before = inner.told
            await asyncio.sleep(0.02)


@pytest.mark.parametrize("where", [pytest.param("output", marks=pytest.mark.campaign), "carried"])
async def test_large_results_and_parameters_arrive(tmp_path: Path, where: str) -> None:
    size = 60 << 20 if where == "output" else 10 << 20
    given: dict[str, Any] = {"output_bytes": size} if where == "output" else {"carried": "x" * size}
    async with far(tmp_path, ScriptedRuntime(World(RealClock()), HERE)) as runtime:
        events = await events_of(runtime, execution_request(given))

    assert isinstance(events[-1], Finished) and isinstance(events[-1].result.outcome, Succeeded)
    assert events[-1].result.outcome.output == ("x" * size if where == "output" else {"length": size})


@pytest.mark.campaign
async def test_parameters_beyond_what_a_server_takes_are_the_fault_of_the_step(tmp_path: Path) -> None:
    async with far(tmp_path, ScriptedRuntime(World(RealClock()), HERE)) as runtime:
        (event,) = await events_of(runtime, execution_request({"carried": "x" * (129 << 20)}))

    assert isinstance(event, Finished) and isinstance(event.result.outcome, Failed)
    assert event.result.outcome.failure.error_class is ErrorClass.INPUT
    assert "too large" in event.result.outcome.failure.message
