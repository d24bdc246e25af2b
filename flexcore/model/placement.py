"""Where an attempt goes and why: stored with the dispatch, shown as it is by every entrance."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal as OneOf

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What was found about one candidate. `score` and `prediction` come with learned placement."""

    runtime: str
    infeasible: tuple[Infeasibility, ...] = ()
    score: float | None = None
    prediction: Mapping[str, JSON] | None = None

    @property
    def feasible(self) -> bool:
        """Say whether the candidate could have run the step."""
        return not self.infeasible


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """The choice: `chosen` is None when nothing is feasible now. `rule` names the row that decided (`S1`, `P4`)."""

    chosen: str | None
    source: OneOf["pinned", "rule", "learned", "only-feasible", "none"]
    rule: str = ""
    rule_would_choose: str | None = None
    fallback_reason: str | None = None
    verdicts: tuple[Verdict, ...] = ()
    analysis: Mapping[str, JSON] = field(default_factory=dict)  # requirement → {value, source}
