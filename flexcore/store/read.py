"""How everybody reads: definitions and what happened. Nothing here feeds a decision of the engine."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionHeader, ExecutionState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.pools import PoolView
from flexcore.model.requests import ExecutionQuery, Page
from flexcore.store.audit import AuditEntry


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """A version of a workflow: its document as written, and the files that belong to it by content.

    `files` maps a relative path to the digest of its content in the artifact store. `origin` is the author's folder
    when the version was made on this machine, else empty.
    """

    workspace: str
    name: str
    version: str
    text: str
    file_name: str
    description: str = ""
    runtimes: tuple[str, ...] = ()  # named by its steps (pins and what the rules would choose)
    files: Mapping[str, str] = field(default_factory=dict)
    origin: str = ""
    deployed_by: str = ""
    created_at: datetime


@dataclass(frozen=True, slots=True)
class Standing:
    """Which version of a name new executions take: the one it is pinned to, else the current one."""

    current: str
    pinned: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionView:
    """An execution as the store has it, and the process that owns it."""

    state: ExecutionState
    owner: str
    owner_alive: bool


@dataclass(frozen=True, slots=True)
class Fault:
    """One thing that `verify` found wrong."""

    execution: str
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreStatus:
    """What `doctor` shows of a store."""

    url: str
    schema_version: int
    durability: str  # "full" or "reduced: …"
    installation: str
    executions: Mapping[str, int] = field(default_factory=dict)  # by status


class Catalog(Protocol):
    """Definitions, addressed by name and version. A version never changes; deploying one makes it the current one.

    What changes something takes the line that the audit trail gets for it, in the same transaction.
    """

    async def put(self, definition: Definition, audit: AuditEntry | None = None) -> None:
        """Store a version and make it the current one. Storing it again also takes over its `origin`."""
        ...

    async def get(self, workspace: str, name: str, version: str | None = None) -> Definition:
        """Give a version, by its hash or how that begins; without one, what new executions take.

        Raises NotFound with the names that are there, InvalidRequest when several versions begin like this.
        """
        ...

    async def list(self, workspace: str) -> Sequence[Definition]:
        """Give the version of every name that new executions take, by name."""
        ...

    async def versions(self, workspace: str, name: str) -> Sequence[Definition]:
        """Give all versions of a name, the one deployed last first. Raises NotFound."""
        ...

    async def standing(self, workspace: str, name: str) -> Standing:
        """Say which version of a name is current, and to which it is pinned. Raises NotFound."""
        ...

    async def pin(self, workspace: str, name: str, version: str | None, audit: AuditEntry | None = None) -> None:
        """Have new executions take a version, or again the current one. Raises NotFound."""
        ...

    async def move(self, workspace: str, name: str, standing: Standing, version: str, audit: AuditEntry) -> None:
        """Make another version the current one. Raises Conflict when what is current has changed meanwhile."""
        ...

    async def delete(self, workspace: str, name: str, audit: AuditEntry | None = None) -> None:
        """Take a name and its pin out of the list; its versions stay for executions. Raises NotFound."""
        ...


class Reader(Protocol):
    """Committed history and current state."""

    async def execution(self, id: ExecutionId) -> ExecutionView:
        """Give an execution. Raises NotFound."""
        ...

    async def executions(self, query: ExecutionQuery) -> Page[ExecutionHeader]:
        """Give a page of executions, newest first."""
        ...

    async def history(self, id: ExecutionId, after: int = 0, limit: int = 1000) -> Page[HistoryEntry]:
        """Give history entries with a `seq` above `after`. Raises NotFound."""
        ...

    async def started_with(self, workspace: str, workflow: str, key: str) -> tuple[ExecutionId, str] | None:
        """Give the execution and the fingerprint that an idempotency key stands for."""
        ...

    async def ids(self, after: str = "", limit: int = 1000) -> Page[ExecutionId]:
        """Give the executions of all workspaces, oldest first, with an id above `after`, which is a page's `next`."""
        ...

    async def pools(self, names: Iterable[str]) -> Mapping[str, PoolView]:
        """Give limited pools as they are now, for people."""
        ...

    async def claims(self, id: ExecutionId) -> Collection[tuple[str, StepPath, bool]]:
        """Give what the store has in pools for an execution: the pool, the step, and whether the place is held."""
        ...

    async def changed(self) -> bool:
        """Say, cheaply, whether anybody has committed anything since the last call on this reader."""
        ...

    async def delete(self, id: ExecutionId) -> None:
        """Remove a finished execution with its history. Raises NotFound, IllegalTransition."""
        ...

    async def status(self) -> StoreStatus:
        """Describe the store."""
        ...
