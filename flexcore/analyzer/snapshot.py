"""The immutable view of the runtimes that placement reads: made anew when something changes, swapped whole.

It must never be changed in place. The only things inside that do change are memos, of answers and of what they are made
of, which are functions of the snapshot and the question, so nobody can tell.
"""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from flexcore.analyzer.policy import Policy
from flexcore.analyzer.predict import NOTHING_LEARNED, Model
from flexcore.analyzer.standing import IDLE, Load, Standing, price_of, standing
from flexcore.analyzer.view import StepView
from flexcore.analyzer.workload import Analysis
from flexcore.model.placement import Infeasibility, Placement
from flexcore.runtime.candidate import Candidate

__all__ = ["Candidate", "Load", "Snapshot"]


class Answer(NamedTuple):
    """A placement, and the question that it answers."""

    step: StepView
    policy: Policy
    placement: Placement


class Prepared(NamedTuple):
    """What does not depend on the size of the input: the rest of the analysis, and who is able to run the step.

    `question` is all that it depends on. Refusals stand in the order of the candidates; none is feasible.
    """

    question: tuple[Hashable, ...]
    analysis: Analysis
    refusals: tuple[tuple[Infeasibility, ...], ...]
    feasible: tuple[Candidate, ...]
    weights: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All candidates, best priority first, then by name; what is known of each by the name of the instance.

    `prices` are per hour and go before those of the capabilities. `incumbents` says which instance a signature ran on
    last; where it does not, the model remembers.
    """

    candidates: tuple[Candidate, ...] = ()
    loads: Mapping[str, Load] = field(default_factory=dict)
    prices: Mapping[str, float] = field(default_factory=dict)
    model: Model = NOTHING_LEARNED
    incumbents: Mapping[str, str] = field(default_factory=dict)
    answers: dict[Hashable, Answer] = field(default_factory=dict, init=False, repr=False, compare=False)
    prepared: dict[Hashable, Prepared] = field(default_factory=dict, init=False, repr=False, compare=False)
    standings: dict[tuple[str, str, str], Standing] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.candidates, key=lambda each: (each.priority, each.name)))
        object.__setattr__(self, "candidates", ordered)

    @property
    def names(self) -> tuple[str, ...]:
        """All instance names, in the order of preference."""
        return tuple(each.name for each in self.candidates)

    def forget(self) -> None:
        """Empty the memos, which would grow without bound where a snapshot lives long."""
        self.answers.clear()
        self.prepared.clear()
        self.standings.clear()

    def standing(self, signature: str, family: str, candidate: Candidate) -> Standing:
        """Say how a step stands with one of the candidates."""
        key = (signature, family, candidate.name)
        known = self.standings.get(key)
        if known is None:
            outlook = self.model.outlook(signature, family, candidate.name)
            known = standing(outlook, candidate, self.loads.get(candidate.name, IDLE), self.price(candidate))
            self.standings[key] = known
        return known

    def price(self, candidate: Candidate) -> float | None:
        """Give the price per hour of a candidate; None without one."""
        return price_of(candidate, self.prices.get(candidate.name))
