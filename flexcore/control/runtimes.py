"""The configured runtimes as documents."""

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec

from flexcore.model.errors import FlexCoreError
from flexcore.model.requests import Document
from flexcore.monitor.document import time
from flexcore.runtime.candidate import Candidate
from flexcore.runtime.interface import Capabilities, HealthStatus
from flexcore.runtime.registry import Registry


@dataclass(frozen=True, slots=True)
class RuntimesView:
    """Asks the registry, shows the answers."""

    registry: Registry

    async def all(self) -> Sequence[Document]:
        """List all instances, disabled ones too."""
        candidates = await self.registry.candidates()
        return [_document(each) for each in candidates]

    async def one(self, name: str) -> Document:
        """Show one instance in full. Raises NotFound."""
        runtime = self.registry.get(name)
        found = next(each for each in await self.all() if each["name"] == name)
        found["health"] = _health(await runtime.health())
        try:
            found["capabilities"] = _capabilities(await runtime.capabilities())
        except FlexCoreError as error:
            found["capabilities"] = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        return found


def _document(candidate: Candidate) -> Document:
    health = _health(candidate.health)
    if candidate.obstacle is not None:
        health = {"state": "down", "reason": candidate.obstacle.reason}
    return {
        "name": candidate.name,
        "type": candidate.kind,
        "enabled": candidate.enabled,
        "priority": candidate.priority,
        "health": health,
        "step_kinds": sorted(candidate.capabilities.step_kinds) if candidate.capabilities else [],
    }


def _health(status: HealthStatus | None) -> Document | None:
    if status is None:
        return None
    latency = status.start_latency
    return {
        "state": status.state.value,
        "reason": status.reason,
        "start_latency_s": None if latency is None else latency.total_seconds(),
        "checked_at": time(status.checked_at),
    }


def _capabilities(found: Capabilities) -> Document:
    shown: Document = msgspec.to_builtins(found)
    return shown | {
        "step_kinds": sorted(found.step_kinds),
        "tags": sorted(found.tags),
        "data_stores": sorted(found.data_stores),
    }
