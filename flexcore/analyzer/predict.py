"""What to expect of a step on a runtime, by what has been learned. Immutable: what is new makes another model.

Nothing here decides. What is asked often is remembered, per model, in tables that are functions of the model.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from flexcore.analyzer.belief import Belief, belief
from flexcore.analyzer.distributions import Z90
from flexcore.analyzer.folding import fold
from flexcore.analyzer.memory import COOLING, EVERYTHING, NO_PACE, Memory, Moving, Tally
from flexcore.model.observation import Observation
from flexcore.model.placement import Estimate, Evidence

_FAILURES, _TRIES = 1.0, 20.0  # before anything was tried: one failure in twenty
_MOST_FAILURES = 0.5
_BANDWIDTH = 100e6  # bytes per second where nobody has measured


class Start(NamedTuple):
    """How long it takes from the submission to the first instruction, and the variance of that."""

    seconds: Estimate
    variance: float


class Outlook(NamedTuple):
    """What is known of one step on one instance, whatever its size and the load. None: never measured."""

    belief: Belief
    evidence: Evidence
    n: int
    p_fail: float
    warm: Start | None
    cold: Start | None
    run_s: float  # how long any work takes there, on average
    calibration: float


class Familiarity(NamedTuple):
    """How well a step is known, wherever it ran. `x` is where its input's size usually lies.

    While what is learned of its family rests, the rules decide.
    """

    runs: int
    family_runs: int
    typical_bytes: int | None
    x: float
    x_variance: float
    is_resting: bool


@dataclass(frozen=True, slots=True)
class Model:
    """All that is learned, ready to be asked. The same observations in the same order give an equal model."""

    memory: Memory = Memory()
    _outlooks: dict[tuple[str, str, str], Outlook] = field(default_factory=dict, init=False, repr=False, compare=False)
    _known: dict[tuple[str, str], Familiarity] = field(default_factory=dict, init=False, repr=False, compare=False)

    def observed(self, observations: Iterable[Observation]) -> "Model":
        """Fold observations, oldest first, into another model."""
        return Model(fold(self.memory, observations))

    def outlook(self, signature: str, family: str, runtime: str) -> Outlook:
        """Say what is known of a step on an instance."""
        key = (signature, family, runtime)
        known = self._outlooks.get(key)
        if known is None:
            known = self._outlooks[key] = self._outlook(signature, family, runtime)
        return known

    def familiarity(self, signature: str, family: str) -> Familiarity:
        """Say how well a step is known."""
        key = (signature, family)
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = Familiarity(
                sum(cell.runs for cell in self.memory.cells.get(signature, {}).values()),
                self.memory.family(family).runs,
                self.typical_bytes(signature),
                *self.memory.size(signature),
                self.memory.family(family).trust.resting > 0,
            )
        return known

    def incumbent(self, signature: str) -> str | None:
        """Name the instance that the step ran on last."""
        return self.memory.incumbents.get(signature)

    def is_warm(self, runtime: str, now: datetime) -> bool:
        """Say whether an attempt has ended on an instance so lately that the next will start warm."""
        ended = self.memory.paces.get(runtime, NO_PACE).ended
        return ended is not None and now - ended < COOLING

    @property
    def resting(self) -> tuple[str, ...]:
        """Name the families of which what is learned rests, because its choices were worse than the rules'."""
        return tuple(sorted(name for name, family in self.memory.families.items() if family.trust.resting))

    def typical_bytes(self, signature: str) -> int | None:
        """Give the typical size of a step's input, if any was ever known."""
        if signature not in self.memory.sizes:
            return None
        return max(0, round(math.exp(self.memory.size(signature)[0]) * 1e8 - 1e6))

    def bandwidth(self, store: str, runtime: str) -> float:
        """Give bytes per second from a kind of store to an instance."""
        known = self.memory.bandwidths.get((store, runtime))
        return _BANDWIDTH if known is None else math.exp(known.mean)

    def _outlook(self, signature: str, family: str, runtime: str) -> Outlook:
        memory = self.memory
        cell = memory.cells.get(signature, {}).get(runtime)
        pace = memory.paces.get(runtime, NO_PACE)
        return Outlook(
            belief=belief(memory.prior(signature, family, runtime), cell),
            evidence=self._evidence(signature, family, runtime),
            n=0 if cell is None else cell.runs,
            p_fail=self._p_fail(signature, family, runtime),
            warm=_start(pace.warm),
            cold=_start(pace.cold),
            run_s=pace.run.mean,
            calibration=pace.calibration,
        )

    def _evidence(self, signature: str, family: str, runtime: str) -> Evidence:
        cells = self.memory.cells.get(signature, {})
        if runtime in cells and cells[runtime].runs:
            return Evidence.OWN
        if any(cell.runs for cell in cells.values()) or self.memory.family(family).runs:
            return Evidence.FAMILY
        return Evidence.RUNTIME if runtime in self.memory.paces else Evidence.RULE

    def _p_fail(self, signature: str, family: str, runtime: str) -> float:
        """Shrink the step's own failures to those of its family there; without any, to those of the runtime."""
        kin = self.memory.family(family).trials.get(runtime)
        tally = kin or self.memory.family(EVERYTHING).trials.get(runtime, Tally())
        believed = tally.mean(_FAILURES / _TRIES, _TRIES)
        cell = self.memory.cells.get(signature, {}).get(runtime)
        if cell is not None:
            believed = (_TRIES * believed + cell.failures) / (_TRIES + cell.tries)
        return min(believed, _MOST_FAILURES)


def _start(known: Moving) -> Start | None:
    if not known.n:
        return None
    p50, p90 = math.exp(known.mean), math.exp(known.mean + Z90 * math.sqrt(known.variance))
    mean = p50 * math.exp(known.variance / 2)
    return Start(Estimate(p50, p90, mean), mean * mean * math.expm1(known.variance))


NOTHING_LEARNED = Model()
