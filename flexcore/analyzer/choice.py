"""Choose by what has been learned, among the runtimes that are feasible; or say that the rules should.

A little evidence does not overrule the rules, and a small gain does not move a step from where it runs.
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple, TypeAlias

from flexcore.analyzer.belief import position
from flexcore.analyzer.constraints import seconds, too_costly, too_late
from flexcore.analyzer.policy import Policy, PolicyName
from flexcore.analyzer.predict import Familiarity
from flexcore.analyzer.score import Forecast, Question, beats, forecasts
from flexcore.analyzer.snapshot import Candidate, Snapshot
from flexcore.analyzer.view import StepView
from flexcore.model.placement import Evidence, Infeasibility, ReasonCode

ENOUGH_KIN = 5  # runs of the family, from which on something can be said of a step that never ran
FEW = 3  # own runs up to which the rules' choice stands unless another is almost certainly better
ALMOST_CERTAIN = 0.9


class Basis(NamedTuple):
    """What a learned choice rests on. `slack` is the seconds left to the deadline, None without one."""

    known: Familiarity
    slack: float | None


class Choice(NamedTuple):
    """A question for `choose_learned`."""

    step: StepView
    snapshot: Snapshot
    policy: Policy
    basis: Basis
    input_bytes: int | None


class Outcome(NamedTuple):
    """What came of it: `chosen` None leaves the choice to the rules, among `in_time` where that is not None."""

    chosen: Candidate | None = None
    forecasts: Mapping[str, Forecast] = {}
    late: Mapping[str, Infeasibility] = {}
    in_time: frozenset[str] | None = None
    warnings: tuple[str, ...] = ()

    def margin(self, chosen: str) -> float | None:
        """Say how much worse the best of the others scores, as a share of that."""
        if chosen not in self.forecasts or len(self.forecasts) == 1:
            return None
        taken = self.forecasts[chosen].value
        least, next_ = sorted([each.value for each in self.forecasts.values()])[:2]
        second = next_ if taken == least else least
        return (second - taken) / second if second else 0.0


NOTHING_KNOWN = Outcome()


def family_of(step: StepView) -> str:
    """Name what the step resembles."""
    return step.family or step.kind.value


def evidence(step: StepView, snapshot: Snapshot, policy: Policy) -> Basis | None:
    """Say how much is known; None when that is too little to predict anything, or nobody wants to know."""
    if not step.signature or policy.name is PolicyName.RULES:
        return None
    known = snapshot.model.familiarity(step.signature, family_of(step))
    if not known.runs and known.family_runs < ENOUGH_KIN:
        return None
    left = step.requirements.deadline if step.deadline is None else step.deadline
    return Basis(known, None if left is None else left.total_seconds())


def choose_learned(choice: Choice, feasible: Sequence[Candidate], follows: Candidate) -> Outcome:
    """Predict for what is feasible, and choose. `follows` is what the rules would take among it."""
    slack = choice.basis.slack
    if len(feasible) == 1 and slack is None and choice.snapshot.price(feasible[0]) is None:
        return NOTHING_KNOWN
    found = forecasts(_question(choice), feasible, choice.snapshot, choice.policy)
    if slack is not None and choice.basis.known.runs:
        outcome = _in_time(choice, feasible, follows, found, slack)
    else:
        outcome = Outcome(_best(choice, feasible, follows, found), _named(feasible, found))
    if choice.basis.known.is_resting and len(feasible) > 1:
        resting = f"the rules decide for {family_of(choice.step)} steps for now: what was learned chose worse lately"
        return outcome._replace(warnings=(*outcome.warnings, resting))
    return outcome


Refusals: TypeAlias = tuple[tuple[Infeasibility, ...], ...]
"""Why each candidate cannot have the step, in their order."""


def hold_to_ceiling(choice: Choice, ceiling: float, refusals: Refusals) -> Refusals:
    """Hold a ceiling on cost against what a step is predicted to cost, where it has run: no longer against a guess."""
    candidates, snapshot = choice.snapshot.candidates, choice.snapshot
    kept = [tuple(each for each in found if each.code is not ReasonCode.COST_CEILING) for found in refusals]
    asked = [each for each, found in zip(candidates, kept, strict=True) if not found and snapshot.price(each)]
    costs = _named(asked, forecasts(_question(choice), asked, snapshot, choice.policy)) if asked else {}
    over = {
        name: (too_costly(name, found.prediction, cost, ceiling),)
        for name, found in costs.items()
        if (cost := found.prediction.cost) is not None and cost > ceiling
    }
    return tuple(over.get(each.name, found) for each, found in zip(candidates, kept, strict=True))


def _named(feasible: Sequence[Candidate], found: Sequence[Forecast]) -> dict[str, Forecast]:
    return {each.name: forecast for each, forecast in zip(feasible, found, strict=True)}


def _question(choice: Choice) -> Question:
    step = choice.step
    known = choice.basis.known
    if choice.input_bytes is None:
        x, variance = known.x, known.x_variance
    else:
        x, variance = position(choice.input_bytes), 0.0
    return Question(step.signature, family_of(step), x, variance, choice.basis.slack, step.inputs)


def _in_time(
    choice: Choice, feasible: Sequence[Candidate], follows: Candidate, found: Sequence[Forecast], slack: float
) -> Outcome:
    """Leave out what is predicted, with evidence, to miss the deadline; if that is all, take the fastest."""
    forecast = _named(feasible, found)
    late = {
        name: too_late(name, each.prediction, slack)
        for name, each in forecast.items()
        if each.prediction.total.p50 > slack and each.prediction.evidence in (Evidence.OWN, Evidence.FAMILY)
    }
    rest = [each for each in feasible if each.name not in late]
    if not rest:
        fastest = min(feasible, key=lambda each: forecast[each.name].prediction.total.mean)
        mean = seconds(forecast[fastest.name].prediction.total.mean)
        warning = f"nothing is predicted to make the deadline; {fastest.name} is the fastest with about {mean}"
        return Outcome(fastest, forecast, late, None, (warning,))
    # With little evidence the rules go on: they choose among what is in time, if their choice is not.
    known = choice.basis.known
    leaves_it = (known.runs <= FEW or known.is_resting) and follows.name in late
    chosen = None if leaves_it else _best(choice, rest, follows, [forecast[each.name] for each in rest])
    return Outcome(chosen, forecast, late, frozenset(each.name for each in rest) if late else None)


def _best(
    choice: Choice, feasible: Sequence[Candidate], follows: Candidate, found: Sequence[Forecast]
) -> Candidate | None:
    """Take the best score; ties go by the order of the candidates, which is that of priority and name."""
    if len(feasible) == 1 or choice.basis.known.is_resting:
        return None
    values = [each.value for each in found]
    least = min(values)
    best = feasible[values.index(least)]
    if choice.basis.known.runs <= FEW:
        is_better = best is not follows and beats(found[values.index(least)], found[feasible.index(follows)])
        return best if is_better > ALMOST_CERTAIN else None
    signature, snapshot = choice.step.signature, choice.snapshot
    holder = snapshot.incumbents.get(signature) or snapshot.model.incumbent(signature)
    for candidate, value in zip(feasible, values, strict=True):
        if candidate.name == holder and least > value * (1 - choice.policy.hysteresis):
            return candidate
    return best
