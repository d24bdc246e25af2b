"""Checks of what a runtime says: results, failures, the order of events, logs, health, capabilities. Ends nothing."""

import asyncio

from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.model.values import JSON
from flexcore.runtime.interface import (
    Finished,
    LogChunk,
    LogStream,
    PhaseEntered,
    Submitted,
)
from flexcore.testing.runtime_harness import (
    Behaviour,
    Examination,
    expect,
    expect_log,
    failure,
    fresh_name,
    logged,
    only,
    output,
    refuses_logs,
)

_QUICKLY_S = 10.0


async def success_gives_the_result(exam: Examination) -> None:
    """Results are what the next step reads."""
    value: JSON = {"count": 3, "text": "grün ✓", "nested": [1, 2.5, True, None]}

    events = await exam.run(Behaviour(output=value))

    expect(output(events) == value, f"expected {value!r}, found {output(events)!r}")


async def null_is_a_result(exam: Examination) -> None:
    """Null is JSON; it is not the same as no result."""
    events = await exam.run(Behaviour(output=None))

    expect(output(events) is None, f"expected null, found {output(events)!r}")


async def large_result_arrives(exam: Examination) -> None:
    """A result of a megabyte is ordinary."""
    value = "0123456789abcdef" * (1 << 16)

    found = output(await exam.run(Behaviour(output=value)))

    expect(found == value, f"expected {len(value)} characters, found {len(found) if isinstance(found, str) else found}")


async def failing_work_is_a_user_failure(exam: Examination) -> None:
    """What the user's code does is an outcome, not an exception, and people need the exit code."""
    found = failure(await exam.run(Behaviour(exit_code=7)), ErrorClass.USER)

    expect("7" in found.name + found.message, f"the exit code 7 is not named: {found}")


async def death_by_signal_names_the_signal(exam: Examination) -> None:
    """A signal that the step got by itself is its own failure, and not to be confused with an exit code."""
    found = failure(await exam.run(Behaviour(signal_name="SIGUSR1")), ErrorClass.USER)

    text = found.name + found.message
    expect("SIGUSR1" in text or "signal 10" in text, f"the signal is not named: {found}")


async def invalid_parameters_start_nothing(exam: Examination) -> None:
    """What cannot be right is refused before anything is started, as the step's input."""
    events = await exam.run(parameters=exam.harness.invalid_parameters())

    failure(events, ErrorClass.INPUT)
    expect(not any(isinstance(each, Submitted) for each in events), "something was submitted")


async def submitted_comes_once_and_first(exam: Examination) -> None:
    """The handle has to be known before anything else is; only waiting for a place may come before it."""
    events = await exam.run(Behaviour(stdout=b"one\n"))

    first = next(each for each in events if not (isinstance(each, PhaseEntered) and each.phase is Phase.QUEUE))
    expect(isinstance(first, Submitted), f"the first event is {type(first).__name__}")
    expect(not only(Submitted, events).adopted, "new work is called adopted")


async def finished_comes_once_and_last(exam: Examination) -> None:
    """After the end there is nothing."""
    for behaviour in (Behaviour(stdout=b"one\n"), Behaviour(exit_code=1)):
        events = await exam.run(behaviour)

        only(Finished, events)
        expect(isinstance(events[-1], Finished), f"the last event is {type(events[-1]).__name__}")


async def handle_is_named_after_the_attempt(exam: Examination) -> None:
    """A name that follows from the attempt is what finds work whose handle was never stored."""
    request = exam.request()

    handle = only(Submitted, await exam.stream(request).rest()).handle

    expected = external_name(exam.harness.installation, request.id)
    expect(handle.name == expected, f"expected {expected}, found {handle.name}")
    expect(handle.identity, "the handle has no identity")


async def log_offsets_have_no_gap(exam: Examination) -> None:
    """Offsets are how logs survive a restart; every byte has its place, from 0 on."""
    lines = b"".join(b"line %05d\n" % number for number in range(20_000))

    events = await exam.run(Behaviour(stdout=lines, stderr=b"to the other stream\n"))

    first = [each.offset for each in events if isinstance(each, LogChunk) and each.stream is LogStream.STDOUT][:1]
    if refuses_logs(exam, events):
        return
    expect(first == [0], f"the first offset is {first}")
    expect_log(events, LogStream.STDOUT, lines)
    expect(b"to the other stream" in logged(events, LogStream.STDERR), "stderr is not in the logs")


async def logs_are_bytes(exam: Examination) -> None:
    """Output is neither decoded nor mended: unicode and binary arrive as they are."""
    data = "grün ✓ 漢字\n".encode() + bytes(range(256)) + b"\r\n\xff\xfe no newline at the end"

    events = await exam.run(Behaviour(stdout=data))

    if not refuses_logs(exam, events):
        expect_log(events, LogStream.STDOUT, data)


async def health_answers_in_time(exam: Examination) -> None:
    """Placement waits for nobody."""
    async with asyncio.timeout(_QUICKLY_S):
        status = await exam.runtime.health()

    expect(status.reason.strip(), "the status has no reason for a person")
    expect(status.checked_at.tzinfo is not None, "checked_at has no time zone")


async def capabilities_are_sane(exam: Examination) -> None:
    """Placement relies on them alone."""
    async with asyncio.timeout(_QUICKLY_S):
        found = await exam.runtime.capabilities()

    expect(exam.harness.kind in found.step_kinds, f"{exam.harness.kind.value} is not among the kinds")
    expect(all(why.strip() for why in found.unsupported.values()), "an unsupported feature has no reason")
    limits = (found.limits.cpu, found.limits.memory, found.limits.slots)
    expect(all(each is None or each > 0 for each in limits), f"limits must be positive or absent: {found.limits}")


async def secrets_stay_inside(exam: Examination) -> None:
    """Handles and failures are stored for ever and shown to many."""
    secret = fresh_name("s3cr3t-")
    for behaviour in (Behaviour(output="done"), Behaviour(exit_code=3)):
        events = await exam.run(behaviour, env={"TOKEN": secret}, secrets=(secret,))

        leaking = [type(each).__name__ for each in events if secret in repr(each)]
        expect(not leaking, f"the secret is in {', '.join(leaking)}")
