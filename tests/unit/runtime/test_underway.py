"""What is ended waits for what is being made, and is known as ended as long as somebody reads it."""

import asyncio

import pytest

from flexcore.model.ids import ExecutionId
from flexcore.runtime.underway import EndedBefore, Underway

EXECUTION = ExecutionId("exe")


async def test_whoever_ends_an_attempt_waits_for_what_is_being_made() -> None:
    underway, may_be = Underway(), asyncio.Event()
    with underway.read("a", EXECUTION):
        making = asyncio.create_task(underway.made("a", may_be.wait))
        await asyncio.sleep(0)
        ending = asyncio.create_task(underway.ending("a"))
        await asyncio.sleep(0)

        is_known, waits = underway.was_ended("a"), not ending.done()
        may_be.set()
        await asyncio.gather(making, ending)

    assert is_known and waits


async def test_what_is_being_made_is_waited_for_when_nobody_reads_any_more() -> None:
    underway, may_be = Underway(), asyncio.Event()

    async def read() -> None:
        with underway.read("a", EXECUTION):
            await underway.made("a", may_be.wait)

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    reading.cancel()
    await asyncio.gather(reading, return_exceptions=True)
    ending = asyncio.create_task(underway.ending("a"))
    await asyncio.sleep(0)

    waits, of_it = not ending.done(), underway.of_execution(EXECUTION)
    may_be.set()
    await ending
    await asyncio.sleep(0)

    assert waits and of_it == {"a"}
    assert not underway.of_execution(EXECUTION)


async def test_nothing_is_made_for_what_was_ended() -> None:
    underway, made = Underway(), []

    async def make() -> None:
        made.append(1)

    await underway.ending("a")
    with underway.read("a", EXECUTION), pytest.raises(EndedBefore):
        await underway.made("a", make)
    await underway.made("b", make)

    assert made == [1]


async def test_what_was_ended_is_remembered_up_to_a_number_and_as_long_as_it_is_underway() -> None:
    underway = Underway(remembered=2)

    with underway.read("fx-0", EXECUTION):
        for number in range(4):
            await underway.ending(f"fx-{number}")
        known = [underway.was_ended(f"fx-{number}") for number in range(4)]
    await underway.ending("fx-4")

    assert known == [True, False, True, True]
    assert [underway.was_ended(f"fx-{number}") for number in range(5)] == [False, False, False, True, True]
