"""Checks of the control plane's absence: detached, crashed, doubled. Work runs once, and is found again or lost."""

import asyncio
from dataclasses import replace

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import ErrorClass
from flexcore.model.values import JSON
from flexcore.runtime.interface import ExecutionEvent, Failed, Feature, Finished, Submitted, Succeeded
from flexcore.testing.runtime_examination import Examination, Stream, failure, only, output
from flexcore.testing.runtime_harness import Behaviour, expect, fresh_name, gated

_CRASHES = (0, 1, 3, 10)  # after so many turns of the event loop


async def closing_detaches(exam: Examination) -> None:
    """Stopping to read is not cancelling: the control plane may stop at any time."""
    behaviour = gated()
    request, stream, _ = await exam.begin(behaviour)

    await stream.detach()

    expect(await exam.harness.alive(behaviour.mark), "the work ended with the reading")
    await _expect_adoption(exam, behaviour, exam.stream(request))


async def cancelled_reading_detaches(exam: Examination) -> None:
    """The task that reads is cancelled when the control plane is told to stop; that is no word to the work."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)
    reading = asyncio.create_task(stream.rest())
    await asyncio.sleep(0)

    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)

    expect(await exam.harness.alive(behaviour.mark), "the work ended with the task that read")
    await _expect_adoption(exam, behaviour, exam.stream(replace(request, handle=handle), await exam.restarted()))


async def adopted_by_handle(exam: Examination) -> None:
    """After a restart, the stored handle finds the work, which is not started again."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()

    again = exam.stream(replace(request, handle=handle), await exam.restarted())

    await _expect_adoption(exam, behaviour, again)


async def adopted_by_name(exam: Examination) -> None:
    """A crash between the start and the storing of the handle must not double the work."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()

    again = exam.stream(request, await exam.restarted())

    await _expect_adoption(exam, behaviour, again)
    if not exam.lacks(Feature.ADOPTION):
        found = only(Submitted, again.events).handle
        same = (found.name, found.identity) == (handle.name, handle.identity)
        expect(same, f"the handle was {handle.name} {handle.identity}, and is {found.name} {found.identity} now")


async def crash_before_submitted_starts_once(exam: Examination) -> None:
    """The control plane may die at any moment of a start; asking again must neither double the work nor lose it."""
    behaviours = [gated() for _ in _CRASHES]
    requests = [exam.request(each) for each in behaviours]
    for request, turns in zip(requests, _CRASHES, strict=True):
        await _crash(exam.stream(request), turns)

    runtime = await exam.restarted()
    readings = [asyncio.create_task(exam.stream(each, runtime).rest()) for each in requests]
    for behaviour in behaviours:
        await exam.harness.open(behaviour.gate)

    for reading, behaviour in zip(readings, behaviours, strict=True):
        await _expect_one_start(exam, behaviour, await reading)


async def crash_after_submitted_starts_once(exam: Examination) -> None:
    """A crash right after the start, before the work came to anything, is the likeliest of all."""
    behaviour = gated()
    request = exam.request(behaviour)
    stream = exam.stream(request)
    await stream.until(lambda event: isinstance(event, Submitted))
    await stream.detach()

    handle = only(Submitted, stream.events).handle
    again = exam.stream(replace(request, handle=handle), await exam.restarted())
    reading = asyncio.create_task(again.rest())
    await exam.has_begun(behaviour.mark)
    await exam.harness.open(behaviour.gate)

    await _expect_outcome(exam, behaviour, await reading)


async def stranger_is_not_adopted(exam: Examination) -> None:
    """Names come back, after a reset of the platform for one; the identity says whether it is the work we mean."""
    behaviour, other = gated(), gated()
    request, stream, handle = await exam.begin(behaviour)
    _, beside, stranger = await exam.begin(other, await exam.beside())
    for each in (stream, beside):
        await each.detach()
    meant = replace(handle, identity=stranger.identity)

    events = await exam.stream(replace(request, handle=meant), await exam.restarted()).rest()

    failure(events, ErrorClass.LOST)
    expect(await exam.harness.alive(behaviour.mark), "the work of the same name was ended")
    await exam.ran_once(behaviour.mark)


async def two_executes_run_once(exam: Examination) -> None:
    """Two servers may believe for a moment that the attempt is theirs."""
    behaviour = gated()
    request = exam.request(behaviour)
    streams = [exam.stream(request), exam.stream(request, await exam.restarted())]

    readings = [asyncio.create_task(stream.rest()) for stream in streams]
    await exam.has_begun(behaviour.mark)
    await exam.harness.open(behaviour.gate)
    both = await asyncio.gather(*readings)

    await exam.ran_once(behaviour.mark)
    found = [only(Finished, events).result.outcome for events in both]
    results = [each.output for each in found if isinstance(each, Succeeded)]
    wanted = 1 if exam.lacks(Feature.ADOPTION) else 2  # the other reader may be told that it is lost
    expect(results == [behaviour.output] * wanted, f"the two came to {found!r}")


async def two_installations_do_not_collide(exam: Examination) -> None:
    """Two stores may share a cluster; attempts that are called the same are different work."""
    neighbour = await exam.harness.runtime(fresh_name("neighbour-"))
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)

    other = exam.stream(request, neighbour)
    reading = asyncio.create_task(other.rest())
    await exam.harness.open(behaviour.gate)
    theirs, ours = await reading, await stream.rest()
    await neighbour.cleanup(exam.scope(request))

    expect([output(ours), output(theirs)] == [behaviour.output] * 2, "the results are not both there")
    submitted = only(Submitted, theirs)
    expect(not submitted.adopted, "the neighbour adopted our work")
    expect(submitted.handle.name != handle.name, f"both are called {handle.name}")


async def execute_after_the_end_gives_the_same_result(exam: Examination) -> None:
    """The end may come while nobody reads."""
    behaviour = Behaviour(mark=fresh_name("m"), output={"only": "once"})
    request = exam.request(behaviour)
    first = await exam.stream(request).rest()

    handle = only(Submitted, first).handle
    again = await exam.stream(replace(request, handle=handle), await exam.restarted()).rest()

    await exam.ran_once(behaviour.mark)
    if exam.lacks(Feature.ADOPTION):
        failure(again, ErrorClass.LOST)
        return
    expect(output(again) == output(first), f"expected {output(first)!r}, found {output(again)!r}")


async def failure_is_the_same_after_the_end(exam: Examination) -> None:
    """A failure that nobody heard of is a failure still: read later, it has its class and its exit code."""
    behaviour = replace(gated(), exit_code=9)
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    await exam.harness.open(behaviour.gate)
    await exam.is_over(behaviour.mark)

    events = await exam.stream(replace(request, handle=handle), await exam.restarted()).rest()

    if exam.lacks(Feature.ADOPTION):
        failure(events, ErrorClass.LOST)
        return
    found = failure(events, ErrorClass.USER)
    expect("9" in found.name + found.message, f"the exit code 9 is not named: {found}")


async def vanished_work_is_lost(exam: Examination) -> None:
    """Work that is gone without a word has no outcome; it is neither failed nor started again behind our back."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    await exam.harness.lose(behaviour.mark, handle)
    await exam.harness.open(behaviour.gate)

    events = await exam.stream(replace(request, handle=handle), await exam.restarted()).rest()

    failure(events, ErrorClass.LOST)
    await exam.ran_once(behaviour.mark)


