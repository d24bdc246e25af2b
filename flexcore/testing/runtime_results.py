"""Checks of what work is given and what it comes to: parameters, surroundings, results, failures, limits."""

import asyncio
import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from flexcore.model.failure import ErrorClass
from flexcore.model.values import JSON
from flexcore.model.workflow import Requirements, StepKind
from flexcore.runtime.interface import Failed, Feature, Finished, LogStream, PhaseEntered, Submitted
from flexcore.testing.runtime_examination import Examination, failure, logged, only, output, refuses_logs
from flexcore.testing.runtime_harness import WRONG_PARAMETER, Behaviour, expect, fresh_name, gated

_AT_ONCE = 5


async def success_gives_the_result(exam: Examination) -> None:
    """Results are what the next step reads."""
    value: JSON = {"count": 3, "text": "grün ✓", "nested": [1, 2.5, True, None]}

    events = await exam.run(Behaviour(output=value))

    expect(output(events) == value, f"expected {value!r}, found {output(events)!r}")


async def null_is_a_result(exam: Examination) -> None:
    """Null is JSON; it is not the same as no result."""
    events = await exam.run(Behaviour(output=None))

    expect(output(events) is None, f"expected null, found {output(events)!r}")


async def json_types_are_kept(exam: Examination) -> None:
    """An expression that compares 1 with true, or loses the last digits of an id, takes the wrong branch."""
    value: JSON = {"int": 1, "float": 1.0, "bool": True, "id": 2**53 + 1, "none": None, "list": [], "map": {}, "": " "}

    found = output(await exam.run(Behaviour(output=value)))

    expected, seen = json.dumps(value, sort_keys=True), json.dumps(found, sort_keys=True)
    expect(seen == expected, f"expected {expected}, found {seen}")


async def large_result_arrives(exam: Examination) -> None:
    """A result of a megabyte is ordinary."""
    value = "0123456789abcdef" * (1 << 16)

    found = output(await exam.run(Behaviour(output=value)))

    expect(found == value, f"expected {len(value)} characters, found {len(found) if isinstance(found, str) else found}")


async def huge_result_arrives_or_is_refused(exam: Examination) -> None:
    """A result above ten megabytes may be too much, but is never cut off or passed over in silence."""
    value = "0123456789abcdef" * (11 << 16)

    outcome = only(Finished, await exam.run(Behaviour(output=value))).result.outcome

    if isinstance(outcome, Failed):
        expect(outcome.failure.hint, f"the refusal has no hint of what to do instead: {outcome.failure}")
        return
    length = len(outcome.output) if isinstance(outcome.output, str) else -1
    expect(outcome.output == value, f"expected {len(value)} characters, found {length}")


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


async def invalid_parameters_are_named(exam: Examination) -> None:
    """Who wrote the step has to find the line."""
    outcome = only(Finished, await exam.run(parameters=exam.harness.invalid_parameters())).result.outcome

    text = str(outcome)
    expect(WRONG_PARAMETER in text, f"the failure does not name {WRONG_PARAMETER}: {text}")


async def foreign_kind_is_refused(exam: Examination) -> None:
    """A step that came to the wrong runtime is the step's own mistake; it is not a crash of the adapter."""
    able = (await exam.runtime.capabilities()).step_kinds
    foreign = next((kind for kind in StepKind if kind not in able), None)
    if foreign is None:
        return  # there is none: it can run them all

    events = await exam.run(kind=foreign)

    failure(events, ErrorClass.INPUT)
    expect(not any(isinstance(each, Submitted) for each in events), "something was submitted")


async def large_parameters_arrive(exam: Examination) -> None:
    """Parameters hold queries, manifests and lists, not words alone."""
    size = 100_000

    found = output(await exam.run(Behaviour(carries=size)))

    expect(found == {"length": size}, f"expected {size} characters to arrive, found {found!r}")


async def environment_arrives(exam: Examination) -> None:
    """`env` is how values reach code, and any text is a value: quotes, line ends, other alphabets."""
    value = "grün 'one' \"two\" $HOME `id` \\\n漢字 "

    found = output(await exam.run(Behaviour(tells_env="FLEXCORE_CHECK"), env={"FLEXCORE_CHECK": value}))

    expect(found == {"hex": value.encode().hex()}, f"expected {value!r}, found {_text(found)}")


