"""How large the cluster is, and whether a step fits it: the largest node counts, for a job begins on one node.

Pure: reads the dashboard's documents.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flexcore.model.workflow import Requirements
from flexcore.runtime.interface import Resources

_OWN = ("CPU", "GPU", "memory", "object_store_memory")
_INTERNAL = ("node:", "accelerator_type:", "ray.io/")
_TAG_SHARE = 0.001  # enough to be sent to a node that has the resource, and so little that nobody is in the way


@dataclass(frozen=True, slots=True)
class Capacity:
    """The nodes that are up, by what they have, and whether the cluster adds nodes by itself."""

    nodes: tuple[Mapping[str, float], ...]
    autoscales: bool = False

    @property
    def limits(self) -> Resources:
        """Say the largest step that fits; where the cluster scales itself, nobody knows."""
        if self.autoscales:
            return Resources()
        return Resources(cpu=self._most("CPU"), memory=int(self._most("memory")) or None, gpu=self._most("GPU"))

    @property
    def tags(self) -> frozenset[str]:
        """Give the custom resources, by which steps ask for nodes."""
        names = {name for node in self.nodes for name in node}
        return frozenset(each for each in names if each not in _OWN and not each.startswith(_INTERNAL))

    def shortage(self, requirements: Requirements, resources: Mapping[str, float]) -> str:
        """Say what no node has for a step; "" when one has it all."""
        wanted = demand(requirements, self.tags, resources)
        if any(all(node.get(name, 0) >= amount for name, amount in wanted.items()) for node in self.nodes):
            return ""
        short = [name for name, amount in wanted.items() if self._most(name) < amount]
        if not short:
            return f"no single node has {', '.join(_said(name, amount) for name, amount in wanted.items())}"
        return "; ".join(
            f"the step requires {_said(name, wanted[name])}, the largest node has {_said(name, self._most(name))}"
            for name in short
        )

    def _most(self, name: str) -> float:
        return max((node.get(name, 0.0) for node in self.nodes), default=0.0)


def demand(requirements: Requirements, tags: frozenset[str], resources: Mapping[str, float]) -> dict[str, float]:
    """Translate what a step requires into Ray's resources; what is not declared is not reserved."""
    wanted: dict[str, float] = {tag: _TAG_SHARE for tag in requirements.tags if tag in tags}
    wanted |= resources
    for name, amount in (("CPU", requirements.cpu), ("GPU", requirements.gpu), ("memory", requirements.memory)):
        if amount:
            wanted[name] = float(amount)
    return wanted


def capacity(nodes: Sequence[Mapping[str, Any]], status: Mapping[str, Any]) -> Capacity:
    """Read the list of nodes and the cluster's report."""
    alive = tuple(each.get("resources_total") or {} for each in nodes if each.get("state") == "ALIVE")
    ids = {str(each.get("node_id")).lower() for each in nodes}
    return Capacity(alive, _autoscales(status, ids))


def _autoscales(status: Mapping[str, Any], ids: set[str]) -> bool:
    """Whether somebody adds nodes: then they have types with names; otherwise, each node is a type of its own."""
    cluster = status.get("clusterStatus") or {}
    report = cluster.get("autoscalerReport") or {}
    if report.get("pendingNodes") or report.get("pendingLaunches"):
        return True
    types = [*(report.get("activeNodes") or {}), *(report.get("idleNodes") or {})]
    return any(each.lower().replace("_", "").removeprefix("node") not in ids for each in types)


def _said(name: str, amount: float) -> str:
    if name == "memory":
        return f"{amount / (1 << 30):.2f} GiB of memory"
    return f"{amount:g} {name if name in _OWN else f'of {name!r}'}"
