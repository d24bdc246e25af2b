"""Hard constraints: what a step needs, held against what a runtime can do and how it is.

Each violation is a reason code with a sentence that names the figures. Constraints are never traded against anything.
"""

from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

from flexcore.analyzer.view import StepView
from flexcore.model.placement import Infeasibility, Prediction, ReasonCode
from flexcore.model.workflow import Requirements, StepKind
from flexcore.runtime.candidate import Candidate
from flexcore.runtime.interface import Capabilities, Health

_UNITS = (("TB", 10**12), ("GB", 10**9), ("MB", 10**6), ("kB", 10**3))


def size(amount: int) -> str:
    """Write bytes for people, in powers of ten: `2.5 GB`."""
    for unit, factor in _UNITS:
        if amount >= factor:
            return f"{amount / factor:.3g} {unit}"
    return f"{amount} bytes"


def infeasibilities(
    step: StepView, candidate: Candidate, assumed: timedelta, price: float | None = None
) -> tuple[Infeasibility, ...]:
    """List everything that keeps the candidate from running the step; empty means feasible.

    `assumed` is how long a step of unknown length is taken to run when its cost is held against its ceiling; `price`
    per hour goes before what the runtime says. The deadline is not looked at here: that takes a prediction.
    """
    if not candidate.enabled:
        return (Infeasibility(ReasonCode.DISABLED, f"{candidate.name} is disabled in the settings"),)
    capabilities = candidate.capabilities
    if capabilities is None:
        return (candidate.obstacle or _unasked(candidate),)
    if step.kind not in capabilities.step_kinds:
        unsupported = Infeasibility(ReasonCode.TYPE_UNSUPPORTED, f"{candidate.name} cannot run {step.kind.value} steps")
        return (unsupported, *_state(candidate))
    needs = step.requirements
    if _plainly_fits(step, needs, candidate, capabilities):
        return ()
    return (
        *_amounts(candidate.name, needs, capabilities),
        *_tags(candidate.name, needs, capabilities),
        *_image(candidate.name, step.facts.image, capabilities),
        *_data(candidate.name, step.data_stores, capabilities),
        *_cost(candidate.name, needs, capabilities.price_per_hour if price is None else price, assumed),
        *_state(candidate),
    )


def _plainly_fits(step: StepView, needs: Requirements, candidate: Candidate, capabilities: Capabilities) -> bool:
    """Answer for the usual case, in which nothing is wrong, without gathering sentences; False says nothing."""
    limits, health = capabilities.limits, candidate.health
    return (
        (needs.cpu is None or limits.cpu is None or needs.cpu <= limits.cpu)
        and (needs.memory is None or limits.memory is None or needs.memory <= limits.memory)
        and (needs.gpu is None or limits.gpu is None or needs.gpu <= limits.gpu)
        and needs.disk is None
        and needs.max_cost is None
        and not needs.tags
        and not step.facts.image
        and step.data_stores <= capabilities.data_stores
        and candidate.obstacle is None
        and (health is None or health.state is not Health.DOWN)
    )


def too_late(name: str, prediction: Prediction, slack: float) -> Infeasibility:
    """Say that a runtime is predicted to miss the deadline, and on what that rests."""
    took = seconds(prediction.total.p50)
    sentence = f"{name} would take about {took} {_basis(prediction)}, {seconds(max(slack, 0.0))} are left"
    return Infeasibility(ReasonCode.DEADLINE, sentence)


def too_costly(name: str, prediction: Prediction, cost: float, ceiling: float) -> Infeasibility:
    """Say that a step is predicted to cost more on a runtime than it may, and on what that rests."""
    sentence = f"would cost about {cost:.3g} on {name} {_basis(prediction)}, the ceiling is {ceiling:g}"
    return Infeasibility(ReasonCode.COST_CEILING, sentence)


def _basis(prediction: Prediction) -> str:
    runs = "1 earlier run" if prediction.n == 1 else f"{prediction.n} earlier runs"
    return f"by {runs} there" if prediction.n else "by its runs elsewhere"


def seconds(amount: float) -> str:
    """Write seconds for people: `1.2 s`, `4.5 min`, `3.1 h`."""
    if amount < 120:
        return f"{amount:.2g} s" if amount < 10 else f"{amount:.0f} s"
    return f"{amount / 60:.3g} min" if amount < 7200 else f"{amount / 3600:.3g} h"


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


def _image(name: str, image: str, capabilities: Capabilities) -> Iterator[Infeasibility]:
    if image and StepKind.CONTAINER not in capabilities.step_kinds:
        yield Infeasibility(ReasonCode.NO_IMAGE, f"asks for the image {image}, {name} runs no images")


def _data(name: str, stores: frozenset[str], capabilities: Capabilities) -> Iterator[Infeasibility]:
    missing = stores - capabilities.data_stores
    if missing:
        reached = ", ".join(sorted(capabilities.data_stores)) or "none"
        sentence = f"needs data from a store of type {', '.join(sorted(missing))}; {name} reaches: {reached}"
        yield Infeasibility(ReasonCode.DATA_UNREACHABLE, sentence)


def _cost(name: str, needs: Requirements, price: Decimal | float | None, assumed: timedelta) -> Iterator[Infeasibility]:
    if needs.max_cost is None or price is None:
        return
    length = needs.deadline or assumed
    cost = Decimal(str(price)) * Decimal(length.total_seconds()) / 3600
    if cost > Decimal(str(needs.max_cost)):
        rate = f"{price} an hour, for {seconds(length.total_seconds())}"
        sentence = f"may cost {cost:.4g} on {name} ({rate}), the ceiling is {needs.max_cost:g}"
        yield Infeasibility(ReasonCode.COST_CEILING, sentence)


def _state(candidate: Candidate) -> Iterator[Infeasibility]:
    if candidate.obstacle is not None:
        yield candidate.obstacle
    health = candidate.health
    if health is not None and health.state is Health.DOWN:
        yield Infeasibility(ReasonCode.UNHEALTHY, f"{candidate.name} is down: {health.reason}")
