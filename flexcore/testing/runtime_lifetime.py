"""Checks of how work is ended and looked for: cleanup, its scopes, process trees, surveys. All of it leaves nothing."""

import asyncio
from dataclasses import replace
from datetime import timedelta

from flexcore.model.failure import ErrorClass
from flexcore.model.ids import StepPath
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupReport,
    ExecutionScope,
    Failed,
    Feature,
    Finished,
    Submitted,
    Survey,
)
from flexcore.testing.runtime_examination import Examination, failure, only
from flexcore.testing.runtime_harness import Behaviour, expect, fresh_name, gated

_LONG_S = 60.0


async def cleanup_asks_before_it_kills(exam: Examination) -> None:
    """Cancelling gives work the grace to put its things in order, and is the end of the attempt."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)

    reading = asyncio.create_task(stream.rest())
    await exam.cleaned(exam.scope(request, handle, grace_s=20))

    failure(await reading, ErrorClass.CANCELLED)
    told = await exam.harness.told_to_end(behaviour.mark)
    supported = not exam.lacks(Feature.CANCEL_GRACE)
    expect(told is supported, f"the work was {'' if told else 'not '}told, the capability says otherwise")
    await exam.is_over(behaviour.mark)


async def cleanup_kills_after_the_grace(exam: Examination) -> None:
    """Work that will not end is ended."""
    behaviour = replace(gated(), ignores_term=True)
    request, stream, handle = await exam.begin(behaviour)

    reading = asyncio.create_task(stream.rest())
    await exam.cleaned(exam.scope(request, handle))

    failure(await reading, ErrorClass.CANCELLED)
    await exam.is_over(behaviour.mark)


async def harsher_cleanup_overtakes(exam: Examination) -> None:
    """Who cancelled politely may lose patience: a second cancel with less grace does not wait for the first."""
    behaviour = replace(gated(), ignores_term=True)
    request, stream, handle = await exam.begin(behaviour)
    polite = asyncio.create_task(exam.runtime.cleanup(exam.scope(request, handle, grace_s=_LONG_S)))
    await asyncio.sleep(0)

    await exam.cleaned(exam.scope(request, handle, grace_s=0), await exam.beside())

    await exam.is_over(behaviour.mark)
    polite.cancel()
    await asyncio.gather(polite, return_exceptions=True)
    await stream.detach()


async def cleanup_is_idempotent(exam: Examination) -> None:
    """A cancel is sent until it is confirmed, so it comes more than once."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)
    scope = exam.scope(request, handle, grace_s=5)

    reports = [await exam.cleaned(scope) for _ in range(2)]
    await stream.detach()

    expect(reports[0].gone == reports[1].gone, f"first {set(reports[0].gone)}, then {set(reports[1].gone)}")


async def cleanup_of_the_unknown_is_gone(exam: Examination) -> None:
    """What was never started, or was removed long ago, is gone; a cancel must be able to end."""
    request = exam.request()

    report = await exam.runtime.cleanup(AttemptScope(id=request.id))

    name = exam.name_of(request)
    expect(report.gone == {name}, f"expected {name} to be gone: {report}")
    expect(not report.pending and not report.unknown, f"nothing is pending or unknown: {report}")


async def cleanup_by_name_alone(exam: Examination) -> None:
    """A cancel may come before the handle was stored, and from another server than the one that started the work."""
    behaviour = gated()
    request, stream, _ = await exam.begin(behaviour)
    await stream.detach()

    await exam.cleaned(exam.scope(request), await exam.beside())

    await exam.is_over(behaviour.mark)


async def cleanup_after_the_end(exam: Examination) -> None:
    """The control plane tidies up behind every attempt, also behind those that ended well, and late."""
    request = exam.request(Behaviour(output={"a": 1}))
    handle = only(Submitted, await exam.stream(request).rest()).handle

    report = await exam.cleaned(exam.scope(request, handle), await exam.beside())

    expect(not report.pending, f"nothing is pending after the end: {report}")
    left = await exam.runtime.cleanup(Survey(exam.harness.installation))
    expect(handle.name not in left.pending, f"{handle.name} is still listed after its cleanup")


