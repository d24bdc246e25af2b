"""The few distributions that placement reckons with, in closed form: normal, Student's t, lognormal.

Approximations are named with their error; nothing here draws random numbers.
"""

import math

Z90 = 1.2815515655446004  # the normal's ninety per cent quantile
LONGEST_LOG = 25.0  # e^25 seconds are two thousand years: a belief that wild is cut off here


def student_p90(degrees: float) -> float:
    """Give the ninety per cent quantile of Student's t: the Cornish-Fisher expansion, within 0.2 % from 4 degrees on.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    z = Z90
    first = (z**3 + z) / 4
    second = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    third = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + first / degrees + second / degrees**2 + third / degrees**3


def lognormal(mean: float, variance: float) -> tuple[float, float]:
    """Give location and variance, both of the logarithm, of the lognormal with this mean and variance."""
    squared = math.log1p(variance / (mean * mean))
    return math.log(mean) - 0.5 * squared, squared


def chance_above(limit: float, mean: float, variance: float) -> float:
    """Give the chance that a positive quantity, taken to be lognormal, is above the limit."""
    if limit <= 0:
        return 1.0
    if mean <= 0:
        return 0.0
    location, squared = lognormal(mean, variance)
    return chance_less(math.log(limit), location, squared)


def chance_less(one: float, other: float, squared: float) -> float:
    """Give the chance that a normal at `one` is below a normal at `other`; `squared` is the sum of the variances."""
    if squared <= 0:
        return 1.0 if one < other else 0.5 if one == other else 0.0
    return 0.5 * math.erfc((one - other) / math.sqrt(2 * squared))
