"""One run of a version, as it stands: what `fold` computes from the history and the store keeps beside it.

A step has an entry only from the moment its turn comes; steps that still wait are known from the definition.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import ExecutionId, Scope, StepPath
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.placement import Placement
from flexcore.model.pools import Claim
from flexcore.model.template import PathKey
from flexcore.model.values import JSON, NOTHING, Payload, Ref

NEXT_ATTEMPT = "the next attempt"
"""What a failed step waits for that has a try left."""


class Phase(StrEnum):
    """The five phases that are measured separately for every attempt."""

    QUEUE = "queue"
    START = "start"
    TRANSFER_IN = "transfer_in"
    RUN = "run"
    TRANSFER_OUT = "transfer_out"


@dataclass(frozen=True, slots=True)
class Handle:
    """What an adapter needs to find its work again: opaque to the engine, stored by it, given back."""

    version: int
    name: str  # deterministic external name
    identity: str  # what makes it *that* work: uid, pid + start time, submission id
    data: Mapping[str, JSON] = field(default_factory=dict)
    transient: bool = False  # nothing is left once the work has ended: there is nothing to clean up


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an attempt used. Seconds, bytes, and the currency of prices; None where nobody can tell."""

    cpu_s: float | None = None
    peak_memory_bytes: int | None = None
    bytes_in: int | None = None
    bytes_out: int | None = None
    rows: int | None = None
    cost: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SecretText:
    """A string inside a step's parameters that holds secrets: where it is, and its parts.

    Each part is `("text", value)` or `("secret", name)`. Kept apart from the value, so that text which merely looks
    like a reference to a secret (in an input, in a result) is never resolved.
    """

    pointer: tuple[PathKey, ...]
    parts: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """A result that did not come from a runtime: a person gave it for a step that had failed, and said why."""

    by: str
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LoopState:
    """Where a loop stands. `total` is None for `while`; `items` is what is iterated over."""

    total: int | None
    items: Payload = NOTHING
    started: int = 0
    finished: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class StepState:
    """One step of one execution, from its turn to its end."""

    path: StepPath
    kind: str
    status: StepStatus
    attempt: int = 0
    token: int = 0
    runtime: str | None = None
    placement: Placement | None = None
    parameters: Payload = NOTHING
    secrets: tuple[SecretText, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)
    handle: Handle | None = None
    adoptions: int = 0
    in_flight: bool = False  # an attempt is, or may be, somewhere out there
    result: Payload = NOTHING
    failure: Failure | None = None
    tolerated: bool = False  # failed, but `on_error: continue` turned the failure into a result
    skipped_reason: str = ""
    upstream_failed: bool = False  # skipped because a step it needs failed
    ending: ErrorClass | None = None  # has to end before its time: `timeout` or `cancelled`
    waiting_for: str = ""
    claims: tuple[Claim, ...] = ()  # places that its live attempt holds
    full: tuple[Claim, ...] = ()  # pools in which it waits for a place
    queued_at: datetime | None = None  # since when it waits for places
    waited: timedelta | None = None  # how long its live attempt had to wait for places before
    cache_key: str = ""
    cached: bool = False
    given: Given | None = None  # its result was given by hand
    spent: Mapping[str, int] = field(default_factory=dict)  # budget → tries used up ("user", "lost", …)
    due_at: datetime | None = None  # when its timer fires: next attempt, end of a wait
    expires_at: datetime | None = None  # when the time limit of the attempt is over
    loop: LoopState | None = None
    child: ExecutionId | None = None
    created_at: datetime | None = None  # its turn came
    started_at: datetime | None = None  # the attempt began
    finished_at: datetime | None = None
    usage: Usage = Usage()
    phases: Mapping[Phase, timedelta] = field(default_factory=dict)
    artifacts: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ScopeState:
    """A running or finished instance of a list of steps: a branch taken, an iteration, a catch."""

    scope: Scope
    status: StepStatus
    ended: int = 0  # steps of its list that have ended
    result: Payload = NOTHING
    failure: Failure | None = None
    error: Failure | None = None  # what `error` is inside: of a catch, of on_failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionHeader:
    """An execution without its steps: one row."""

    id: ExecutionId
    workflow: str
    version: str
    workspace: str
    status: ExecutionStatus
    input: Payload = NOTHING
    output: Payload = NOTHING
    failure: Failure | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    pinned_runtime: str | None = None  # `--runtime R`: for every auto step that R can run
    forked_from: ExecutionId | None = None
    parent: ExecutionId | None = None
    parent_path: StepPath | None = None
    depth: int = 0
    pinned_versions: Mapping[str, str] = field(default_factory=dict)
    cancel_requested: str | None = None  # the reason, once somebody asked
    timed_out: bool = False  # its own time limit asked
    claims: tuple[Claim, ...] = ()  # places that it holds until it has ended
    full: tuple[Claim, ...] = ()  # pools in which it waits for a place
    expires_at: datetime | None = None
    created_at: datetime | None = None
    started_at: datetime | None = None
    finished_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionState:
    """The whole of an execution: the header, every step and scope so far, and the number of history entries."""

    header: ExecutionHeader
    steps: Mapping[StepPath, StepState] = field(default_factory=dict)
    scopes: Mapping[Scope, ScopeState] = field(default_factory=dict)
    seq: int = 0
    active: int = field(default=0, compare=False)  # tasks and sub-executions under way; derived by fold
    suspended: int = field(default=0, compare=False)  # steps that wait for time; derived by fold
    held: Mapping[str, int] = field(default_factory=dict, compare=False)  # places of attempts by pool; derived by fold
    queued: Mapping[StepPath, tuple[Claim, ...]] = field(default_factory=dict, compare=False)  # likewise: who waits
