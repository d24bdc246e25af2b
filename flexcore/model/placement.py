"""Where an attempt goes and why: stored with the dispatch, shown as it is by every entrance.

What is made anew for every dispatch is tuples and structs: a frozen dataclass costs several times as much.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Literal as OneOf
from typing import NamedTuple

import msgspec

from flexcore.model.values import JSON


class ReasonCode(StrEnum):
    """Why a runtime cannot have a step. Constraints are never traded against anything."""

    TYPE_UNSUPPORTED = "TYPE_UNSUPPORTED"
    NO_IMAGE = "NO_IMAGE"
    CPU = "CPU"
    MEM = "MEM"
    GPU = "GPU"
    DATA_UNREACHABLE = "DATA_UNREACHABLE"
    POLICY = "POLICY"
    QUOTA = "QUOTA"
    UNHEALTHY = "UNHEALTHY"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    DISABLED = "DISABLED"
    PINNED_ELSEWHERE = "PINNED_ELSEWHERE"
    COST_CEILING = "COST_CEILING"
    DEADLINE = "DEADLINE"
    NOT_CONFIGURED = "NOT_CONFIGURED"  # the rules' choice or a pin names a runtime that is not there
    TAGS = "TAGS"
    DISK = "DISK"


TEMPORARY = frozenset({ReasonCode.UNHEALTHY, ReasonCode.CIRCUIT_OPEN, ReasonCode.QUOTA})
"""Reasons that may go away: a step with nothing feasible waits for these, and fails for the others."""


@dataclass(frozen=True, slots=True)
class Infeasibility:
    """A reason code and a sentence for a person."""

    code: ReasonCode
    reason: str


class Evidence(StrEnum):
    """How near to the step what a prediction rests on is: the nearest there is."""

    OWN = "own"  # this step has run on this runtime
    FAMILY = "family"  # it has run elsewhere, or steps of its family have run
    RUNTIME = "runtime"  # something has run on this runtime
    RULE = "rule"  # nothing: an assumption


class Estimate(NamedTuple):
    """Seconds: half of the cases are below `p50`, nine of ten below `p90`; `mean` is what the score reckons with."""

    p50: float
    p90: float
    mean: float


class Score(NamedTuple):
    """What makes a score, in seconds or their equivalents: the sum of the parts is the score. Lower is better.

    `time` is the mean total, `repeats` what failures add to it; `cost`, `risk` (of missing the deadline) and
    `degraded` (health) are converted by the weights of the policy.
    """

    time: float
    repeats: float
    cost: float
    risk: float
    degraded: float


class Prediction(NamedTuple):
    """What to expect of one step on one runtime.

    `n` counts the step's own earlier runs there; `cost` is in the currency of prices, None without a price; `p_fail`
    is the chance that the runtime fails it, `p_miss` that it ends too late, `p_best` that no other has a better score.
    """

    wait: Estimate
    start: Estimate
    move: Estimate
    exec: Estimate
    total: Estimate
    score: Score
    cost: float | None
    p_fail: float
    p_miss: float
    p_best: float
    n: int
    evidence: Evidence


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What was found about one candidate. `score` and `prediction` come with learned placement.

    Infeasible for `DEADLINE` alone, it may be chosen all the same: where nothing makes the deadline.
    """

    runtime: str
    infeasible: tuple[Infeasibility, ...] = ()
    score: float | None = None
    prediction: Prediction | None = None

    @property
    def feasible(self) -> bool:
        """Say whether the candidate could have run the step."""
        return not self.infeasible

    @property
    def may_come_back(self) -> bool:
        """Say whether only what may go away keeps the candidate from having the step."""
        return bool(self.infeasible) and all(each.code in TEMPORARY for each in self.infeasible)


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The choice: `chosen` is None when nothing is feasible now. `rule` names the row that decided (`S1`, `P4`).

    `chosen_kind` is the type of the chosen instance, `by_rule` the instance that the rules would have taken among what
    was feasible. `input_store` is where the input is, if in one store. `margin` is how much worse the second best
    scores, as a share of it. `fault` names a bug of ours in what is learned, after which the rules decided: to be
    counted, and looked into.
    """

    chosen: str | None
    source: OneOf["pinned", "rule", "learned", "only-feasible", "none"]
    rule: str = ""
    rule_would_choose: str | None = None
    fallback_reason: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    analysis: Mapping[str, JSON] = msgspec.field(default_factory=dict)  # requirement → {value, source}
    chosen_kind: str = ""
    input_bytes: int | None = None  # measured or declared
    policy: str = ""
    weights: Mapping[str, float] = msgspec.field(default_factory=dict)  # of the score, where one was made
    margin: float | None = None
    estimated_cost: float | None = None  # of the choice, in the currency of prices
    warnings: tuple[str, ...] = ()
    fault: str = ""
    by_rule: str | None = None
    input_store: str = ""

    @property
    def in_the_way(self) -> tuple[Verdict, ...]:
        """What to name where nothing was chosen: who may come back; without any, who is not out for the pin alone."""
        refused = tuple(each for each in self.verdicts if not each.feasible)
        coming = tuple(each for each in refused if each.may_come_back)
        meant = tuple(each for each in refused if each.infeasible[-1].code is not ReasonCode.PINNED_ELSEWHERE)
        return coming or meant or refused
