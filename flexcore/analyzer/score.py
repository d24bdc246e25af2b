"""What a step would take on each of several runtimes, and how that scores under a policy. Lower is better.

wait + start + move + exec, each with a median, a ninety per cent bound and a mean; what it costs; how likely it is to
fail, to end too late, and to be the best. Pure, and on the way of every dispatch: no call that can be done without.
"""

from collections.abc import Sequence
from math import erfc, exp, expm1, log, log1p, sqrt
from typing import NamedTuple, TypeAlias

from flexcore.analyzer.distributions import LONGEST_LOG, Z90, chance_above, chance_less
from flexcore.analyzer.policy import Policy, Weights
from flexcore.analyzer.predict import Model
from flexcore.analyzer.snapshot import Candidate, Snapshot
from flexcore.analyzer.view import Stored
from flexcore.model.placement import Estimate, Evidence, Prediction, Score

_WIDEST = 2.0  # variance of ln(seconds) above which a mean is no longer raised: a lognormal's runs away
_LATENCY = 0.05  # seconds to begin a transfer
_LEAST = 1e-9  # stands for a score of zero, where a logarithm is needed
_NONE = Estimate(0.0, 0.0, 0.0)


class Question(NamedTuple):
    """What the predictions are for. `x` is the place of the input's size, `slack` the seconds left to the deadline."""

    signature: str
    family: str
    x: float
    x_variance: float
    slack: float | None
    inputs: tuple[Stored, ...]


_Parts: TypeAlias = tuple[Estimate, Estimate, Estimate, Estimate, Estimate, Score, float | None, float, float]
"""The fields of a prediction up to `p_miss`."""

_Expected: TypeAlias = tuple[_Parts, float, float, int, Evidence]
"""One candidate's, before it is compared with the others': parts, score, doubt, n, evidence."""


class Forecast(NamedTuple):
    """A prediction, its score, and how much the mean behind that is doubted: the variance of its logarithm."""

    prediction: Prediction
    value: float
    doubt: float


def forecasts(
    question: Question, candidates: Sequence[Candidate], snapshot: Snapshot, policy: Policy
) -> list[Forecast]:
    """Predict for each candidate, in their order."""
    weights = policy.scale
    penalty = policy.degraded_penalty.total_seconds()
    expected = [_expected(question, each, snapshot, weights, penalty) for each in candidates]
    return [
        Forecast(Prediction(*parts, chance, n, evidence), value, doubt)
        for (parts, value, doubt, n, evidence), chance in zip(expected, _best(expected), strict=True)
    ]


def beats(one: Forecast, other: Forecast) -> float:
    """Give the chance that the first would score better than the other, if both were known for certain."""
    return chance_less(log(one.value or _LEAST), log(other.value or _LEAST), one.doubt + other.doubt)


def _expected(
    question: Question, candidate: Candidate, snapshot: Snapshot, weights: Weights, penalty: float
) -> _Expected:
    signature, family, x, x_variance, slack, inputs = question
    belief, wait, start, apart, variance, price, p_fail, again, degraded, reads_files, n, evidence = snapshot.standing(
        signature, family, candidate
    )
    intercept, slope, c0, c1, c2, noise, t90, inflation = belief
    uncertain = c0 + (2 * c1 + c2 * x) * x
    spread = noise + uncertain + slope * slope * x_variance
    squared = spread * inflation
    if squared > _WIDEST:
        squared = _WIDEST
    location = intercept + slope * x
    median = exp(location if location < LONGEST_LOG else LONGEST_LOG)
    mean = median * exp(squared / 2)
    run = Estimate(median, median * exp(t90 * sqrt(spread)), mean)
    move = _move(inputs, reads_files, candidate.name, snapshot.model) if inputs else _NONE
    variance += mean * mean * expm1(squared) + 0.09 * move[2] * move[2]
    run_mean, mean = mean, apart + move[2] + mean
    squared = log1p(variance / (mean * mean))  # of the lognormal with this mean and variance
    median = mean * exp(-0.5 * squared)
    total = Estimate(median, median * exp(Z90 * sqrt(squared)), mean)
    cost = None if price is None else price * (mean - wait[2])
    p_miss = 0.0 if slack is None else chance_above(slack, mean, variance)
    time = weights.time * mean
    score = Score(
        time,
        time * again - time,
        0.0 if cost is None else weights.cost * cost * weights.seconds_per_unit,
        weights.risk * p_miss * weights.deadline_penalty if p_miss > weights.tolerated_miss else 0.0,
        penalty if degraded else 0.0,
    )
    uncertain *= inflation
    share = run_mean / mean
    doubt = log1p(expm1(uncertain if uncertain < _WIDEST else _WIDEST) * share * share)
    return (wait, start, move, run, total, score, cost, p_fail, p_miss), sum(score), doubt, n, evidence


def _move(inputs: tuple[Stored, ...], reads_files: bool, name: str, model: Model) -> Estimate:
    """Nothing where files are read in place; parts are fetched side by side, so the slowest counts."""
    seconds = 0.0
    for store, size in inputs:
        if store != "file" or not reads_files:
            taken = _LATENCY + size / model.bandwidth(store, name)
            if taken > seconds:
                seconds = taken
    return Estimate(seconds, 1.4 * seconds, seconds) if seconds else _NONE


def _best(expected: Sequence[_Expected]) -> list[float]:
    """Give each one's chance of being the lowest: exact for two, for more the normalised product over pairs."""
    chances = [1.0] * len(expected)
    beliefs = [(log(value or _LEAST), doubt) for _, value, doubt, _, _ in expected]
    for one, (here, doubt) in enumerate(beliefs):
        mine = chances[one]
        for other in range(one + 1, len(beliefs)):
            there, further = beliefs[other]
            squared = doubt + further
            chance = 0.5 * erfc((here - there) / sqrt(2 * squared)) if squared else chance_less(here, there, 0.0)
            mine *= chance
            chances[other] *= 1 - chance
        chances[one] = mine
    whole = sum(chances)
    return [each / whole for each in chances] if whole else [1 / len(chances)] * len(chances)
