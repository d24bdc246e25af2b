"""What is configurable about placement: what counts how much. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum

from flexcore.analyzer.rules import DEFAULT_THRESHOLDS, Thresholds


class PolicyName(StrEnum):
    """What placement is after. `RULES` is the tables and nothing learned."""

    FASTEST = "fastest"
    BALANCED = "balanced"
    CHEAPEST = "cheapest"
    DEADLINE = "deadline"  # the least money among what makes the deadline nineteen times of twenty
    RULES = "rules"


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """How the parts of a score are weighed against each other."""

    time: float = 1.0
    cost: float = 1.0
    risk: float = 1.0
    seconds_per_unit: float = 600.0  # what a unit of the currency of prices is worth
    deadline_penalty: float = 3600.0  # seconds that a missed deadline counts as
    tolerated_miss: float = 0.0  # a chance of missing the deadline that does not count

    @property
    def mapping(self) -> Mapping[str, float]:
        """All of them by name, as the explanation shows them."""
        return {
            "time": self.time,
            "cost": self.cost,
            "risk": self.risk,
            "seconds_per_unit": self.seconds_per_unit,
            "deadline_penalty": self.deadline_penalty,
            "tolerated_miss": self.tolerated_miss,
        }


WEIGHTS: Mapping[PolicyName, Weights] = {
    PolicyName.FASTEST: Weights(cost=0.0),
    PolicyName.BALANCED: Weights(),
    # Money decides, and a thousandth of the time breaks ties among what is free.
    PolicyName.CHEAPEST: Weights(time=0.001),
    PolicyName.DEADLINE: Weights(time=0.001, deadline_penalty=1e9, tolerated_miss=0.05),
    PolicyName.RULES: Weights(),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """How to place. `assumed_duration` prices steps whose length nobody knows; `weights` overrides the name's own."""

    thresholds: Thresholds = DEFAULT_THRESHOLDS
    assumed_duration: timedelta = timedelta(hours=1)
    name: PolicyName = PolicyName.BALANCED
    weights: Weights | None = None
    degraded_penalty: timedelta = timedelta(seconds=60)
    hysteresis: float = 0.03  # what another runtime must gain over the one that has the step

    @property
    def scale(self) -> Weights:
        """The weights in force."""
        return self.weights or WEIGHTS[self.name]


DEFAULT_POLICY = Policy()