async def work_that_vanishes_while_read_is_lost(exam: Examination) -> None:
    """A reader must not wait for ever for work that is no more; not to know is an answer, silence is none."""
    behaviour = gated()
    _, stream, handle = await exam.begin(behaviour)
    reading = asyncio.create_task(stream.rest())

    await exam.harness.lose(behaviour.mark, handle)

    try:
        failure(await reading, ErrorClass.LOST)
    except RuntimeUnavailable:
        return  # it cannot tell yet; the control plane asks again, and hears `lost` then


async def _crash(stream: Stream, turns: int) -> None:
    """Begin to start work, and stop in the middle."""
    reading = asyncio.create_task(stream.until(lambda event: isinstance(event, Submitted)))
    for _ in range(turns):
        await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    await stream.detach()


async def _expect_one_start(exam: Examination, behaviour: Behaviour, events: list[ExecutionEvent]) -> None:
    """Expect the result of work that was started once; where adoption is not had, it may be lost instead."""
    outcome = only(Finished, events).result.outcome
    if isinstance(outcome, Failed) and exam.lacks(Feature.ADOPTION):
        failure(events, ErrorClass.LOST)
        expect(await exam.harness.begun(behaviour.mark) <= 1, "lost work was started twice")
        return
    expect(output(events) == behaviour.output, f"the result is not {behaviour.output!r}")
    await exam.ran_once(behaviour.mark)


async def _expect_adoption(exam: Examination, behaviour: Behaviour, stream: Stream) -> None:
    """Read the attempt again: the same work goes on to its result, or is honestly lost where adoption is not had."""
    reading = asyncio.create_task(stream.rest())
    await exam.harness.open(behaviour.gate)
    events = await reading
    await _expect_outcome(exam, behaviour, events)
    if not exam.lacks(Feature.ADOPTION):
        expect(only(Submitted, events).adopted, "found work is not called adopted")


async def _expect_outcome(exam: Examination, behaviour: Behaviour, events: list[ExecutionEvent]) -> None:
    await exam.ran_once(behaviour.mark)
    if exam.lacks(Feature.ADOPTION):
        failure(events, ErrorClass.LOST)
        return
    found: JSON = output(events)
    expect(found == behaviour.output, f"expected {behaviour.output!r}, found {found!r}")
