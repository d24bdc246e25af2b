"""What takes old things out of a store: one method per kind, each safe beside everybody who works in the store.

How old is old enough is the caller's to say (`engine/services/retention.py`); what is still needed is decided here, and
nothing that is needed is ever removed. With `dry_run` nothing is removed, and the answers are the same.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from flexcore.model.ids import ExecutionId
from flexcore.model.values import Ref
from flexcore.runtime.plugin import ArtifactStore

GRACE = timedelta(hours=1)
"""So long content that nobody refers to is left alone at least: somebody may be about to."""


@dataclass(frozen=True, slots=True)
class Collected:
    """How much went, or would go."""

    count: int = 0
    bytes: int = 0

    def __add__(self, other: "Collected") -> "Collected":
        return Collected(self.count + other.count, self.bytes + other.bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gone:
    """What went, or would go, before: what is kept for its sake alone may go as well."""

    executions: frozenset[ExecutionId] = frozenset()
    versions: frozenset[tuple[str, str, str]] = frozenset()  # workspace, name, version
    cache_before: datetime | None = None


class KeptArtifacts(ArtifactStore, Protocol):
    """Content that is collected when nobody refers to it."""

    async def keep(self, refs: Iterable[Ref]) -> None:
        """Make content count as just stored, because it is about to be referred to again. Raises NotFound."""
        ...


class CollectedArtifacts(KeptArtifacts, Protocol):
    """Content with its age."""

    async def old(self, before: datetime) -> Mapping[str, int]:
        """Name what was last stored before, each with its size in bytes."""
        ...

    async def remove(self, names: Sequence[str], before: datetime) -> Mapping[str, int]:
        """Remove content unless it has been stored again meanwhile; name what went, with its sizes."""
        ...


class Retention(Protocol):
    """Removes what has ended, expired, or is referred to by nobody."""

    def alone(self) -> AbstractContextManager[None]:
        """Be the only one who collects in this store for the time of a block. Raises Conflict."""
        ...

    async def executions(
        self, before: datetime, *, keep_last: int, dry_run: bool
    ) -> tuple[Collected, frozenset[ExecutionId]]:
        """Remove executions that ended before, with their logs, but for the newest `keep_last` of each workflow.

        A sub-execution stays as long as its parent does.
        """
        ...

    async def versions(
        self, before: datetime, gone: Collection[ExecutionId], *, dry_run: bool
    ) -> tuple[Collected, frozenset[tuple[str, str, str]]]:
        """Remove versions deployed before that are neither current nor pinned and that no execution uses."""
        ...

    async def cache(self, before: datetime, *, dry_run: bool) -> Collected:
        """Remove cached results that expired before."""
        ...

    async def keys(self, expired_before: datetime, answered_before: datetime, *, dry_run: bool) -> Collected:
        """Remove idempotency keys that have expired, and commands that were answered."""
        ...

    async def logs(self, before: datetime, gone: Collection[ExecutionId], *, dry_run: bool) -> Collected:
        """Remove the logs of executions that ended before or are not there at all; those of `gone` went already."""
        ...

    async def artifacts(self, before: datetime, gone: Gone, *, dry_run: bool) -> Collected:
        """Remove content stored before that no execution, version, command or cached result refers to.

        What was stored since the oldest attempt in flight went out stays: its outputs are referred to at its end only.
        """
        ...

    async def audit(self, before: datetime, *, dry_run: bool) -> Collected:
        """Remove old lines of the audit trail."""
        ...
