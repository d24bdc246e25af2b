"""How everybody reads: definitions and what happened. Nothing here feeds a decision of the engine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionHeader, ExecutionState
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import ExecutionQuery, Page


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
    created_at: datetime


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
    """Definitions, addressed by name and version. A version never changes; deploying one makes it the newest."""

    async def put(self, definition: Definition) -> None:
        """Store a version and make it the newest of its name. Storing it again also takes over its `origin`."""
        ...

    async def get(self, workspace: str, name: str, version: str | None = None) -> Definition:
        """Give a version, the newest without one. Raises NotFound with the names that are there."""
        ...

    async def list(self, workspace: str) -> Sequence[Definition]:
        """Give the newest version of every name, by name."""
        ...

    async def versions(self, workspace: str, name: str) -> Sequence[Definition]:
        """Give all versions of a name, newest first. Raises NotFound."""
        ...

    async def delete(self, workspace: str, name: str) -> None:
        """Take a name out of the list; versions that executions use stay readable. Raises NotFound."""
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

    async def changed(self) -> bool:
        """Say, cheaply, whether anybody has committed anything since the last call on this reader."""
        ...

    async def delete(self, id: ExecutionId) -> None:
        """Remove a finished execution with its history. Raises NotFound, IllegalTransition."""
        ...

    async def status(self) -> StoreStatus:
        """Describe the store."""
        ...
