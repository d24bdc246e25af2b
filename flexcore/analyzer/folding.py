"""Folds observations into what has been learned: one after the other, oldest first, without touching the old value.

A batch copies each table that it writes once, so that the cost is per batch and not per observation.
"""

import math
from collections.abc import Iterable
from datetime import timedelta

from flexcore.analyzer.belief import LEAST_NOISE, SHIFTED, Cell, belief, position
from flexcore.analyzer.memory import COOLING, EVERYTHING, NO_PACE, Family, Memory, Moving, Pace, Tally
from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass
from flexcore.model.observation import Observation

SUCCEEDED = "succeeded"
NOT_THE_RUNTIMES = frozenset({ErrorClass.USER.value, ErrorClass.INPUT.value, ErrorClass.CANCELLED.value})
"""Endings that are not the runtime's doing: the same would have happened anywhere."""

_SHORTEST, _LONGEST = 1e-3, 1e9  # seconds
_FAR = 3.0  # standard deviations
_ENOUGH_TO_JUDGE = 3  # observations, before one can be said to be far off
_CENSORED_WEIGHT = 0.5
_LEAST_MOVED = 10_000_000  # bytes: how long less takes says nothing of the bandwidth
_QUICKEST_WAIT = 0.05  # seconds: below, the ratio of what was and what was predicted says nothing


def fold(memory: Memory, observations: Iterable[Observation]) -> Memory:
    """Give what is known after these observations."""
    folding = _Folding(memory)
    for each in observations:
        folding.add(each)
    return folding.memory


class _Folding:
    """A memory whose tables are this batch's own, so that they may be written until it is done."""

    def __init__(self, memory: Memory) -> None:
        self.cells = dict(memory.cells)
        self.families = dict(memory.families)
        self.sizes = dict(memory.sizes)
        self.paces = dict(memory.paces)
        self.bandwidths = dict(memory.bandwidths)
        self.incumbents = dict(memory.incumbents)
        self.memory = Memory(
            cells=self.cells,
            families=self.families,
            sizes=self.sizes,
            paces=self.paces,
            bandwidths=self.bandwidths,
            incumbents=self.incumbents,
        )

    def add(self, seen: Observation) -> None:
        if not all(map(math.isfinite, seen.seconds.values())):
            return  # a figure of no clock
        x = self._position(seen)
        self._tried(seen, seen.outcome != SUCCEEDED and seen.outcome not in NOT_THE_RUNTIMES)
        self._pace(seen)
        self._trust(seen)
        self.incumbents[seen.signature] = seen.runtime
        run = _worked(seen)
        if run is None:
            return
        if seen.outcome == SUCCEEDED:
            self._timed(seen, x, math.log(max(run, _SHORTEST)))
        elif seen.outcome == ErrorClass.TIMEOUT.value:
            self._censored(seen, x, math.log(max(run, _SHORTEST)))

    def _position(self, seen: Observation) -> float:
        if seen.input_bytes is None:
            return self.memory.size(seen.signature)[0]
        x = position(max(seen.input_bytes, 0))
        self.sizes[seen.signature] = self.sizes.get(seen.signature, Tally()).with_(x)
        return x

    def _tried(self, seen: Observation, failed: bool) -> None:
        row = self.cells.get(seen.signature, {})
        self._set(seen, row.get(seen.runtime, Cell()).tried(failed))
        for name in {seen.family: 0, EVERYTHING: 0}:
            family = self.memory.family(name)
            tally = family.trials.get(seen.runtime, Tally()).with_(float(failed))
            self.families[name] = family._replace(trials={**family.trials, seen.runtime: tally})

    def _set(self, seen: Observation, cell: Cell) -> None:
        self.cells[seen.signature] = {**self.cells.get(seen.signature, {}), seen.runtime: cell}

    def _pace(self, seen: Observation) -> None:
        pace = self.paces.get(seen.runtime, NO_PACE)
        self.paces[seen.runtime] = _paced(pace, seen)
        transfer = seen.seconds.get(Phase.TRANSFER_IN)
        if transfer and seen.store and seen.input_bytes and seen.input_bytes >= _LEAST_MOVED:
            pair = (seen.store, seen.runtime)
            rate = math.log(seen.input_bytes / transfer)
            self.bandwidths[pair] = self.bandwidths.get(pair, Moving()).with_(rate)

    def _trust(self, seen: Observation) -> None:
        family = self.memory.family(seen.family)
        if seen.score is not None and seen.rule_score is not None and not family.trust.resting:
            self.families[seen.family] = family._replace(trust=family.trust.with_(seen.score, seen.rule_score))
        elif family.trust.resting:
            self.families[seen.family] = family._replace(trust=family.trust.rested())

    def _censored(self, seen: Observation, x: float, limit: float) -> None:
        """It would have taken longer than the limit, which is no news where that is what is believed already."""
        cell = self.cells[seen.signature][seen.runtime]
        believed = belief(self.memory.prior(seen.signature, seen.family, seen.runtime), cell)
        at_least = limit + 0.5 * math.sqrt(believed.noise)
        y = max(at_least, believed.intercept + believed.slope * x)
        self._learn(seen, x, y, cell.timed(x, y, _CENSORED_WEIGHT, cell.streak), _CENSORED_WEIGHT)

    def _timed(self, seen: Observation, x: float, y: float) -> None:
        cell = self.cells[seen.signature][seen.runtime]
        if cell.runs < _ENOUGH_TO_JUDGE:
            self._learn(seen, x, y, cell.timed(x, y, 1.0, 0), 1.0)
            return
        believed = belief(self.memory.prior(seen.signature, seen.family, seen.runtime), cell)
        deviation = math.sqrt(max(believed.noise, LEAST_NOISE))
        off = y - believed.intercept - believed.slope * x
        kept = min(max(off, -_FAR * deviation), _FAR * deviation)
        streak = _streak(cell.streak, off, kept)
        after = cell.timed(x, y - off + kept if abs(streak) < SHIFTED else y, 1.0, streak)
        self._noise(seen.family, kept)
        self._learn(seen, x, y - off + kept, after, 1.0)

    def _noise(self, name: str, off: float) -> None:
        family = self.memory.family(name)
        self.families[name] = family._replace(noise=family.noise.with_(off))

    def _learn(self, seen: Observation, x: float, y: float, after: Cell, weight: float) -> None:
        before = self.cells[seen.signature][seen.runtime]
        family = self.memory.family(seen.family)
        slope = family.slope(family.noise_variance())[0]
        level = y - slope * x
        self._set(seen, after)
        for name in {seen.family: 0, EVERYTHING: 0}:
            self.families[name] = self._family(name, seen, level, slope, weight)
        xx, xy = after.spread()
        old_xx, old_xy = before.spread()
        family = self.families[seen.family]
        self.families[seen.family] = family._replace(xx=max(0.0, family.xx + xx - old_xx), xy=family.xy + xy - old_xy)

    def _family(self, name: str, seen: Observation, level: float, slope: float, weight: float) -> Family:
        family = self.memory.family(name)
        effects = family.effects
        own, known = self.memory.step_class(seen.signature, name, slope, seen.runtime)
        if known:
            effects = {**effects, seen.runtime: effects.get(seen.runtime, Tally()).with_(level - own, weight)}
        effect = self.memory.effect(name, seen.runtime)[0]
        return family._replace(level=family.level.with_(level - effect, weight), effects=effects, runs=family.runs + 1)


