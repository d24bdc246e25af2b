"""The parts without processes: the table of outcomes, the slots, the parameters."""

import asyncio
from pathlib import Path

import pytest
from flexcore_local.config import HttpParameters, LocalConfig
from flexcore_local.outcomes import failure_of, outcome
from flexcore_local.slots import Slots
from pydantic import ValidationError

from flexcore.model.failure import ErrorClass
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Failed
from flexcore.runtime.portable.judgement import TABLE
from flexcore.runtime.shim import End, Lost, Reason, Status


def ended(exit_code: int | None = 0, signal: int | None = None, reason: str = "", problem: str = "") -> Status:
    return Status(
        exit_code=exit_code,
        signal=signal,
        reason=Reason(reason),
        problem=problem,
        errno=2 if problem else 0,
        started=0,
        finished=1,
        cpu_s=0,
        peak_bytes=300 << 20,
    )


ENDS: list[tuple[End, ErrorClass, str]] = [
    (ended(127, problem="command"), ErrorClass.INPUT, "the command cannot be started: No such file or directory"),
    (ended(127, problem="folder"), ErrorClass.INPUT, "the step's folder cannot be entered: No such file or directory"),
    (ended(127, problem="start"), ErrorClass.INTERNAL, "the process could not be set up: No such file or directory"),
    (ended(0, reason="cancelled"), ErrorClass.CANCELLED, "cancelled"),
    (ended(None, 9, reason="timeout"), ErrorClass.TIMEOUT, "not done within its time limit"),
    (ended(None, 9, reason="oom"), ErrorClass.OOM, "used more memory than its limit (peak 300 MiB)"),
    (ended(None, 9), ErrorClass.OOM, "killed from outside, most often because the machine ran out of memory"),
    (ended(137), ErrorClass.OOM, "killed from outside, most often because the machine ran out of memory"),
    (ended(None, 11), ErrorClass.USER, "ended by SIGSEGV"),
    (ended(127), ErrorClass.USER, "ended with exit code 127"),
    (ended(3), ErrorClass.USER, "ended with exit code 3"),
    (Lost(ended_by_us=True), ErrorClass.CANCELLED, "cancelled"),
    (Lost(ended_by_us=False, detail="no word"), ErrorClass.LOST, "the attempt's shim was killed: no word"),
]


@pytest.mark.parametrize(("end", "error_class", "message"), ENDS)
def test_every_end_has_a_class(end: End, error_class: ErrorClass, message: str) -> None:
    failure = failure_of(end)

    assert failure is not None
    assert (failure.error_class, failure.message) == (error_class, message)


def test_every_row_of_the_table_is_tried() -> None:
    first_rows = {
        next((n for n, row in enumerate(TABLE) if row.applies(end)), None)
        for end, _, _ in ENDS
        if isinstance(end, Status)
    }

    assert first_rows == set(range(len(TABLE)))


def test_a_result_file_that_is_no_json_is_a_failure(tmp_path: Path) -> None:
    for content in (b"{", b"NaN", b"\xff", b"[" * 100_000):
        (tmp_path / "result").write_bytes(content)

        judged = outcome(StepKind.BASH, tmp_path, ended(), 1 << 20)

        assert isinstance(judged, Failed)
        assert judged.failure.name == "InvalidResult"


async def test_slots_are_given_in_order() -> None:
    slots, order = Slots(1), []
    assert slots.try_take()

    async def want(name: str) -> None:
        with slots.turn(name) as turn:
            taken = await turn
        if taken:
            order.append(name)
            slots.release()

    tasks = [asyncio.create_task(want(name)) for name in "abcd"]
    await asyncio.sleep(0)
    assert not slots.try_take()
    assert slots.withdraw("b")
    tasks[2].cancel()
    await asyncio.sleep(0)
    slots.release()
    await asyncio.gather(*tasks, return_exceptions=True)

    assert order == ["a", "d"]
    assert slots.try_take()


async def test_found_work_counts_but_does_not_wait() -> None:
    slots = Slots(1)
    slots.take()
    slots.take()

    slots.release()

    assert not slots.try_take()


def test_parameters_are_strict() -> None:
    assert HttpParameters.model_validate({"url": "x", "timeout": "1.5m"}).timeout == 90
    assert HttpParameters.model_validate({"url": "x", "json": None}).has_json
    for wrong in ({"url": "x", "json": 1, "body": ""}, {"url": "x", "timeout": 0}, {"url": "x", "json_body": 1}):
        with pytest.raises(ValidationError):
            HttpParameters.model_validate(wrong)
    with pytest.raises(ValidationError):
        LocalConfig.model_validate({"slots": 0})
