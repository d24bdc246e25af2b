"""The clock that tests move, and scripted work that lives by it."""

import asyncio
from datetime import timedelta

from flexcore.runtime.interface import ExecutionResult, Finished, LogChunk, LogStream, Succeeded
from flexcore.testing.clock import EPOCH, ManualClock
from flexcore.testing.factories import execution_request
from flexcore.testing.fakes import ScriptedRuntime, World

SECOND = timedelta(seconds=1)


async def test_sleepers_wake_when_their_time_has_come_and_not_before() -> None:
    clock, woken = ManualClock(), []

    async def sleeper(seconds: int) -> None:
        await clock.sleep(seconds * SECOND)
        woken.append(seconds)

    async with asyncio.TaskGroup() as group:
        for seconds in (3, 1, 2):
            group.create_task(sleeper(seconds))
        await asyncio.sleep(0)
        clock.advance(2 * SECOND)
        await asyncio.sleep(0)
        assert woken == [1, 2]
        assert clock.sleepers == 1
        clock.advance(SECOND)

    assert woken == [1, 2, 3]
    assert clock.now() == EPOCH + 3 * SECOND
    assert clock.seconds() == 3


async def test_scripted_work_takes_its_time_on_the_clock_given() -> None:
    clock = ManualClock()
    runtime = ScriptedRuntime(World(clock))
    events = runtime.execute(execution_request({"delay_s": 60, "stdout": "begun", "output": "done"}))
    await anext(events)
    assert await anext(events) == LogChunk(LogStream.STDOUT, 0, b"begun")
    assert clock.sleepers == 1

    clock.advance(60 * SECOND)

    assert await anext(events) == Finished(ExecutionResult(outcome=Succeeded("done")))


async def test_late_events_can_be_provoked() -> None:
    runtime = ScriptedRuntime(World())

    events = [event async for event in runtime.execute(execution_request({"late": True}))]

    assert isinstance(events[-1], LogChunk)
    assert isinstance(events[-2], Finished)
