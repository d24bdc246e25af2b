"""Checks of what a runtime says: the order of events, figures, health, capabilities, secrets. Ends nothing."""

import asyncio
import math
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Phase, Usage
from flexcore.model.ids import external_name
from flexcore.runtime.interface import (
    Capabilities,
    ExecutionEvent,
    Failed,
    Feature,
    Finished,
    Health,
    HealthStatus,
    LogChunk,
    MetricSample,
    PhaseEntered,
    Progress,
    Runtime,
    Submitted,
)
from flexcore.testing.runtime_examination import Examination, only, output
from flexcore.testing.runtime_harness import Behaviour, CheckFailed, expect, fresh_name, gated

_ASKED_AT_ONCE = 10


async def submitted_comes_once_and_first(exam: Examination) -> None:
    """The handle has to be known before anything else is; only waiting for a place may come before it."""
    events = await exam.run(Behaviour(stdout=b"one\n"))

    first = next(each for each in events if not (isinstance(each, PhaseEntered) and each.phase is Phase.QUEUE))
    expect(isinstance(first, Submitted), f"the first event is {type(first).__name__}")
    expect(not only(Submitted, events).adopted, "new work is called adopted")


async def finished_comes_once_and_last(exam: Examination) -> None:
    """After the end there is nothing."""
    events = await exam.run(Behaviour(stdout=b"one\n", exit_code=1))

    only(Finished, events)
    expect(isinstance(events[-1], Finished), f"the last event is {type(events[-1]).__name__}")


async def handle_is_named_after_the_attempt(exam: Examination) -> None:
    """A name that follows from the attempt is what finds work whose handle was never stored."""
    request = exam.request()

    handle = only(Submitted, await exam.stream(request).rest()).handle

    expected = external_name(exam.harness.installation, request.id)
    expect(handle.name == expected, f"expected {expected}, found {handle.name}")
    expect(handle.identity, "the handle has no identity")


async def usage_is_told(exam: Examination) -> None:
    """Runtimes are compared by what work used on them: figures that are there are right, and none is made up."""
    usage = only(Finished, await exam.run(Behaviour(output={"a": 1}))).result.usage

    if exam.lacks(Feature.USAGE):
        expect(usage == Usage(), f"usage is unsupported, and there is some: {usage}")
        return
    figures = [usage.cpu_s, usage.peak_memory_bytes, usage.bytes_in, usage.bytes_out, usage.rows]
    expect(any(each is not None for each in figures), "usage is supported, and there is no figure")
    wrong = [each for each in figures if each is not None and not 0 <= each < math.inf]
    expect(not wrong, f"no such usage: {usage}")


async def phases_are_in_order(exam: Examination) -> None:
    """People ask what a step waited for; and where work is prepared first, its time limit runs from the `run` phase."""
    events = await exam.run(Behaviour(output={"a": 1}))

    entered = [each for each in events if isinstance(each, PhaseEntered)]
    times = [each.at for each in entered]
    expect(all(_is_aware(each) for each in times), f"a phase was entered at a time without zone: {times}")
    expect(times == sorted(times), f"the phases are not in the order of their times: {entered}")
    spans = only(Finished, events).result.phases
    expect(all(each >= timedelta(0) for each in spans.values()), f"a phase took less than no time: {spans}")
    if only(Submitted, events).prepares:
        expect(any(each.phase is Phase.RUN for each in entered), "it prepares, and never says that the work begins")


async def samples_are_sane(exam: Examination) -> None:
    """Figures of running work are drawn and added up."""
    events = await exam.run(Behaviour(stdout=b"something\n", output={"a": 1}))

    for event in events:
        match event:
            case MetricSample():
                expect(event.name and math.isfinite(event.value), f"no figure to draw: {event}")
            case Progress():
                fraction = event.fraction
                expect(fraction is None or 0 <= fraction <= 1, f"no such fraction: {event}")
            case LogChunk():
                expect(event.data, "a piece of log is empty")


async def health_answers_in_time(exam: Examination) -> None:
    """Placement waits for nobody."""
    status = await exam.soon(exam.runtime.health(), "health")

    _expect_status(status)
    expect(status.state is not Health.DOWN, f"the runtime under examination is down: {status.reason}")


async def health_answers_beside_work(exam: Examination) -> None:
    """A runtime that works is not down: being busy delays no answer, and many may ask at once."""
    _, stream, _ = await exam.begin(gated())

    asked = asyncio.gather(*(exam.runtime.health() for _ in range(_ASKED_AT_ONCE)))
    statuses = await exam.soon(asked, "health, asked beside running work,")

    down = [each.reason for each in statuses if each.state is Health.DOWN]
    expect(not down, f"down while it works: {down}")
    await stream.detach()


async def health_is_true_when_unreachable(exam: Examination) -> None:
    """Placement sends work to what says that it is up, so who cannot be reached must not; and must say so in time."""
    runtime = await exam.harness.unreachable()

    status = await exam.soon(runtime.health(), "health of an unreachable runtime")

    _expect_status(status)
    if status.state is Health.UP:
        result = await _refusal(exam, runtime)
        expect(result is None, f"it says that it is up ({status.reason}), and then: {result}")


