"""How the engine writes: the journal, which is the only way execution state changes, and who may use it."""

from collections.abc import AsyncIterator, Collection, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import NewType, Protocol

from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionHeader, ScopeState, StepState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.observation import Observation
from flexcore.model.pools import PoolUse
from flexcore.model.values import JSON, Payload

ServerId = NewType("ServerId", str)
NOBODY: Mapping[str, Set[ExecutionId]] = MappingProxyType({})
"""Passes over nobody, in any pool."""


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that owns executions, at one epoch. A higher epoch in the store fences everything of this one."""

    server: ServerId
    epoch: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """A success that later executions may reuse until `expires_at`."""

    key: str
    result: Payload
    expires_at: datetime


@dataclass(frozen=True, slots=True, kw_only=True)
class IdempotencyKey:
    """A caller's name for a start. Scope: workspace and workflow; kept 7 days. `fingerprint` hashes what was asked."""

    workspace: str
    workflow: str
    key: str
    fingerprint: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClaimChange:
    """A row of the pools' table that changes: a place is taken (`limit`), waited for (`queued_at`), or neither."""

    pool: str
    path: StepPath  # empty: the execution as a whole
    limit: int | None = None
    queued_at: datetime | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ChangeSet:
    """Everything one transition changes, written in one transaction or not at all.

    Precondition: the history of `execution` has exactly `after` entries (0: there is no such execution yet), it
    belongs to the writer, no step in `steps` has ended before or has a higher token, `start_key` is unused, and each
    pool of which `claims` take a place has fewer than its limit taken.
    `steps` and `header` are the state after the entries: `state == fold(history)`, which `flexcore verify` checks.
    `scopes` ride in the steps' table so that the whole state is there.
    """

    execution: ExecutionId
    after: int
    entries: tuple[HistoryEntry, ...]
    header: ExecutionHeader
    steps: tuple[StepState, ...] = ()
    scopes: tuple[ScopeState, ...] = ()
    consumed: tuple[int, ...] = ()  # commands that this transition answers
    cache: tuple[CacheEntry, ...] = ()
    start_key: IdempotencyKey | None = None
    claims: tuple[ClaimChange, ...] = ()  # what changes of the places that `header` and `steps` hold and wait for
    observations: tuple[Observation, ...] = ()  # how the attempts went that end here


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenExecution:
    """An execution that has not ended, as its new owner finds it."""

    id: ExecutionId
    history: tuple[HistoryEntry, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What somebody who is not the owner wants of an execution. Durable: the insert is the acknowledgement."""

    id: int
    execution: ExecutionId
    kind: str  # "cancel" for now; "signal", "approve" have their place here
    body: JSON
    created_at: datetime


class Journal(Protocol):
    """The one write path."""

    async def commit(self, changes: ChangeSet) -> None:
        """Return after the fsync of the group this change set joined.

        Raises Fenced (no longer the owner), IllegalTransition (the precondition does not hold; nothing was written),
        AlreadyExists (`start_key` is taken; the message names the execution), PoolFull (a place that `claims` take is
        not there any more), Ambiguous, StoreUnavailable.
        """
        ...

    def open_executions(self, only: Collection[ExecutionId] = ()) -> AsyncIterator[OpenExecution]:
        """Give every unfinished execution that belongs to this owner, or those of `only` among them."""
        ...

    async def history(self, id: ExecutionId) -> Sequence[HistoryEntry]:
        """Give the whole history of any execution, for a parent that looks for its child. Raises NotFound."""
        ...

    async def commands(self) -> Sequence[Command]:
        """Give the unconsumed commands for executions of this owner, oldest first."""
        ...

    async def changed(self) -> bool:
        """Say, cheaply, whether another process has committed anything since the last call."""
        ...

    async def pools(
        self,
        wanted: Mapping[str, int],
        execution: ExecutionId | None = None,
        without: Mapping[str, Set[ExecutionId]] = NOBODY,
    ) -> Mapping[str, PoolUse]:
        """Look at pools, each with its limit, as an execution sees them, or (None) as nobody in particular does.

        Of those who wait, as many as the limit are given; the executions of `without` are passed over.
        """
        ...

    async def cached(self, key: str, now: datetime) -> Payload | None:
        """Give a cached result that has not expired."""
        ...


class Ownership(Protocol):
    """Who may write what. One row per process; on SQLite an OS lock in the store's folder tells the dead."""

    async def acquire(self) -> Owner:
        """Become an owner: a new row, epoch 1, held until `release` or death."""
        ...

    async def dead(self) -> Sequence[ServerId]:
        """Name the owners that are provably dead and still have unfinished executions."""
        ...

    async def take_over(self, dead: ServerId, only: ExecutionId | None = None) -> Sequence[ExecutionId]:
        """Fence a dead owner and take its unfinished executions (or just one of them); name them.

        Raises Conflict when it turns out to be alive. Two takers never get the same execution.
        """
        ...

    async def release(self) -> None:
        """Give up the row and the lock. Unfinished executions stay, for whoever comes next."""
        ...


class Commands(Protocol):
    """How everybody else reaches the owner."""

    async def send(self, execution: ExecutionId, kind: str, body: JSON, now: datetime) -> int:
        """Insert a command. Durable on return. Raises NotFound, or IllegalTransition when the execution has ended."""
        ...
