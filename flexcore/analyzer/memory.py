"""What has been learned so far, as one immutable value, and what follows from it for a step that a runtime never ran.

How long a step takes is what the step is (its class) plus what the runtime is (its effect): the additive two-way
model. Effects are told only by steps that ran on several runtimes, compared with themselves, because routing is not
random: where long steps go, runtimes look slow. So a runtime that a step has never tried becomes predictable.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any, NamedTuple

from flexcore.analyzer.belief import FORGETTING, PRIOR_SLOPE, PRIOR_SLOPE_VARIANCE, Cell, Prior
from flexcore.analyzer.trust import Trust

EVERYTHING = ""  # the family of all families
COOLING = timedelta(minutes=10)  # without an attempt, after which the next start counts as a cold one
STRENGTH = 2.0  # of a prior, in observations
_NOISE = 0.25  # variance of ln(seconds) between runs of the same step: a standard deviation of a factor 1.65
_NOISE_STRENGTH = 4.0
_EFFECT_VARIANCE = 0.5  # how far runtimes differ: a factor 2
_LEVEL_VARIANCE = 4.0  # how far steps differ: a factor 7
_LEAST_STRENGTH = 0.01
_NOTHING: Mapping[Any, Any] = MappingProxyType({})
_SIZE_VARIANCE = 4.0  # of x, for a step whose size nobody ever knew


class Tally(NamedTuple):
    """Weighted sums of a quantity and of its square; what is old fades."""

    weight: float = 0.0
    total: float = 0.0
    squares: float = 0.0

    def with_(self, value: float, weight: float = 1.0) -> "Tally":
        """Fold a value."""
        return Tally(
            self.weight * FORGETTING + weight,
            self.total * FORGETTING + weight * value,
            self.squares * FORGETTING + weight * value * value,
        )

    def mean(self, before: float, strength: float) -> float:
        """Give the mean, shrunk to what was believed before."""
        return (strength * before + self.total) / (strength + self.weight)

    def variance(self, before: float, strength: float) -> float:
        """Give the variance around the mean, shrunk to what was believed before."""
        around = self.squares - self.total * self.total / self.weight if self.weight > 0 else 0.0
        return (strength * before + max(0.0, around)) / (strength + self.weight)


class Moving(NamedTuple):
    """An exponentially weighted mean and variance; the first values count alike, so that none of them sticks."""

    n: int = 0
    mean: float = 0.0
    variance: float = 0.0

    def with_(self, value: float, share: float = 0.2) -> "Moving":
        """Fold a value that counts for `share` of the new mean."""
        share = max(share, 1 / (self.n + 1))
        off = value - self.mean
        return Moving(self.n + 1, self.mean + share * off, (1 - share) * (self.variance + share * off * off))


class Family(NamedTuple):
    """What is known of steps that resemble each other. `effects` and `trials` are by runtime.

    `xx` and `xy` are sums over the cells of this family, each around its own mean: a slope from steps compared with
    themselves.
    """

    level: Tally = Tally()
    noise: Tally = Tally()
    effects: Mapping[str, Tally] = _NOTHING
    trials: Mapping[str, Tally] = _NOTHING  # weight: tries, total: failures
    xx: float = 0.0
    xy: float = 0.0
    runs: int = 0
    trust: Trust = Trust()

    def noise_variance(self) -> float:
        """Give the variance of ln(seconds) between runs of one step."""
        return (_NOISE_STRENGTH * _NOISE + self.noise.squares) / (_NOISE_STRENGTH + self.noise.weight)

    def slope(self, noise: float) -> tuple[float, float]:
        """Give the slope of ln(seconds) over x, and its variance."""
        stiffness = noise / PRIOR_SLOPE_VARIANCE
        slope = (stiffness * PRIOR_SLOPE + self.xy) / (stiffness + self.xx)
        return min(max(slope, 0.0), 1.5), noise / (stiffness + self.xx)


class Pace(NamedTuple):
    """How an instance works apart from the steps. Starts are logarithms of seconds, `run` is in seconds.

    A start is cold after the instance had nothing to do for `COOLING`; `ended` is when its latest attempt did.
    `calibration` is how much longer queues last than predicted.
    """

    warm: Moving = Moving()
    cold: Moving = Moving()
    run: Moving = Moving()
    calibration: float = 1.0
    ended: datetime | None = None


NO_FAMILY = Family()
NO_PACE = Pace()


class Memory(NamedTuple):
    """All that is learned. Signatures, families, instances and stores are known by their names."""

    cells: Mapping[str, Mapping[str, Cell]] = _NOTHING  # signature → instance → cell
    families: Mapping[str, Family] = _NOTHING
    sizes: Mapping[str, Tally] = _NOTHING  # signature → x of the known sizes of its input
    paces: Mapping[str, Pace] = _NOTHING
    bandwidths: Mapping[tuple[str, str], Moving] = _NOTHING  # (store, instance) → ln(bytes/s)
    incumbents: Mapping[str, str] = _NOTHING  # signature → instance of the latest run

    def family(self, name: str) -> Family:
        """Give what is known of a family."""
        return self.families.get(name, NO_FAMILY)

    def effect(self, family: str, runtime: str) -> tuple[float, float]:
        """Give how much slower than others the runtime is, in ln(seconds), and how many observations say so."""
        overall = self.family(EVERYTHING).effects.get(runtime, Tally())
        own = self.family(family).effects.get(runtime, Tally())
        return own.mean(overall.mean(0.0, STRENGTH), STRENGTH), max(overall.weight, own.weight)

    def level(self, family: str) -> float:
        """Give the mean of ln(seconds) in a family, at x = 0 and without the effects of runtimes."""
        overall = self.family(EVERYTHING).level.mean(0.0, 0.05)
        return self.family(family).level.mean(overall, 1.0)

    def step_class(self, signature: str, family: str, slope: float, without: str) -> tuple[float, float]:
        """Give what the step itself is, by what was seen of it on other runtimes, and how many observations say so."""
        total = seen = 0.0
        for runtime, cell in self.cells.get(signature, {}).items():
            if runtime != without and cell.weight > 0:
                total += cell.weight * (cell.intercept(slope) - self.effect(family, runtime)[0])
                seen += cell.weight
        return (total / seen, seen) if seen else (0.0, 0.0)

    def size(self, signature: str) -> tuple[float, float]:
        """Give mean and variance of x of a signature whose size is not known this time."""
        tally = self.sizes.get(signature)
        if tally is None:
            return 0.0, 0.0 if signature in self.cells else _SIZE_VARIANCE
        return tally.total / tally.weight, tally.variance(0.0, 0.0)

    def prior(self, signature: str, family: str, runtime: str) -> Prior:
        """Say what is believed of a step on a runtime from everything but its own runs there."""
        kin = self.family(family)
        noise = kin.noise_variance()
        slope, slope_variance = kin.slope(noise)
        effect, known = self.effect(family, runtime)
        own, seen = self.step_class(signature, family, slope, runtime)
        level = self.level(family)
        variance = _EFFECT_VARIANCE / (1 + known)
        if seen:
            level = (0.5 * level + seen * own) / (0.5 + seen)
        else:
            variance += kin.level.variance(_LEVEL_VARIANCE, 2.0)
        strength = min(STRENGTH, max(_LEAST_STRENGTH, noise / variance))
        return Prior(level + effect, strength, slope, slope_variance, noise, self.size(signature)[0])
