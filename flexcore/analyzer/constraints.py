"""Hard constraints: what a step needs, held against what a runtime can do and how it is.

Each violation is a reason code with a sentence that names the figures. Constraints are never traded against anything.
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from flexcore.analyzer.snapshot import Candidate
from flexcore.model.placement import Infeasibility, ReasonCode
from flexcore.model.workflow import Requirements, StepKind
from flexcore.runtime.interface import Capabilities, Health

_UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def size(amount: int) -> str:
    """Write bytes for people, in powers of ten: `2.5 GB`."""
    for unit, factor in _UNITS:
        if amount >= factor:
            return f"{amount / factor:.3g} {unit}"
    return f"{amount} bytes"


def infeasibilities(
    kind: StepKind, requirements: Requirements, candidate: Candidate, assumed: timedelta
) -> tuple[Infeasibility, ...]:
    """List everything that keeps the candidate from running the step; empty means feasible.

    `assumed` is how long a step of unknown length is taken to run when its cost is held against its ceiling.
    """
    if not candidate.enabled:
        return (Infeasibility(ReasonCode.DISABLED, f"{candidate.name} is disabled in the settings"),)
    capabilities = candidate.capabilities
    if capabilities is None:
        return (candidate.obstacle or _unasked(candidate),)
    if kind not in capabilities.step_kinds:
        unsupported = Infeasibility(ReasonCode.TYPE_UNSUPPORTED, f"{candidate.name} cannot run {kind.value} steps")
        return (unsupported, *_state(candidate))
    return (
        *_amounts(candidate.name, requirements, capabilities),
        *_tags(candidate.name, requirements, capabilities),
        *_cost(candidate.name, requirements, capabilities, assumed),
        *_state(candidate),
    )


def _unasked(candidate: Candidate) -> Infeasibility:
    why = candidate.health.reason if candidate.health else "it has not answered yet"
    return Infeasibility(ReasonCode.UNHEALTHY, f"{candidate.name} has not said what it can do: {why}")


def _amounts(name: str, needs: Requirements, capabilities: Capabilities) -> Iterator[Infeasibility]:
    limits = capabilities.limits
    if _exceeds(needs.cpu, limits.cpu):
        yield Infeasibility(ReasonCode.CPU, f"needs {needs.cpu:g} cpu, {name} has at most {limits.cpu:g}")
    if needs.memory is not None and limits.memory is not None and needs.memory > limits.memory:
        wanted, there = size(needs.memory), size(limits.memory)
        yield Infeasibility(ReasonCode.MEM, f"needs {wanted} of memory, {name} has at most {there}")
    if _exceeds(needs.gpu, limits.gpu):
        has = f"has at most {limits.gpu:g}" if limits.gpu else "has none"
        yield Infeasibility(ReasonCode.GPU, f"needs {needs.gpu:g} gpu, {name} {has}")
    if needs.disk is not None and limits.disk is not None and needs.disk > limits.disk:
        wanted, there = size(needs.disk), size(limits.disk)
        yield Infeasibility(ReasonCode.DISK, f"needs {wanted} of disk, {name} has at most {there}")


def _exceeds(needed: float | None, limit: float | None) -> bool:
    return needed is not None and limit is not None and needed > limit


def _tags(name: str, needs: Requirements, capabilities: Capabilities) -> Iterator[Infeasibility]:
    missing = [tag for tag in needs.tags if tag not in capabilities.tags]
    if missing:
        present = ", ".join(sorted(capabilities.tags)) or "none"
        sentence = f"needs the tags {', '.join(missing)}; {name} has: {present}"
        yield Infeasibility(ReasonCode.TAGS, sentence)


def _cost(name: str, needs: Requirements, capabilities: Capabilities, assumed: timedelta) -> Iterator[Infeasibility]:
    price = capabilities.price_per_hour
    if needs.max_cost is None or price is None:
        return
    length = needs.deadline or assumed
    cost = price * Decimal(length.total_seconds()) / 3600
    if cost > Decimal(str(needs.max_cost)):
        sentence = f"may cost {cost:.4g} on {name} ({price} an hour for {length}), the ceiling is {needs.max_cost:g}"
        yield Infeasibility(ReasonCode.COST_CEILING, sentence)


def _state(candidate: Candidate) -> Iterator[Infeasibility]:
    if candidate.obstacle is not None:
        yield candidate.obstacle
    health = candidate.health
    if health is not None and health.state is Health.DOWN:
        yield Infeasibility(ReasonCode.UNHEALTHY, f"{candidate.name} is down: {health.reason}")
