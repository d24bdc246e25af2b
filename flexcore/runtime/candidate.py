"""A runtime instance as it stands at one moment: what the registry tells and placement reads."""

from dataclasses import dataclass

from flexcore.model.placement import Infeasibility
from flexcore.runtime.interface import Capabilities, HealthStatus


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """One runtime instance as it stands. `kind` is its type (`ray`), `name` the instance (`ray-eu`).

    `capabilities` is None where the instance could not be asked; `health` None means not looked at yet, which does
    not exclude it. `obstacle` is a reason that the registry knows: the plug-in is missing, the circuit is open.
    """

    name: str
    kind: str
    priority: int = 100  # lower is preferred
    capabilities: Capabilities | None = None
    health: HealthStatus | None = None
    enabled: bool = True
    obstacle: Infeasibility | None = None
