"""Checks of what becomes of work that nobody reads, that is found again, ended or lost. All of it leaves nothing."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupReport,
    Feature,
    LogChunk,
    LogStream,
    Submitted,
    Survey,
)
from flexcore.testing.runtime_harness import (
    Behaviour,
    Examination,
    Stream,
    eventually,
    expect,
    expect_log,
    failure,
    fresh_name,
    only,
    output,
    refuses_logs,
)

_SHORT = timedelta(seconds=0.5)


async def closing_detaches(exam: Examination) -> None:
    """Stopping to read is not cancelling: the control plane may stop at any time."""
    behaviour = _gated()
    request, stream, _ = await exam.begin(behaviour)

    await stream.detach()

    expect(await exam.harness.alive(behaviour.mark), "the work ended with the reading")
    await _expect_adoption(exam, behaviour, exam.stream(request))


async def adopted_by_handle(exam: Examination) -> None:
    """After a restart, the stored handle finds the work, which is not started again."""
    behaviour = _gated()
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()

    again = exam.stream(replace(request, handle=handle), await exam.restarted())

    await _expect_adoption(exam, behaviour, again)


async def adopted_by_name(exam: Examination) -> None:
    """A crash between the start and the storing of the handle must not double the work."""
    behaviour = _gated()
    request, stream, _ = await exam.begin(behaviour)
    await stream.detach()

    again = exam.stream(request, await exam.restarted())

    await _expect_adoption(exam, behaviour, again)


async def adoption_repeats_no_log_byte(exam: Examination) -> None:
    """Logs go on where the store has them."""
    behaviour = replace(_gated(), stdout=b"before the restart\n", output=None)
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    await exam.harness.open(behaviour.gate)
    offsets = {LogStream.STDOUT: 7}

    events = await exam.stream(replace(request, handle=handle, log_offsets=offsets), await exam.restarted()).rest()

    if Feature.ADOPTION in exam.unsupported or refuses_logs(exam, events):
        return
    starts = 0 if Feature.LOG_OFFSETS in exam.unsupported else 7
    chunks = [each for each in events if isinstance(each, LogChunk) and each.stream is LogStream.STDOUT]
    first = chunks[0].offset if chunks else None
    expect(first == starts, f"expected the logs from offset {starts} on, they begin at {first}")
    expect_log(events, LogStream.STDOUT, behaviour.stdout[starts:])


async def two_executes_run_once(exam: Examination) -> None:
    """Two servers may believe for a moment that the attempt is theirs."""
    behaviour = _gated()
    request = exam.request(behaviour)
    streams = [exam.stream(request), exam.stream(request, await exam.restarted())]

    readings = [asyncio.create_task(stream.rest()) for stream in streams]
    await exam.has_begun(behaviour.mark)
    await exam.harness.open(behaviour.gate)
    results = [output(events) for events in await asyncio.gather(*readings)]

    expect(results == [behaviour.output] * 2, f"the results are {results!r}")
    expect(await exam.harness.begun(behaviour.mark) == 1, "the work ran twice")


async def execute_after_the_end_gives_the_same_result(exam: Examination) -> None:
    """The end may come while nobody reads."""
    behaviour = Behaviour(mark=fresh_name("m"), output={"only": "once"})
    request = exam.request(behaviour)
    first = await exam.stream(request).rest()

    handle = only(Submitted, first).handle
    again = await exam.stream(replace(request, handle=handle), await exam.restarted()).rest()

    if Feature.ADOPTION in exam.unsupported:
        failure(again, ErrorClass.LOST)
    else:
        expect(output(again) == output(first), f"expected {output(first)!r}, found {output(again)!r}")
    expect(await exam.harness.begun(behaviour.mark) == 1, "the work ran twice")


async def cleanup_asks_before_it_kills(exam: Examination) -> None:
    """Cancelling gives work the grace to put its things in order, and is the end of the attempt."""
    behaviour = _gated()
    request, stream, handle = await exam.begin(behaviour)

    reading = asyncio.create_task(stream.rest())
    await _cleaned(exam, AttemptScope(id=request.id, handle=handle, grace=timedelta(seconds=20)))

    failure(await reading, ErrorClass.CANCELLED)
    told = await exam.harness.told_to_end(behaviour.mark)
    supported = Feature.CANCEL_GRACE not in exam.unsupported
    expect(told is supported, f"the work was {'' if told else 'not '}told, the capability says otherwise")
    await exam.is_over(behaviour.mark)


async def cleanup_kills_after_the_grace(exam: Examination) -> None:
    """Work that will not end is ended."""
    behaviour = replace(_gated(), ignores_term=True)
    request, stream, handle = await exam.begin(behaviour)

    reading = asyncio.create_task(stream.rest())
    await _cleaned(exam, AttemptScope(id=request.id, handle=handle, grace=_SHORT))

    failure(await reading, ErrorClass.CANCELLED)
    await exam.is_over(behaviour.mark)


async def cleanup_is_idempotent(exam: Examination) -> None:
    """A cancel is sent until it is confirmed, so it comes more than once."""
    behaviour = _gated()
    request, stream, handle = await exam.begin(behaviour)
    scope = AttemptScope(id=request.id, handle=handle, grace=timedelta(seconds=5))

    reports = [await _cleaned(exam, scope) for _ in range(2)]
    await stream.detach()

    expect(reports[0].gone == reports[1].gone, f"first {set(reports[0].gone)}, then {set(reports[1].gone)}")


async def cleanup_of_the_unknown_is_gone(exam: Examination) -> None:
    """What was never started, or was removed long ago, is gone; a cancel must be able to end."""
    request = exam.request()

    report = await exam.runtime.cleanup(AttemptScope(id=request.id))

    name = external_name(exam.harness.installation, request.id)
    expect(report.gone == {name}, f"expected {name} to be gone: {report}")
    expect(not report.pending and not report.unknown, f"nothing is pending or unknown: {report}")


async def cleanup_ends_the_whole_tree(exam: Examination) -> None:
    """Children that went into a session of their own are the step's as well."""
    behaviour = replace(_gated(), child=True)
    request, stream, handle = await exam.begin(behaviour)

    await _cleaned(exam, AttemptScope(id=request.id, handle=handle, grace=_SHORT))
    await stream.detach()

    await exam.is_over(behaviour.mark)