def _streak(streak: int, off: float, kept: float) -> int:
    """Count how many in a row were cut on the same side, signed by it."""
    if off == kept:
        return 0
    side = 1 if off > 0 else -1
    return streak + side if streak * side > 0 else side


def _paced(pace: Pace, seen: Observation) -> Pace:
    start, queue, run = seen.seconds.get(Phase.START), seen.seconds.get(Phase.QUEUE), _worked(seen)
    warm, cold, expected = pace.warm, pace.cold, seen.expected_wait_s
    calibration = pace.calibration
    if start is not None and _was_cold(pace, seen):
        cold = cold.with_(math.log(max(start, 0.01)))
    elif start is not None:
        warm = warm.with_(math.log(max(start, 0.01)))
    if queue is not None and expected is not None and expected > _QUICKEST_WAIT:
        # `expected` was calibrated already: the product is what would have been right.
        right = pace.calibration * queue / expected
        calibration = 0.9 * calibration + 0.1 * min(max(right, 0.25), 4.0)
    return Pace(
        warm=warm,
        cold=cold,
        run=pace.run if run is None else pace.run.with_(run),
        calibration=calibration,
        ended=seen.at if pace.ended is None else max(pace.ended, seen.at),
    )


def _was_cold(pace: Pace, seen: Observation) -> bool:
    took = min(max(sum(seen.seconds.values()), 0.0), _LONGEST)
    return pace.ended is None or seen.at - timedelta(seconds=took) - pace.ended >= COOLING


def _worked(seen: Observation) -> float | None:
    """Give the seconds of the work itself. Storing what it puts out is part of that: nobody knows its size before."""
    run = seen.seconds.get(Phase.RUN)
    return None if run is None else run + seen.seconds.get(Phase.TRANSFER_OUT, 0.0)
