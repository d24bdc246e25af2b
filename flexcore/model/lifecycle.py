"""The statuses of executions and steps, and the one table of how they may follow each other."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar

Status = TypeVar("Status", bound=StrEnum)


class ExecutionStatus(StrEnum):
    """Where an execution stands."""

    PENDING = "pending"  # accepted, not begun
    RUNNING = "running"
    SUSPENDED = "suspended"  # nothing runs: it waits for time, a signal or people
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Say whether nothing can follow."""
        return self in _EXECUTION_END


class StepStatus(StrEnum):
    """Where a step stands."""

    WAITING = "waiting"  # what it needs has not finished
    PENDING = "pending"  # its turn has come: it is dispatched, waits for a runtime, or for the next attempt
    RUNNING = "running"
    SUSPENDED = "suspended"  # waits for time, a signal or people
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    SKIPPED = "skipped"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        """Say whether nothing can follow."""
        return self in _STEP_END


_EXECUTION_END = frozenset({ExecutionStatus.SUCCEEDED, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED})
_STEP_END = frozenset({StepStatus.SUCCEEDED, StepStatus.FAILED, StepStatus.SKIPPED, StepStatus.CANCELLED})

EXECUTION_TRANSITIONS: dict[ExecutionStatus, frozenset[ExecutionStatus]] = {
    ExecutionStatus.PENDING: frozenset({ExecutionStatus.RUNNING, ExecutionStatus.FAILED, ExecutionStatus.CANCELLED}),
    ExecutionStatus.RUNNING: _EXECUTION_END | {ExecutionStatus.SUSPENDED},
    ExecutionStatus.SUSPENDED: _EXECUTION_END | {ExecutionStatus.RUNNING},
    ExecutionStatus.SUCCEEDED: frozenset(),
    ExecutionStatus.FAILED: frozenset(),
    ExecutionStatus.CANCELLED: frozenset(),
}

STEP_TRANSITIONS: dict[StepStatus, frozenset[StepStatus]] = {
    StepStatus.WAITING: frozenset(StepStatus) - {StepStatus.WAITING},
    StepStatus.PENDING: _STEP_END - {StepStatus.SKIPPED} | {StepStatus.PENDING, StepStatus.RUNNING},
    StepStatus.RUNNING: _STEP_END - {StepStatus.SKIPPED} | {StepStatus.PENDING},
    StepStatus.SUSPENDED: frozenset({StepStatus.SUCCEEDED, StepStatus.CANCELLED}),
    StepStatus.SUCCEEDED: frozenset(),
    StepStatus.FAILED: frozenset(),
    StepStatus.SKIPPED: frozenset(),
    StepStatus.CANCELLED: frozenset(),
}
"""A pending or running step becomes pending again with its next attempt."""


def render_mermaid(transitions: Mapping[Status, frozenset[Status]]) -> str:
    """Draw a table as a Mermaid state diagram; the documentation shows exactly this."""
    first, *_ = transitions
    arrows = [
        f"{start} --> {end}" for start, ends in transitions.items() for end in sorted(ends, key=[*transitions].index)
    ]
    ends = [f"{status} --> [*]" for status, following in transitions.items() if not following]
    return "\n".join(["stateDiagram-v2", *(f"    {line}" for line in [f"[*] --> {first}", *arrows, *ends])])