async def cleaned_up_work_is_not_started_again(exam: Examination) -> None:
    """Who comes back with the handle of work that was ended must not set it off once more."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    await exam.cleaned(exam.scope(request, handle, grace_s=5))
    await exam.harness.open(behaviour.gate)

    events = await exam.stream(replace(request, handle=handle), await exam.beside()).rest()

    await exam.ran_once(behaviour.mark)
    outcome = only(Finished, events).result.outcome
    ended = (ErrorClass.LOST, ErrorClass.CANCELLED)
    expect(isinstance(outcome, Failed) and outcome.failure.error_class in ended, f"ended work came to {outcome}")


async def cleanup_ends_the_whole_tree(exam: Examination) -> None:
    """Children that went into a session of their own are the step's as well."""
    behaviour = replace(gated(), child=True)
    request, stream, handle = await exam.begin(behaviour)

    await exam.cleaned(exam.scope(request, handle))
    await stream.detach()

    await exam.is_over(behaviour.mark)


async def children_end_with_the_work(exam: Examination) -> None:
    """A process that a step left behind would run beside the next attempt, and nobody would know of it."""
    behaviour = Behaviour(mark=fresh_name("m"), child=True)

    await exam.run(behaviour)

    await exam.is_over(behaviour.mark)


async def execution_scope_ends_all_of_it(exam: Examination) -> None:
    """At the end of an execution everything of it goes, and nothing of any other."""
    mine, later, other = gated(), gated(), gated()
    request, first, _ = await exam.begin(mine)
    sibling = replace(request.id, path=StepPath("sibling"))
    _, second, _ = await exam.begin(later, await exam.beside(), id=sibling)
    _, third, _ = await exam.begin(other, await exam.beside())

    await exam.cleaned_all(ExecutionScope(execution=request.id.execution, grace=timedelta(seconds=5)))

    for behaviour in (mine, later):
        await exam.is_over(behaviour.mark)
    expect(await exam.harness.alive(other.mark), "the work of another execution was ended")
    for stream in (first, second, third):
        await stream.detach()


async def foreign_installation_is_left_alone(exam: Examination) -> None:
    """Another store's control plane may know the same ids; what it ends must be its own."""
    behaviour = gated()
    request, stream, handle = await exam.begin(behaviour)
    neighbour = await exam.harness.runtime(fresh_name("neighbour-"))

    await neighbour.cleanup(exam.scope(request, grace_s=0))
    await neighbour.cleanup(ExecutionScope(execution=request.id.execution, grace=timedelta(0)))
    listed = await neighbour.cleanup(Survey(exam.harness.installation))

    expect(await exam.harness.alive(behaviour.mark), "a neighbour's cleanup ended our work")
    if not exam.lacks(Feature.SURVEY):
        expect(await _is_listed(exam, handle.name), "a neighbour's cleanup made our work unknown")
    expect(set(listed.pending) <= {handle.name}, f"a neighbour is told of {set(listed.pending)}")
    await stream.detach()


async def survey_lists_what_runs_here(exam: Examination) -> None:
    """Orphans are found by what the runtime says carries our label; a neighbour's work must never be in it."""
    neighbour = await exam.harness.runtime(fresh_name("neighbour-"))
    mine, theirs = gated(), gated()
    request, stream, handle = await exam.begin(mine)
    other, beside, _ = await exam.begin(theirs, neighbour)

    report = await exam.runtime.cleanup(Survey(exam.harness.installation))

    for each in (stream, beside):
        await each.detach()
    await neighbour.cleanup(exam.scope(other, grace_s=0))
    if exam.lacks(Feature.SURVEY):
        _expect_refusal(report)
        return
    expect(report.pending == {handle.name}, f"expected {handle.name} alone: {report}")
    expect(report.attempts.get(handle.name) == request.id, f"expected attempt {request.id}: {report}")
    expect(await exam.harness.alive(mine.mark), "the survey ended what it listed")


async def survey_finds_what_a_dead_server_left(exam: Examination) -> None:
    """What is listed can be ended with nothing but what the list says, and is not listed any more."""
    behaviour = gated()
    _, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    later = await exam.beside()

    report = await later.cleanup(Survey(exam.harness.installation))

    if exam.lacks(Feature.SURVEY):
        _expect_refusal(report)
        return
    expect(handle.name in report.attempts, f"{handle.name} is not listed with its attempt: {report}")
    await exam.cleaned(AttemptScope(id=report.attempts[handle.name], grace=timedelta(seconds=5)), later)
    await exam.is_over(behaviour.mark)
    expect(not await _is_listed(exam, handle.name), "ended work is still listed")


async def _is_listed(exam: Examination, name: str) -> bool:
    report = await exam.runtime.cleanup(Survey(exam.harness.installation))
    return name in report.pending


def _expect_refusal(report: CleanupReport) -> None:
    expect(not report.pending and report.unknown, f"an unsupported survey says so in `unknown`: {report}")
