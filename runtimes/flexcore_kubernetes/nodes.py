"""How large a step can be here: the largest node, where nodes may be looked at. Pure."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from flexcore.runtime.interface import Resources

_QUANTITY = re.compile(r"([0-9.]+)([A-Za-z]*)")
_FACTORS: dict[str, float] = {
    "m": 1e-3,
    "": 1,
    **{unit: 1000**power for power, unit in enumerate(["k", "M", "G", "T", "P"], 1)},
    **{unit: 1024**power for power, unit in enumerate(["Ki", "Mi", "Gi", "Ti", "Pi"], 1)},
}


def quantity(text: str) -> float:
    """Read a quantity of Kubernetes: `500m`, `16Gi`, `4`. Raises ValueError.

    >>> quantity("500m"), quantity("2Ki")
    (0.5, 2048.0)
    """
    found = _QUANTITY.fullmatch(text)
    if found is None or found[2] not in _FACTORS:
        raise ValueError(f"{text!r} is not a quantity")
    return float(found[1]) * _FACTORS[found[2]]


def limits(nodes: Sequence[Mapping[str, Any]], gpu_resource: str) -> Resources:
    """Take the largest of each over all nodes that take work; nothing is known without nodes."""
    ready = [each for each in nodes if not (each.get("spec") or {}).get("unschedulable")]
    if not ready:
        return Resources()
    sizes = [(each.get("status") or {}).get("allocatable") or {} for each in ready]
    return Resources(
        cpu=_largest(sizes, "cpu"),
        memory=_whole(_largest(sizes, "memory")),
        gpu=_largest(sizes, gpu_resource) or 0.0,
        disk=_whole(_largest(sizes, "ephemeral-storage")),
    )


def _largest(sizes: Sequence[Mapping[str, Any]], resource: str) -> float | None:
    return max((quantity(str(each[resource])) for each in sizes if resource in each), default=None)


def _whole(value: float | None) -> int | None:
    return None if value is None else int(value)
