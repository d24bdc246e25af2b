"""Who changed what, and when: one line for each call that changes something, refused ones included.

Details are names, versions and counts, never inputs, results or secrets: the trail is read by more people than those.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Protocol

from flexcore.model.requests import AuditQuery, Page
from flexcore.model.values import JSON

DONE = "done"


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One call. `workspace` is empty for what concerns the whole store; `outcome` is `done` or an error's code."""

    at: datetime
    workspace: str
    actor: str
    action: str
    subject: str
    details: Mapping[str, JSON] = field(default_factory=dict)
    outcome: str = DONE


class AuditTrail(Protocol):
    """Lines are added and never changed."""

    async def add(self, entry: AuditEntry) -> None:
        """Add a line, durable on return."""
        ...

    def post(self, entry: AuditEntry) -> None:
        """Add a line soon: with whatever else waits, without making the caller wait for the disk."""
        ...

    def close(self) -> None:
        """Have what waits written before the store is closed."""
        ...

    async def entries(self, query: AuditQuery) -> Page[AuditEntry]:
        """Give lines, the newest first."""
        ...