async def files_of_the_workflow_are_there(exam: Examination) -> None:
    """`file:` and relative paths are meant from the workflow's folder, and a file is bytes."""
    name, content = fresh_name("file-"), b"a line\r\n\x00\xff no end"
    await exam.harness.put(name, content)

    found = output(await exam.run(Behaviour(tells_file=name)))

    expect(found == {"hex": content.hex()}, f"expected {content!r}, found {_text(found)}")


async def many_at_once_do_not_mix(exam: Examination) -> None:
    """Steps run side by side; each has its own result and its own log."""
    wanted = [Behaviour(stdout=b"%d\n" % number, output={"number": number}) for number in range(_AT_ONCE)]

    runs = await asyncio.gather(*(exam.run(each) for each in wanted))

    found = [output(events) for events in runs]
    expect(found == [each.output for each in wanted], f"the results are {found!r}")
    for events, behaviour in zip(runs, wanted, strict=True):
        if not refuses_logs(exam, events):
            expect(behaviour.stdout in logged(events, LogStream.STDOUT), "somebody else's log")


async def slots_are_kept(exam: Examination) -> None:
    """Work above the limit waits, says so, and can be given up; below the limit it does not wait."""
    slots = (await exam.runtime.capabilities()).limits.slots
    is_small = slots is not None and slots <= _AT_ONCE
    busy = [gated() for _ in range(slots if slots is not None and is_small else _AT_ONCE - 1)]
    streams = [stream for _, stream, _ in await asyncio.gather(*(exam.begin(each) for each in busy))]
    if is_small:
        await _expect_waiting(exam)
    for each in streams:
        await each.detach()


async def next_attempt_is_new_work(exam: Examination) -> None:
    """A retry runs again: the result of the attempt before must not answer for it."""
    behaviour = Behaviour(mark=fresh_name("m"), output={"a": 1})
    first = exam.request(behaviour)
    second = replace(first, id=replace(first.id, number=2), token=2)
    exam.attempts.append(second.id)

    names = [only(Submitted, await exam.stream(each).rest()).handle.name for each in (first, second)]

    expect(names[0] != names[1], f"both attempts are called {names[0]}")
    count = await exam.harness.begun(behaviour.mark)
    expect(count == 2, f"two attempts began {count} times")


async def deadline_ends_work(exam: Examination) -> None:
    """The control plane may be gone when time is up: the deadline in the request holds without it."""
    behaviour = gated()
    request = exam.request(behaviour, deadline=datetime.now(UTC) + timedelta(seconds=1))

    events = await exam.stream(request).rest()

    failure(events, ErrorClass.TIMEOUT)
    await exam.is_over(behaviour.mark)


async def deadline_ends_work_that_ignores_it(exam: Examination) -> None:
    """Work that will not end when asked is killed after the grace, also by the backstop."""
    behaviour = replace(gated(), ignores_term=True)
    until, grace = datetime.now(UTC) + timedelta(seconds=1), timedelta(seconds=0.3)

    events = await exam.stream(exam.request(behaviour, deadline=until, grace=grace)).rest()

    failure(events, ErrorClass.TIMEOUT)
    await exam.is_over(behaviour.mark)


async def memory_limit_is_kept(exam: Examination) -> None:
    """One step must not take the machine from all others, and its author has to know why it died."""
    behaviour = Behaviour(memory_bytes=640 << 20, output={"done": True})

    events = await exam.run(behaviour, requirements=Requirements(memory=400 << 20))

    if exam.lacks(Feature.RESOURCE_LIMITS):
        expect(output(events) == behaviour.output, "a limit is unsupported, and something ended the work")
        return
    found = failure(events, ErrorClass.OOM)
    expect("memory" in f"{found.message} {found.hint}", f"neither message nor hint speaks of memory: {found}")


async def _expect_waiting(exam: Examination) -> None:
    behaviour = gated()
    request = exam.request(behaviour)
    stream = exam.stream(request)
    await stream.until(lambda event: isinstance(event, PhaseEntered | Submitted))
    expect(isinstance(stream.events[0], PhaseEntered), "above the limit of slots, and not queued")
    reading = asyncio.create_task(stream.rest())
    await asyncio.sleep(0)  # it reads on, as the control plane does
    await exam.runtime.cleanup(exam.scope(request))
    failure(await reading, ErrorClass.CANCELLED)
    expect(await exam.harness.begun(behaviour.mark) == 0, "cancelled while it waited, and it began all the same")


def _text(found: JSON) -> str:
    """Show what work told in hexadecimal digits."""
    told = found.get("hex") if isinstance(found, dict) else None
    return repr(bytes.fromhex(told)) if isinstance(told, str) else repr(found)
