"""The fast copy gives what the standard one gives."""

from dataclasses import dataclass, replace

import pytest

from flexcore.model.execution import ExecutionHeader, StepState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.rebuilding import rebuilt


def test_it_gives_what_replace_gives() -> None:
    step = StepState(path=StepPath("a"), kind="python", status=StepStatus.RUNNING, spent={"user": 1})
    header = ExecutionHeader(
        id=ExecutionId("exe_1"), workflow="w", version="v", workspace="x", status=ExecutionStatus.RUNNING
    )

    assert rebuilt(step, attempt=2, claims=()) == replace(step, attempt=2, claims=())
    assert rebuilt(step) == step
    assert rebuilt(step) is not step
    assert rebuilt(header, output=header.input) == replace(header, output=header.input)


def test_an_unknown_field_and_a_class_that_does_something_are_refused() -> None:
    step = StepState(path=StepPath("a"), kind="python", status=StepStatus.RUNNING)

    @dataclass(frozen=True, slots=True)
    class Careful:
        a: int
        b: int = 0

        def __post_init__(self) -> None:
            assert self.a

    with pytest.raises(KeyError):
        rebuilt(step, colour="red")
    with pytest.raises(TypeError, match="Careful"):
        rebuilt(Careful(1), b=2)
