"""What may be written to the history: past tense, one fact each, a closed union.

The state of an execution is the fold of its changes (`flexcore/engine/fold.py`) and nothing else. A change holds every
answer that was needed to decide it, so that folding evaluates, places and looks up nothing. A new kind of change is
added at the end of `Change`, with its case in `fold` and nowhere else.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from flexcore.model.execution import Given, Handle, LoopState, Phase, SecretText, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import ExecutionId, Scope, StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.placement import Placement
from flexcore.model.pools import Claim
from flexcore.model.values import NOTHING, Payload, Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionAccepted:
    """Always entry 1. Once this is durable, the execution will come to an end."""

    workflow: str
    version: str
    workspace: str = "default"
    input: Payload = NOTHING
    labels: Mapping[str, str] = field(default_factory=dict)
    pinned_runtime: str | None = None
    forked_from: ExecutionId | None = None
    parent: ExecutionId | None = None
    parent_path: StepPath | None = None
    depth: int = 0  # how many executions are above this one
    pinned_versions: Mapping[str, str] = field(default_factory=dict)  # of the workflows that steps name
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionQueued:
    """Every place is taken that executions of this workflow have: it stays pending until there is one."""

    full: tuple[Claim, ...]
    waiting_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionStarted:
    """The first step's turn has come. `claims` are held until the execution has ended."""

    claims: tuple[Claim, ...] = ()


@dataclass(frozen=True, slots=True)
class ExecutionSuspended:
    """Nothing runs any more: every open step waits for time, a signal or people."""


@dataclass(frozen=True, slots=True)
class ExecutionResumed:
    """Something runs again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepReused:
    """A finished step of the execution this one was forked from, taken over as it ended, or with a result `given`."""

    path: StepPath
    kind: str
    status: StepStatus
    result: Payload = NOTHING
    failure: Failure | None = None
    tolerated: bool = False
    given: Given | None = None
    artifacts: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class StepDispatched:
    """An attempt goes to a runtime. Its placement and its resolved parameters (secrets as names) are fixed here."""

    path: StepPath
    kind: str
    attempt: int
    token: int
    runtime: str
    placement: Placement
    parameters: Payload = NOTHING
    secrets: tuple[SecretText, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    cache_key: str = ""
    claims: tuple[Claim, ...] = ()
    waited: timedelta | None = None  # in queues for the places of `claims`


@dataclass(frozen=True, slots=True, kw_only=True)
class StepQueued:
    """The step could go to a runtime, but every place of the pools in `full` is taken. No attempt is used up."""

    path: StepPath
    kind: str
    placement: Placement
    full: tuple[Claim, ...]
    waiting_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepUnplaced:
    """The step's turn has come, and no runtime can have it now. It is looked at again at `due_at`."""

    path: StepPath
    kind: str
    placement: Placement
    waiting_for: str
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSubmitted:
    """The work exists outside, under this handle. `expires_at` ends its time limit, once that has begun."""

    path: StepPath
    attempt: int
    handle: Handle
    adopted: bool = False
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepPostponed:
    """The runtime cannot be reached: the outcome of the attempt is unknown; `execute` is called again at `due_at`."""

    path: StepPath
    attempt: int
    due_at: datetime
    waiting_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRetryScheduled:
    """The attempt failed and `budget` (`user`, `lost`, `evicted`, `quota`) has a try left, at `due_at`."""

    path: StepPath
    attempt: int
    failure: Failure
    budget: str
    due_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted:
    """A control step's turn has come: it runs as long as its scopes do. `child` is a sub-workflow's execution."""

    path: StepPath
    kind: str
    loop: LoopState | None = None
    child: ExecutionId | None = None
    parameters: Payload = NOTHING  # the child's input
    expires_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSuspended:
    """A wait: nothing happens before `due_at`."""

    path: StepPath
    kind: str
    due_at: datetime
    waiting_for: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSucceeded:
    """The step's result, final."""

    path: StepPath
    kind: str
    attempt: int = 0
    result: Payload = NOTHING
    usage: Usage = Usage()
    phases: Mapping[Phase, timedelta] = field(default_factory=dict)
    artifacts: tuple[Ref, ...] = ()
    cached: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFailed:
    """The step failed for good. `tolerated`: `on_error: continue` made `result` of it, and what follows goes on."""

    path: StepPath
    kind: str
    attempt: int = 0
    failure: Failure
    tolerated: bool = False
    result: Payload = NOTHING
    usage: Usage = Usage()
    phases: Mapping[Phase, timedelta] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepSkipped:
    """The step will not run, and why."""

    path: StepPath
    kind: str
    reason: str
    upstream_failed: bool = False  # a step it needs failed; else its condition was false


@dataclass(frozen=True, slots=True, kw_only=True)
class StepEnding:
    """The step has to end before its time: an intent, acted on until the runtime confirms."""

    path: StepPath
    attempt: int
    error_class: ErrorClass
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StepCancelled:
    """The step was ended, confirmed by its runtime, or never began."""

    path: StepPath
    kind: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeOpened:
    """A branch was taken, an iteration began, a catch or `on_failure` started."""

    scope: Scope
    error: Failure | None = None  # what `error` is inside


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeClosed:
    """Every step of the scope has ended: with a result, or with a failure."""

    scope: Scope
    result: Payload = NOTHING
    failure: Failure | None = None
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class CancelRequested:
    """Somebody wants the execution ended, or its time is over. From here no attempt starts."""

    reason: str
    timed_out: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionSucceeded:
    """Done, with its output."""

    output: Payload = NOTHING


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionFailed:
    """Done, without."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionCancelled:
    """Ended by intent or by its time limit (`failure.error_class` says which)."""

    failure: Failure


Change: TypeAlias = (
    ExecutionAccepted
    | ExecutionStarted
    | ExecutionSuspended
    | ExecutionResumed
    | StepReused
    | StepDispatched
    | StepUnplaced
    | StepSubmitted
    | StepPostponed
    | StepRetryScheduled
    | StepStarted
    | StepSuspended
    | StepSucceeded
    | StepFailed
    | StepSkipped
    | StepEnding
    | StepCancelled
    | ScopeOpened
    | ScopeClosed
    | CancelRequested
    | ExecutionSucceeded
    | ExecutionFailed
    | ExecutionCancelled
    | ExecutionQueued
    | StepQueued
)


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """A change in its place: `seq` counts from 1 without gaps; `at` is aware UTC."""

    seq: int
    at: datetime
    change: Change
