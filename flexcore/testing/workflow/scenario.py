"""A test of a workflow as data: what is given, what its tasks come to, and what is expected. Knows no file format."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.values import JSON
from flexcore.runtime.interface import Health
from flexcore.testing.clock import EPOCH
from flexcore.testing.workflow.addresses import Address


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """What one attempt of a mocked step comes to, after `takes` of virtual time: `failure`, else `result`."""

    result: JSON = None
    failure: Failure | None = None
    takes: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mock:
    """Replies for the steps at an address, one per attempt; the last one repeats. `optional`: may stay unused."""

    address: Address
    replies: tuple[Reply, ...]
    optional: bool = False

    def reply(self, attempt: int) -> Reply:
        """Give the reply for an attempt; attempts count from 1."""
        return self.replies[min(attempt, len(self.replies)) - 1]


class Wanted(NamedTuple):
    """A value that is expected: exactly, or to be contained in what there is."""

    value: JSON
    is_partial: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedError:
    """What is expected of a failure; None is not looked at."""

    step: str | None = None
    error_class: ErrorClass | None = None
    name: str | None = None
    message: str | None = None
    message_contains: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpectedStep:
    """What is expected of every step at an address. Status `waiting` means that its turn never came."""

    address: Address
    status: StepStatus | None = None
    attempts: int | None = None
    runtime: str | None = None
    results: tuple[Wanted, ...] = ()
    parameters: tuple[Wanted, ...] = ()
    error: ExpectedError | None = None
    skipped_reason_contains: str | None = None
    duration: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Expected:
    """What is expected of the whole. `path` has the steps of the workflow that ran, in the order they ended."""

    status: ExecutionStatus = ExecutionStatus.SUCCEEDED
    outputs: tuple[Wanted, ...] = ()
    path: tuple[Address, ...] | None = None
    steps: tuple[ExpectedStep, ...] = ()
    placements: tuple[tuple[Address, str], ...] = ()
    error: ExpectedError | None = None
    duration: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """One test. `runtimes` None means one of each kind that the workflow's steps may need, all of them up."""

    name: str
    input: JSON = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    env: Mapping[str, str] = field(default_factory=dict)
    runtimes: tuple[str, ...] | None = None
    health: Mapping[str, Health] = field(default_factory=dict)
    start: datetime = EPOCH
    mocks: tuple[Mock, ...] = ()
    expected: Expected = Expected()

    def mock_for(self, path: str) -> Mock | None:
        """Give the mock that names a step most exactly."""
        found = [each for each in self.mocks if each.address.covers(path)]
        return max(found, key=lambda each: each.address.precision, default=None)