async def unreachable_runtime_says_what_to_do(exam: Examination) -> None:
    """Nothing was started, the outcome is not made up, and whoever has to mend it reads how."""
    runtime = await exam.harness.unreachable()

    refusal = await _refusal(exam, runtime)

    if refusal is not None:
        message, hint = refusal
        expect(message.strip(), "there is no message")
        expect(hint.strip(), f"there is no hint what to do: {message}")


async def capabilities_are_sane(exam: Examination) -> None:
    """Placement relies on them alone."""
    found = await exam.soon(exam.runtime.capabilities(), "capabilities")

    expect(exam.harness.kind in found.step_kinds, f"{exam.harness.kind.value} is not among the kinds")
    limits = (found.limits.cpu, found.limits.memory, found.limits.slots)
    expect(all(each is None or each > 0 for each in limits), f"limits must be positive or absent: {found.limits}")


async def unsupported_features_have_reasons(exam: Examination) -> None:
    """Who misses a feature wants to know whether it will ever come."""
    found = await exam.soon(exam.runtime.capabilities(), "capabilities")

    silent = [feature.value for feature, why in found.unsupported.items() if not why.strip()]
    expect(not silent, f"no reason is given for {', '.join(silent)}")


async def capabilities_stay_the_same(exam: Examination) -> None:
    """What was placed by one answer is judged by the next one, of another instance perhaps."""
    runtimes = [exam.runtime, exam.runtime, await exam.restarted()]

    found = [_lasting(await exam.soon(each.capabilities(), "capabilities")) for each in runtimes]

    expect(found[0] == found[1] == found[2], f"asked three times, it said {found}")


async def secrets_stay_inside(exam: Examination) -> None:
    """Handles, figures and phases are stored for ever and shown to many."""
    secret = fresh_name("s3cr3t-")

    events = await exam.run(Behaviour(output={"a": 1}), env={"TOKEN": secret}, secrets=(secret,))

    leaking = [type(each).__name__ for each in events if secret in repr(each)]
    expect(not leaking, f"the secret is in {', '.join(leaking)}")


async def failures_hide_secrets(exam: Examination) -> None:
    """Work that fails likes to print what it was given, and failures quote its last words."""
    secret = fresh_name("s3cr3t-")
    behaviour = Behaviour(stderr=f"cannot log in with {secret}\n".encode(), exit_code=3)

    events = await exam.run(behaviour, env={"TOKEN": secret}, secrets=(secret,))

    result = only(Finished, events).result
    expect(isinstance(result.outcome, Failed), "the work did not fail")
    expect(secret not in repr(result), "the failure quotes the secret")


async def secrets_are_not_shown(exam: Examination) -> None:
    """Command lines and descriptions can be read by everybody on the machine or the cluster."""
    secret, behaviour = fresh_name("s3cr3t-"), gated()
    _, stream, _ = await exam.begin(behaviour, env={"TOKEN": secret}, secrets=(secret,))

    places = await exam.harness.shown(secret)

    await stream.detach()
    expect(not places, f"while work runs, its secret can be read in {', '.join(places)}")


async def secrets_are_not_kept(exam: Examination) -> None:
    """What stays behind is backed up, copied and forgotten: no secret may outlive its attempt."""
    secret = fresh_name("s3cr3t-")
    request = exam.request(Behaviour(output={"a": 1}), env={"TOKEN": secret}, secrets=(secret,))
    events = await exam.stream(request).rest()
    await exam.cleaned(exam.scope(request, only(Submitted, events).handle))

    places = await exam.harness.kept(secret)

    expect(not places, f"after the attempt, its secret still stands in {', '.join(places)}")


async def our_environment_stays_here(exam: Examination) -> None:
    """The control plane's own variables hold its keys and passwords; a step is given what is meant for it."""
    name = fresh_name("FLEXCORE_OWN_").upper()
    with _variable(name):
        runtime = await exam.restarted()
        events = await exam.stream(exam.request(Behaviour(tells_env=name)), runtime).rest()

    expect(output(events) == {"hex": None}, f"the work could read {name} of the control plane")


def _expect_status(status: HealthStatus) -> None:
    expect(status.reason.strip(), "the status has no reason for a person")
    expect(_is_aware(status.checked_at), "checked_at has no time zone")


async def _refusal(exam: Examination, runtime: Runtime) -> tuple[str, str] | None:
    """Give message and hint with which work is refused, which must not have begun; None when it ran."""
    behaviour = Behaviour(mark=fresh_name("m"), output={"a": 1})
    try:
        events: list[ExecutionEvent] = await exam.stream(exam.request(behaviour), runtime).rest()
    except RuntimeUnavailable as error:
        refusal = error.message, error.hint
    else:
        outcome = only(Finished, events).result.outcome
        if not isinstance(outcome, Failed):
            return None
        refusal = outcome.failure.message, outcome.failure.hint
    if await exam.harness.begun(behaviour.mark):
        raise CheckFailed(f"the work began, and is said to be refused: {refusal[0]}")
    return refusal


def _lasting(found: Capabilities) -> tuple[frozenset[str], Mapping[Feature, str], frozenset[str]]:
    return frozenset(each.value for each in found.step_kinds), dict(found.unsupported), found.tags


def _is_aware(at: datetime) -> bool:
    return at.tzinfo is not None


@contextmanager
def _variable(name: str) -> Iterator[None]:
    os.environ[name] = "ours alone"
    try:
        yield
    finally:
        del os.environ[name]
