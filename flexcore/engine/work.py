"""One decision in the making: the state as it becomes, the changes so far, and what is still to be known.

Also the vocabulary of `decide`: events in, actions out, and what the shell provides.
"""

import hashlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeAlias

from flexcore.analyzer.view import Facts, StepView
from flexcore.engine.draft import Draft
from flexcore.engine.fold import apply
from flexcore.engine.render import Answer, Query
from flexcore.model import changes as c
from flexcore.model.changes import Change
from flexcore.model.execution import ExecutionState, Handle, Phase, StepState, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import Graph
from flexcore.model.ids import ExecutionId, Scope, StepPath, new_id
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.placement import Placement
from flexcore.model.pools import Claim, PoolUse
from flexcore.model.values import JSON, NOTHING, Payload, Ref, canonical, reference
from flexcore.model.workflow import StepId


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Bounds on what a workflow may ask of the engine. Sizes are bytes of JSON."""

    inline_bytes: int = 256 * 1024
    foreach_items: int = 10_000
    depth: int = 10
    open_executions: int = 10_000
    infrastructure_tries: int = 3
    unplaced_interval: timedelta = timedelta(seconds=5)
    runtimes: Mapping[str, int] = field(default_factory=dict)  # attempts at a time, by runtime
    tags: Mapping[str, int] = field(default_factory=dict)  # attempts at a time of steps that require a tag


# Events: what may happen to an execution.


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Begin an execution that does not exist yet."""

    accepted: c.ExecutionAccepted
    reused: tuple[c.StepReused, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptSubmitted:
    """A runtime has the work. `running`: preparations are over, the step's time limit runs."""

    path: StepPath
    attempt: int
    token: int
    handle: Handle
    adopted: bool = False
    running: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptFinished:
    """A runtime reports the end: `failure` is None when the work succeeded with `result`."""

    path: StepPath
    attempt: int
    token: int
    result: Payload = NOTHING
    failure: Failure | None = None
    usage: Usage = Usage()
    phases: Mapping[Phase, timedelta] = field(default_factory=dict)
    artifacts: tuple[Ref, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptUnavailable:
    """The runtime cannot be reached: the outcome is unknown."""

    path: StepPath
    attempt: int
    token: int
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptEnded:
    """An attempt that had to end has: confirmed by its runtime, or given up on as an orphan for the sweep."""

    path: StepPath
    attempt: int
    token: int
    confirmed: bool


@dataclass(frozen=True, slots=True)
class TimerFired:
    """A step's or (path None) the execution's time has come; the state says for what."""

    path: StepPath | None


@dataclass(frozen=True, slots=True)
class PlaceFree:
    """What waits in a queue, a step or (path None) the execution itself, may find a place now."""

    path: StepPath | None


@dataclass(frozen=True, slots=True)
class Cancel:
    """Somebody wants the end."""

    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildAccepted:
    """A sub-workflow's execution is durable."""

    path: StepPath
    child: ExecutionId


@dataclass(frozen=True, slots=True, kw_only=True)
class ChildFinished:
    """A sub-workflow's execution has ended, or could not begin."""

    path: StepPath
    child: ExecutionId
    status: ExecutionStatus
    output: Payload = NOTHING
    failure: Failure | None = None


Event: TypeAlias = (
    Start
    | AttemptSubmitted
    | AttemptFinished
    | AttemptUnavailable
    | AttemptEnded
    | TimerFired
    | PlaceFree
    | Cancel
    | ChildAccepted
    | ChildFinished
)


# Actions: what to do once the changes are durable.


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Call `execute` for the step's attempt, with its handle if it has one."""

    path: StepPath


@dataclass(frozen=True, slots=True)
class EndAttempt:
    """Call `cleanup` for the step's attempt until it is confirmed."""

    path: StepPath


@dataclass(frozen=True, slots=True)
class ForgetAttempt:
    """The result is durable: let the runtime remove what the attempt left."""

    path: StepPath


@dataclass(frozen=True, slots=True, kw_only=True)
class StartChild:
    """Start the execution of a sub-workflow, unless it exists."""

    path: StepPath
    child: ExecutionId
    workflow: str
    input: Payload


@dataclass(frozen=True, slots=True)
class CancelChild:
    """Cancel the execution of a sub-workflow."""

    child: ExecutionId


@dataclass(frozen=True, slots=True)
class LookAgain:
    """Fire the step's timer at `due_at`: nothing has changed, so nothing was written."""

    path: StepPath
    due_at: datetime


OutsideAction: TypeAlias = StartAttempt | EndAttempt | ForgetAttempt | StartChild | CancelChild
Action: TypeAlias = OutsideAction | LookAgain


def free(runtime: str) -> float | None:
    """Know no price."""
    return None


@dataclass(frozen=True, slots=True, kw_only=True)
class Env:
    """What a decision may know besides the state: all of it given, so that the same again gives the same."""

    now: datetime
    entropy: bytes
    place: Callable[[StepView], Placement]
    price: Callable[[str], float | None] = free  # of a runtime, an hour
    facts: Mapping[StepId, Facts] = field(default_factory=dict)  # read from the version's code
    data_store: str = "file"  # where data between steps is: `file` or `s3`
    limits: Limits = Limits()
    answers: Mapping[str, Mapping[str, Answer]] = field(default_factory=dict)  # address → expression → answer
    values: Mapping[str, JSON] = field(default_factory=dict)  # uri → what it refers to
    cached: Mapping[str, Payload | None] = field(default_factory=dict)  # cache key → earlier result
    pools: Mapping[str, PoolUse] = field(default_factory=dict)  # as committed


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What becomes true, and what to do once it is durable. `artifacts` are to be stored before the commit."""

    at: datetime
    changes: tuple[Change, ...]
    actions: tuple[Action, ...]
    state: ExecutionState
    touched_steps: tuple[StepPath, ...] = ()
    touched_scopes: tuple[Scope, ...] = ()
    artifacts: tuple[bytes, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What must be known before it can be decided. Put it into `env` and go on with `resume`, or ask again.

    One of the `values` may have come about in this very decision: `artifacts` are to be stored before they are read.
    """

    work: "Work" = field(compare=False)
    queries: tuple[tuple[str, Query], ...] = ()  # address, query
    values: tuple[Ref, ...] = ()
    artifacts: tuple[bytes, ...] = ()
    cache_keys: tuple[str, ...] = ()
    pools: tuple[Claim, ...] = ()


class Work:
    """The working copy of one decision. `emit` is the only way it changes."""

    __slots__ = (
        "actions",
        "artifacts",
        "blocked",
        "cache_keys",
        "changes",
        "draft",
        "ended",
        "env",
        "graph",
        "opened",
        "pools",
        "queries",
        "values",
    )

    def __init__(self, graph: Graph, state: ExecutionState, env: Env) -> None:
        self.graph = graph
        self.env = env
        self.draft = Draft(state)
        self.changes: list[Change] = []
        self.actions: list[Action] = []
        self.artifacts: list[bytes] = []
        self.ended: deque[StepPath] = deque()
        self.opened: deque[Scope] = deque()
        self.queries: list[tuple[str, Query]] = []
        self.values: list[Ref] = []
        self.cache_keys: list[str] = []
        self.pools: list[Claim] = []
        self.blocked: list[Callable[[], None]] = []

    @property
    def asked(self) -> int:
        """How many things have been asked for."""
        return len(self.queries) + len(self.values) + len(self.cache_keys) + len(self.pools)

    def attempt(self, action: Callable[[], None]) -> None:
        """Do something that may have to ask first; then it is done again once the answers are there.

        What asks emits nothing, so doing it again repeats nothing. Of nested attempts the innermost is repeated.
        """
        asked, blocked = self.asked, len(self.blocked)
        action()
        if self.asked > asked and len(self.blocked) == blocked:
            self.blocked.append(action)

    def unblock(self) -> list[Callable[[], None]]:
        """Give what waited for answers, which are in `env` now."""
        blocked, self.blocked = self.blocked, []
        self.queries, self.values, self.cache_keys, self.pools = [], [], [], []
        return blocked

    def emit(self, change: Change) -> None:
        """Make a change true, and note what it sets off."""
        self.changes.append(change)
        apply(self.draft, change, self.env.now)
        match change:
            case c.StepSucceeded() | c.StepFailed() | c.StepSkipped() | c.StepCancelled() | c.StepReused():
                self.ended.append(change.path)
            case c.ScopeOpened():
                self.opened.append(change.scope)

    def payload(self, value: JSON) -> Payload:
        """Carry a value inline, or by reference when it is large; then its bytes are stored before the commit."""
        data = canonical(value)
        if len(data) <= self.env.limits.inline_bytes:
            return Payload(value)
        self.artifacts.append(data)
        return Payload(ref=reference(data))

    def step(self, path: StepPath) -> StepState | None:
        """Give a step's state; None while it waits."""
        return self.draft.steps.get(path)

    def fresh_id(self, prefix: str, salt: str) -> str:
        """Make an id that is the same each time this very decision is made."""
        entropy = hashlib.sha256(self.env.entropy + salt.encode()).digest()
        return new_id(prefix, int(self.env.now.timestamp() * 1000), entropy)

    def chance(self, salt: str) -> float:
        """Give a number in [0, 1), the same each time this very decision is made."""
        return int.from_bytes(hashlib.sha256(self.env.entropy + salt.encode()).digest()[:6], "big") / 2**48

    def conclude(self) -> Decision | Needs:
        """Give the decision, or what is missing for it."""
        if self.asked:
            return Needs(
                work=self,
                queries=tuple(self.queries),
                values=tuple(self.values),
                artifacts=tuple(self.artifacts) if self.values else (),
                cache_keys=tuple(self.cache_keys),
                pools=tuple(self.pools),
            )
        return Decision(
            at=self.env.now,
            changes=tuple(self.changes),
            actions=tuple(self.actions),
            state=self.draft.freeze(),
            touched_steps=tuple(self.draft.touched_steps),
            touched_scopes=tuple(self.draft.touched_scopes),
            artifacts=tuple(self.artifacts),
        )


def failure_document(failure: Failure) -> dict[str, JSON]:
    """Show a failure to expressions and people: `{class, name, message, step, attempt, hint}`."""
    return {
        "class": failure.error_class.value,
        "name": failure.name,
        "message": failure.message,
        "step": failure.step,
        "attempt": failure.attempt,
        "hint": failure.hint,
    }


def user_failure(message: str, path: str, *, name: str = "", hint: str = "") -> Failure:
    """Make the failure of a step whose definition or data was wrong: trying again cannot help."""
    return Failure(message=message, error_class=ErrorClass.INPUT, name=name, step=path, hint=hint)
