"""How one step stands with one instance at a moment, apart from the size of its input: what a snapshot can remember.

Load, price, start and what is learned, brought together once per snapshot, step and instance; placement then only
puts in the size.
"""

from typing import NamedTuple

from flexcore.analyzer.belief import Belief
from flexcore.analyzer.predict import Outlook, Start
from flexcore.model.placement import Estimate, Evidence
from flexcore.runtime.candidate import Candidate
from flexcore.runtime.interface import Health

ASSUMED_START = {"local": 0.1, "meltano": 2.0, "ray": 2.0, "kubernetes": 5.0}
"""Seconds to start by type of runtime, while nothing was measured and the runtime does not tell."""

_ASSUMED_START = 1.0
_NO_WAIT = Estimate(0.0, 0.0, 0.0)


class Load(NamedTuple):
    """How busy an instance is. `residual_s` is how long what runs will still take, on average; None: as it is learned.

    `slots` is how many attempts run at a time; None: what the runtime's capabilities say, and if they don't, any
    number. `warm` says whether a start would find something ready.
    """

    queued: int = 0
    running: int = 0
    slots: int | None = None
    residual_s: float | None = None
    warm: bool | None = None


IDLE = Load()


class Standing(NamedTuple):
    """What goes into a prediction besides the size. `apart` is the mean of wait and start, `again` 1 / (1 - p_fail)."""

    belief: Belief
    wait: Estimate
    start: Estimate
    apart: float
    apart_variance: float
    price_per_second: float | None
    p_fail: float
    again: float
    is_degraded: bool
    reads_files: bool
    n: int
    evidence: Evidence


def standing(outlook: Outlook, candidate: Candidate, load: Load, price: float | None) -> Standing:
    """Bring together what is known of a step on an instance. `price` is per hour."""
    wait = _wait(load, candidate, outlook)
    start, start_variance = _start(load, candidate, outlook)
    reached = candidate.capabilities.data_stores if candidate.capabilities else frozenset[str]()
    return Standing(
        belief=outlook.belief,
        wait=wait,
        start=start,
        apart=wait.mean + start.mean,
        apart_variance=(0.8 * wait.mean) ** 2 + start_variance,
        price_per_second=None if price is None else price / 3600,
        p_fail=outlook.p_fail,
        again=1 / (1 - outlook.p_fail),
        is_degraded=candidate.health is not None and candidate.health.state is Health.DEGRADED,
        reads_files="file" in reached,
        n=outlook.n,
        evidence=outlook.evidence,
    )


def _wait(load: Load, candidate: Candidate, known: Outlook) -> Estimate:
    slots = load.slots
    if slots is None and candidate.capabilities is not None:
        slots = candidate.capabilities.limits.slots
    ahead = load.queued + load.running - slots + 1 if slots else 0
    if not slots or ahead <= 0:
        return _NO_WAIT
    residual = known.run_s if load.residual_s is None else load.residual_s
    seconds = ahead / slots * residual * known.calibration
    return Estimate(seconds, 2 * seconds, seconds)


def _start(load: Load, candidate: Candidate, known: Outlook) -> Start:
    start = (known.cold or known.warm) if load.warm is False else (known.warm or known.cold)
    if start is not None:
        return start
    told = candidate.health.start_latency if candidate.health else None
    seconds = ASSUMED_START.get(candidate.kind, _ASSUMED_START) if told is None else told.total_seconds()
    return Start(Estimate(seconds, 2 * seconds, seconds), seconds * seconds)


def price_of(candidate: Candidate, stated: float | None) -> float | None:
    """Give the price per hour: what is stated, else what the runtime says; None without one."""
    if stated is not None:
        return stated
    own = candidate.capabilities.price_per_hour if candidate.capabilities else None
    return None if own is None else float(own)