async def vanished_work_is_lost(exam: Examination) -> None:
    """Work that is gone without a word has no outcome; it is neither failed nor started again behind our back."""
    behaviour = _gated()
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    await exam.harness.lose(behaviour.mark, handle)
    await exam.harness.open(behaviour.gate)

    events = await exam.stream(replace(request, handle=handle), await exam.restarted()).rest()

    failure(events, ErrorClass.LOST)
    expect(await exam.harness.begun(behaviour.mark) == 1, "the work was started again")


async def survey_lists_what_runs_here(exam: Examination) -> None:
    """Orphans are found by what the runtime says carries our label; a neighbour's work must never be in it."""
    neighbour = await exam.harness.runtime(fresh_name("neighbour-"))
    mine, theirs = _gated(), _gated()
    request, stream, handle = await exam.begin(mine)
    other = exam.request(theirs)
    beside = exam.stream(other, neighbour)
    await beside.until(lambda event: isinstance(event, Submitted))
    await exam.has_begun(theirs.mark)

    report = await exam.runtime.cleanup(Survey(exam.harness.installation))

    for each in (stream, beside):
        await each.detach()
    await neighbour.cleanup(AttemptScope(id=other.id, grace=timedelta(0)))
    if Feature.SURVEY in exam.unsupported:
        expect(not report.pending and report.unknown, f"an unsupported survey says so in `unknown`: {report}")
        return
    expect(report.pending == {handle.name}, f"expected {handle.name} alone: {report}")
    expect(report.attempts.get(handle.name) == request.id, f"expected attempt {request.id}: {report}")
    expect(await exam.harness.alive(mine.mark), "the survey ended what it listed")


def _gated() -> Behaviour:
    """Work that waits until it is let go."""
    mark = fresh_name("m")
    return Behaviour(mark=mark, gate=mark, output={"mark": mark})


async def _expect_adoption(exam: Examination, behaviour: Behaviour, stream: Stream) -> None:
    """Read the attempt again: the same work goes on to its result, or is honestly lost where adoption is not had."""
    reading = asyncio.create_task(stream.rest())
    await exam.harness.open(behaviour.gate)
    events = await reading
    expect(await exam.harness.begun(behaviour.mark) == 1, "the work was started again")
    if Feature.ADOPTION in exam.unsupported:
        failure(events, ErrorClass.LOST)
        return
    expect(output(events) == behaviour.output, f"expected {behaviour.output!r}, found {output(events)!r}")
    expect(only(Submitted, events).adopted, "found work is not called adopted")


async def _cleaned(exam: Examination, scope: AttemptScope) -> CleanupReport:
    """Clean up until it is confirmed, as the control plane does."""
    name = external_name(exam.harness.installation, scope.id)
    reports: list[CleanupReport] = []

    async def confirmed() -> bool:
        reports.append(await exam.runtime.cleanup(scope))
        expect(name not in reports[-1].unknown, f"cleanup cannot tell: {reports[-1]}")
        return name in reports[-1].gone

    await eventually(confirmed, "cleanup confirms that the work is gone")
    return reports[-1]
