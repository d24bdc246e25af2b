"""What is believed of one step on one runtime: a Normal-Inverse-Gamma over ln(seconds) = intercept + slope · x.

x = ln((bytes + 1 MB) / 100 MB). Pure arithmetic on sums: a cell has eight floats of them, and next to those how many
observations there were, up to three of their sizes, and how often in a row they were far off on the same side.
"""

import math
from typing import NamedTuple

from flexcore.analyzer.distributions import student_p90

PRIOR_SLOPE = 0.3
PRIOR_SLOPE_VARIANCE = 0.25  # a standard deviation of 0.5
STEEPEST = 1.5
FORGETTING = 0.995  # per observation of the cell
PRIOR_DEGREES = 4.0
LEAST_NOISE = 4e-4  # a standard deviation of two per cent: clocks and machines are no better
ENOUGH_SIZES = 3  # distinct ones, for a slope of its own
SHIFTED = 3  # observations in a row far off on the same side: the world has changed, and what was before hardly counts


def position(size: int) -> float:
    """Give x for a size in bytes."""
    return math.log((size + 1e6) / 1e8)


class Cell(NamedTuple):
    """What was seen of one step on one runtime. Sums of weights, x, x², y, xy, y²; failures and tries decay alike."""

    weight: float = 0.0
    x: float = 0.0
    xx: float = 0.0
    y: float = 0.0
    xy: float = 0.0
    yy: float = 0.0
    failures: float = 0.0
    tries: float = 0.0
    runs: int = 0
    sizes: tuple[float, ...] = ()
    streak: int = 0

    def timed(self, x: float, y: float, weight: float, streak: int) -> "Cell":
        """Fold a time. `streak` counts those far off in a row, signed by their side."""
        keep = 0.05 if abs(streak) >= SHIFTED else FORGETTING
        known = x in self.sizes or len(self.sizes) >= ENOUGH_SIZES
        return Cell(
            weight=self.weight * keep + weight,
            x=self.x * keep + weight * x,
            xx=self.xx * keep + weight * x * x,
            y=self.y * keep + weight * y,
            xy=self.xy * keep + weight * x * y,
            yy=self.yy * keep + weight * y * y,
            failures=self.failures,
            tries=self.tries,
            runs=self.runs + 1,
            sizes=self.sizes if known else (*self.sizes, x),
            streak=streak,
        )

    def tried(self, failed: bool) -> "Cell":
        """Fold how an attempt ended: whether the runtime failed it."""
        return self._replace(failures=self.failures * FORGETTING + failed, tries=self.tries * FORGETTING + 1)

    def spread(self) -> tuple[float, float]:
        """Give Σ(x-x̄)² and Σ(x-x̄)(y-ȳ), or zeros while there are too few sizes to tell a slope."""
        if len(self.sizes) < ENOUGH_SIZES:
            return 0.0, 0.0
        return max(0.0, self.xx - self.x * self.x / self.weight), self.xy - self.x * self.y / self.weight

    def intercept(self, slope: float) -> float:
        """Give the mean of y at x = 0, were the slope this one."""
        return (self.y - slope * self.x) / self.weight


class Prior(NamedTuple):
    """What is believed before the step was seen on the runtime. `strength` is in observations."""

    intercept: float
    strength: float
    slope: float
    slope_variance: float
    noise: float  # variance
    middle: float  # x around which sizes are expected


class Belief(NamedTuple):
    """The posterior: `at(x)` predicts. The variance of the mean at x is `c0 + 2 c1 x + c2 x²`."""

    intercept: float
    slope: float
    c0: float
    c1: float
    c2: float
    noise: float
    t90: float
    inflation: float  # how much wider Student's t is than the normal: its variance

    def mean_variance(self, x: float) -> float:
        """Give the variance of what is believed of the mean, without the noise of a single run."""
        return self.c0 + (2 * self.c1 + self.c2 * x) * x


def belief(prior: Prior, cell: Cell | None) -> Belief:
    """Combine what was believed with what was seen."""
    if cell is None or cell.weight <= 0:
        return _level(prior, prior.slope, prior.slope_variance, Cell())
    if len(cell.sizes) >= ENOUGH_SIZES:
        return _line(prior, cell)
    return _level(prior, prior.slope, prior.slope_variance, cell)


def _level(prior: Prior, slope: float, slope_variance: float, cell: Cell) -> Belief:
    """Only the intercept is learned; the slope is as given, and counts as uncertain away from the middle."""
    seen = cell.weight
    strength = prior.strength + seen
    total = cell.y - slope * cell.x
    intercept = (prior.strength * prior.intercept + total) / strength
    squares = PRIOR_DEGREES * prior.noise
    if seen > 0:
        mean = total / seen
        within = cell.yy - 2 * slope * cell.xy + slope * slope * cell.xx - seen * mean * mean
        squares += max(0.0, within) + prior.strength * seen / strength * (mean - prior.intercept) ** 2
    noise = max(LEAST_NOISE, squares / (PRIOR_DEGREES + seen))
    middle = cell.x / seen if seen > 0 else prior.middle
    variance = noise / strength + slope_variance * middle * middle
    return _belief(intercept, slope, (variance, -slope_variance * middle, slope_variance), noise, seen)


def _line(prior: Prior, cell: Cell) -> Belief:
    """Both are learned; a slope that no computation has is held at the bound."""
    stiffness = prior.noise / PRIOR_SLOPE_VARIANCE
    p00, p01, p11 = prior.strength + cell.weight, cell.x, stiffness + cell.xx
    determinant = p00 * p11 - p01 * p01
    r0 = prior.strength * prior.intercept + cell.y
    r1 = stiffness * prior.slope + cell.xy
    intercept, slope = (p11 * r0 - p01 * r1) / determinant, (p00 * r1 - p01 * r0) / determinant
    if not 0.0 <= slope <= STEEPEST:
        return _level(prior, min(max(slope, 0.0), STEEPEST), 0.0, cell)
    before = prior.strength * prior.intercept**2 + stiffness * prior.slope**2
    squares = PRIOR_DEGREES * prior.noise + max(0.0, cell.yy + before - intercept * r0 - slope * r1)
    noise = max(LEAST_NOISE, squares / (PRIOR_DEGREES + cell.weight))
    each = noise / determinant
    return _belief(intercept, slope, (each * p11, -each * p01, each * p00), noise, cell.weight)


def _belief(intercept: float, slope: float, variance: tuple[float, float, float], noise: float, seen: float) -> Belief:
    degrees = PRIOR_DEGREES + seen
    return Belief(intercept, slope, *variance, noise, student_p90(degrees), degrees / (degrees - 2))
