"""Checks of what work writes: every byte in its place, while it is written, however much it is and however it ends."""

import asyncio
from dataclasses import replace

from flexcore.model.failure import ErrorClass
from flexcore.runtime.interface import Feature, LogChunk, LogStream
from flexcore.testing.runtime_examination import (
    Examination,
    chunks,
    expect_log,
    failure,
    logged,
    output,
    refuses_logs,
)
from flexcore.testing.runtime_harness import Behaviour, expect, gated

_BLOCK = b"".join(b"%015d\n" % number for number in range(1 << 16))  # a megabyte of lines
_LAST = b"this is the last line\n"
_LARGEST_CHUNK = 4 << 20


async def log_offsets_have_no_gap(exam: Examination) -> None:
    """Offsets are how logs survive a restart; every byte has its place, from 0 on."""
    lines = b"".join(b"line %05d\n" % number for number in range(20_000))

    events = await exam.run(Behaviour(stdout=lines))

    if refuses_logs(exam, events):
        return
    first = [each.offset for each in chunks(events, LogStream.STDOUT)][:1]
    expect(first == [0], f"the first offset is {first}")
    expect_log(events, LogStream.STDOUT, lines)


async def logs_are_bytes(exam: Examination) -> None:
    """Output is neither decoded nor mended: unicode and binary arrive as they are."""
    data = "grün ✓ 漢字\n".encode() + bytes(range(256)) + b"\r\n\xff\xfe\n"

    events = await exam.run(Behaviour(stdout=data))

    if not refuses_logs(exam, events):
        expect_log(events, LogStream.STDOUT, data)


async def torn_lines_arrive(exam: Examination) -> None:
    """What work wrote last explains how it ended, and it may have had no time for the end of the line."""
    behaviour = Behaviour(stdout=b"one\ntwo, and to", exit_code=1)

    events = await exam.run(behaviour)

    if not refuses_logs(exam, events):
        expect_log(events, LogStream.STDOUT, behaviour.stdout)


async def streams_are_kept_apart(exam: Examination) -> None:
    """Results are read from one stream, warnings from the other."""
    events = await exam.run(Behaviour(stdout=b"for programs\n", stderr=b"for people\n"))

    if refuses_logs(exam, events):
        return
    if exam.lacks(Feature.LOG_STREAMS):
        both = logged(events, LogStream.STDOUT)
        expect(b"for programs\n" in both and b"for people" in both, "stdout does not have what was written to either")
        expect(not logged(events, LogStream.STDERR), "streams are declared as one, and there is a stderr")
        return
    expect_log(events, LogStream.STDOUT, b"for programs\n")
    expect(b"for people" in logged(events, LogStream.STDERR), "stderr is not in the logs")


async def logs_are_live(exam: Examination) -> None:
    """Who watches a step that takes hours wants to see what it does now."""
    behaviour = replace(gated(), stdout=b"hard at work\n", output=None)
    request = exam.request(behaviour)
    stream = exam.stream(request)
    reading = asyncio.create_task(stream.until(lambda event: isinstance(event, LogChunk)))
    await exam.has_begun(behaviour.mark)
    if Feature.LOGS in exam.unsupported:
        await exam.harness.open(behaviour.gate)
        await asyncio.gather(reading, return_exceptions=True)  # it ends without what was awaited
        refuses_logs(exam, stream.events)
        return

    await reading  # with the gate still closed

    await stream.detach()


async def hundred_megabytes_of_log(exam: Examination) -> None:
    """Somebody leaves debugging on: it may be cut in the middle, but head and end are there, and memory stays flat."""
    behaviour = Behaviour(stdout=_BLOCK, stdout_times=100, stdout_after=_LAST, exit_code=5)

    events = await exam.run(behaviour)

    failure(events, ErrorClass.USER)
    if refuses_logs(exam, events):
        return
    found = chunks(events, LogStream.STDOUT)
    ends = [0, *(each.offset + len(each.data) for each in found)]
    expect(all(each.offset >= end for each, end in zip(found, ends, strict=False)), "the log repeats itself")
    expect(max(len(each.data) for each in found) <= _LARGEST_CHUNK, "the log comes in pieces of more than 4 MiB")
    head = b"".join(each.data for each in found if each.offset < len(_BLOCK))[: len(_BLOCK)]
    expect(head == _BLOCK, f"the first megabyte is not as it was written: {len(head)} bytes")
    tail = b"".join(each.data for each in found[-2:])
    expect(tail.endswith(_LAST), f"the log does not end with the last line, but with {tail[-40:]!r}")


async def adoption_repeats_no_log_byte(exam: Examination) -> None:
    """Logs go on where the store has them."""
    behaviour = replace(gated(), stdout=b"before the restart\n", output=None)
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    await exam.harness.open(behaviour.gate)
    offsets = {LogStream.STDOUT: 7}

    events = await exam.stream(replace(request, handle=handle, log_offsets=offsets), await exam.restarted()).rest()

    if exam.lacks(Feature.ADOPTION) or refuses_logs(exam, events):
        return
    starts = 0 if exam.lacks(Feature.LOG_OFFSETS) else 7
    first = [each.offset for each in chunks(events, LogStream.STDOUT)][:1]
    expect(first == [starts], f"expected the logs from offset {starts} on, they begin at {first}")
    expect_log(events, LogStream.STDOUT, behaviour.stdout[starts:])


async def logs_go_on_after_adoption(exam: Examination) -> None:
    """What is written after a restart of the control plane has its place behind what came before."""
    before, after = b"before the restart\n", b"and after it\n"
    behaviour = replace(gated(), stdout=before, stdout_after=after, output=None)
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    known = {LogStream.STDOUT: len(before)}

    adopted = exam.stream(replace(request, handle=handle, log_offsets=known), await exam.restarted())
    reading = asyncio.create_task(adopted.rest())
    await exam.harness.open(behaviour.gate)
    events = await reading

    if exam.lacks(Feature.ADOPTION) or refuses_logs(exam, events):
        return
    found = [(each.offset, each.data) for each in chunks(events, LogStream.STDOUT)]
    new = b"".join(data[max(0, len(before) - offset) :] for offset, data in found)
    expect(new == after, f"expected {after!r} from {len(before)} on, found {found!r}")


async def logs_are_there_after_the_end(exam: Examination) -> None:
    """The end may come while nobody reads; the log of that time is wanted all the same."""
    behaviour = replace(gated(), stdout_after=b"nobody reads this now\n", output={"is": "over"})
    request, stream, handle = await exam.begin(behaviour)
    await stream.detach()
    await exam.harness.open(behaviour.gate)
    await exam.is_over(behaviour.mark)

    events = await exam.stream(replace(request, handle=handle), await exam.restarted()).rest()

    if exam.lacks(Feature.ADOPTION):
        failure(events, ErrorClass.LOST)
        return
    expect(output(events) == behaviour.output, f"expected {behaviour.output!r}, found {output(events)!r}")
    if not refuses_logs(exam, events):
        found = logged(events, LogStream.STDOUT)
        expect(behaviour.stdout_after in found, f"the log of the time without a reader is missing: {found!r}")
