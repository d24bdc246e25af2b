"""Choose a runtime for a step: a pure function of the step, the snapshot and the policy.

No I/O, no clock, no randomness; the same arguments give the same placement, explanation included. The placement is
stored with the dispatch, so recovery never asks again. With nothing learned the answer is that of the rule tables,
and where their choice is infeasible, that of the fallback order: `local` for what a local process can hold, then the
configured priority. What is learned speaks only among what is feasible.
"""

from collections.abc import Mapping, Sequence
from typing import Literal as OneOf
from typing import NamedTuple

from flexcore.analyzer.choice import NOTHING_KNOWN, Basis, Choice, Outcome, choose_learned, evidence, hold_to_ceiling
from flexcore.analyzer.constraints import infeasibilities
from flexcore.analyzer.policy import DEFAULT_POLICY, Policy
from flexcore.analyzer.rules import LOCAL, RuleChoice, choose
from flexcore.analyzer.snapshot import Answer, Candidate, Prepared, Snapshot
from flexcore.analyzer.view import StepView
from flexcore.analyzer.workload import Analysis, analyse_unsized, sized
from flexcore.model.placement import TEMPORARY, Infeasibility, Placement, ReasonCode, Verdict
from flexcore.model.workflow import Complexity

_MEMO_LIMIT = 512  # what is kept costs the garbage collector time

__all__ = ["DEFAULT_POLICY", "Policy", "StepView", "place", "waits"]


def place(step: StepView, snapshot: Snapshot, policy: Policy = DEFAULT_POLICY, seed: str = "") -> Placement:
    """Choose, and say why. `chosen` is None when no candidate can run the step now; see `waits`.

    `seed` is for choices that explore, which there are none of yet.
    """
    # Few views have these in common, and they are cheap to hash, which the whole question is not.
    key = (step.signature or step.requirements, step.data.value, step.pin, step.deadline)
    known = snapshot.answers.get(key)
    if known is not None and known.step == step and known.policy == policy:
        return known.placement
    answer = _place(step, snapshot, policy)
    if len(snapshot.answers) >= _MEMO_LIMIT:
        snapshot.forget()
    snapshot.answers[key] = Answer(step, policy, answer)
    return answer


def waits(placement: Placement) -> bool:
    """Say whether a step that nothing can run now should wait: some candidate lacks only what may come back."""
    return placement.chosen is None and any(verdict.may_come_back for verdict in placement.verdicts)


class _Case(NamedTuple):
    """A step's question with all that was found out before choosing. Refusals stand by the candidates' order."""

    step: StepView
    snapshot: Snapshot
    policy: Policy
    analysis: Analysis
    rule: RuleChoice
    refusals: tuple[tuple[Infeasibility, ...], ...]
    feasible: Sequence[Candidate]
    weights: Mapping[str, float]
    basis: Basis | None
    fault: str


def _place(step: StepView, snapshot: Snapshot, policy: Policy) -> Placement:
    basis, fault = _consult(step, snapshot, policy)
    _, unsized, refusals, feasible, weights = _prepared(step, snapshot, policy)
    analysis = sized(unsized, step, basis.known.typical_bytes if basis else None)
    case = _Case(step, snapshot, policy, analysis, choose(analysis.load), refusals, feasible, weights, basis, fault)
    if step.requirements.max_cost is not None:
        case = _held_to_ceiling(case, step.requirements.max_cost)
    pin = step.pin or _able(step.preferred, case)
    return _by_rule_or_learned(case) if pin is None else _pinned(case, pin)


def _prepared(step: StepView, snapshot: Snapshot, policy: Policy) -> Prepared:
    """Look up by the signature, which is cheaper to hash than the question; if it was another, answer anew."""
    question = (step.kind, step.requirements, step.facts, step.data_stores, policy)
    name = step.signature or question
    known = snapshot.prepared.get(name)
    if known is not None and known.question == question:
        return known
    prices, assumed = snapshot.prices, policy.assumed_duration
    refusals = tuple(infeasibilities(step, each, assumed, prices.get(each.name)) for each in snapshot.candidates)
    feasible = tuple(each for each, found in zip(snapshot.candidates, refusals, strict=True) if not found)
    known = Prepared(question, analyse_unsized(step, policy.thresholds), refusals, feasible, policy.scale.mapping)
    snapshot.prepared[name] = known
    return known


def _held_to_ceiling(case: _Case, ceiling: float) -> _Case:
    """Take the ceiling on cost by what the step is predicted to cost, where it has run; else by the longest it may."""
    if case.basis is None or not case.basis.known.runs:
        return case
    try:
        refusals = hold_to_ceiling(_choice(case, case.basis), ceiling, case.refusals)
    except Exception as error:  # a shell, as below
        return case._replace(basis=None, fault=_named(error))
    fitting = zip(case.snapshot.candidates, refusals, strict=True)
    return case._replace(refusals=refusals, feasible=tuple(each for each, found in fitting if not found))


def _choice(case: _Case, basis: Basis) -> Choice:
    return Choice(case.step, case.snapshot, case.policy, basis, case.analysis.input_bytes)


def _consult(step: StepView, snapshot: Snapshot, policy: Policy) -> tuple[Basis | None, str]:
    """Ask whether enough is known of the step. Whatever goes wrong there, the rules stand, and the fault is named."""
    try:
        return evidence(step, snapshot, policy), ""
    except Exception as error:  # a shell, as below
        return None, _named(error)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def _able(preferred: str | None, case: _Case) -> str | None:
    """Keep the wish if the instance is able to run the step, be it only later."""
    if preferred is None:
        return None
    for candidate, found in zip(case.snapshot.candidates, case.refusals, strict=True):
        if candidate.name == preferred and all(each.code in TEMPORARY for each in found):
            return preferred
    return None


def _pinned(case: _Case, pin: str) -> Placement:
    elsewhere = (Infeasibility(ReasonCode.PINNED_ELSEWHERE, f"the step is pinned to {pin}"),)
    names = case.snapshot.names
    refusals = tuple(
        found if name == pin else found + elsewhere for name, found in zip(names, case.refusals, strict=True)
    )
    case = case._replace(refusals=refusals)
    feasible = [each for each in case.feasible if each.name == pin]
    if not feasible:
        missing = () if pin in names else (_not_configured(pin, case.snapshot),)
        return _answer(case, None, "none", None, NOTHING_KNOWN, missing, case.fault)
    outcome, fault = _learned(case, feasible, feasible[0])
    return _answer(case, feasible[0], "pinned", None, outcome, fault=fault)


def _by_rule_or_learned(case: _Case) -> Placement:
    feasible = case.feasible
    named = [each for each in case.snapshot.candidates if each.kind == case.rule.runtime]
    missing = () if named else (_not_configured(case.rule.runtime, case.snapshot),)
    if not feasible:
        return _answer(case, None, "none", None, NOTHING_KNOWN, missing, case.fault)
    follows = _by_rule(case, feasible)
    outcome, fault = _learned(case, feasible, follows)
    if outcome.in_time is not None and follows.name not in outcome.in_time and outcome.chosen is None:
        feasible = [each for each in feasible if each.name in outcome.in_time]
        follows = _by_rule(case, feasible)
    if outcome.chosen is not None:
        return _answer(case, outcome.chosen, "learned", None, outcome, missing, fault, follows.name)
    is_rules = follows.kind == case.rule.runtime
    reason = None if named and follows is named[0] else _fallback_reason(case, named, missing, outcome)
    source: OneOf["rule", "only-feasible"] = "rule" if is_rules or len(feasible) > 1 else "only-feasible"
    return _answer(case, follows, source, reason, outcome, missing, fault, follows.name)


def _by_rule(case: _Case, feasible: Sequence[Candidate]) -> Candidate:
    """Take what the tables name, else what the fallback order does."""
    matching = [each for each in feasible if each.kind == case.rule.runtime]
    return matching[0] if matching else _fallback(case, feasible)


def _fallback(case: _Case, feasible: Sequence[Candidate]) -> Candidate:
    """Take a local instance for what a local process can hold, else the best priority among the others.

    `feasible` is in the order of priority. Local takes the rest only where there is nothing else.
    """
    needs = case.step.requirements
    # By the author's word alone: that the code imports scikit-learn is no reason to leave the machine for any other.
    fits_local = not needs.gpu and not needs.scalable and needs.complexity is not Complexity.ML
    preferred = [each for each in feasible if (each.kind == LOCAL) is fits_local]
    return (preferred or feasible)[0]


def _learned(case: _Case, feasible: Sequence[Candidate], follows: Candidate) -> tuple[Outcome, str]:
    """Ask what has been learned. Whatever goes wrong there, the rules stand, and the fault is named."""
    if case.basis is None:
        return NOTHING_KNOWN, case.fault
    try:
        return choose_learned(_choice(case, case.basis), feasible, follows), ""
    except Exception as error:  # the shell of what is learned: a step must get its place all the same
        return NOTHING_KNOWN, _named(error)


def _answer(
    case: _Case,
    chosen: Candidate | None,
    source: OneOf["pinned", "rule", "learned", "only-feasible", "none"],
    fallback_reason: str | None,
    outcome: Outcome,
    missing: tuple[Verdict, ...] = (),
    fault: str = "",
    by_rule: str | None = None,
) -> Placement:
    name = chosen.name if chosen else None
    taken = outcome.forecasts.get(name) if name else None
    return Placement(
        chosen=name,
        source=source,
        rule=case.rule.row,
        rule_would_choose=case.rule.runtime,
        fallback_reason=fallback_reason,
        verdicts=(*_verdicts(case, outcome), *missing),
        analysis=case.analysis.entries,
        chosen_kind=chosen.kind if chosen else "",
        input_bytes=case.analysis.input_bytes,
        policy=case.policy.name.value,
        weights=case.weights if outcome.forecasts else {},
        margin=outcome.margin(name) if name else None,
        estimated_cost=taken.prediction.cost if taken else None,
        warnings=outcome.warnings,
        fault=fault,
        by_rule=by_rule,
        input_store=_store_of(case.step),
    )


def _store_of(step: StepView) -> str:
    if not step.inputs:
        return ""
    first = step.inputs[0].store
    return first if all(each.store == first for each in step.inputs) else ""


def _verdicts(case: _Case, outcome: Outcome) -> list[Verdict]:
    found = []
    for candidate, refusals in zip(case.snapshot.candidates, case.refusals, strict=True):
        name = candidate.name
        forecast = outcome.forecasts.get(name)
        if forecast is None:
            found.append(Verdict(runtime=name, infeasible=refusals))
            continue
        late = (outcome.late[name],) if name in outcome.late else ()
        found.append(Verdict(runtime=name, infeasible=late, score=forecast.value, prediction=forecast.prediction))
    return found


def _fallback_reason(case: _Case, named: list[Candidate], missing: tuple[Verdict, ...], outcome: Outcome) -> str:
    name = named[0].name if named else case.rule.runtime
    verdicts = (*_verdicts(case, outcome), *missing)
    reasons = next(each.infeasible for each in verdicts if each.runtime == name)
    why = "; ".join(each.reason for each in reasons)
    return f"the rules ({case.rule.row}) would choose {name}, but {why}"


def _not_configured(name: str, snapshot: Snapshot) -> Verdict:
    present = ", ".join(sorted(snapshot.names)) or "none"
    sentence = f"{name} is not configured; present: {present}"
    return Verdict(runtime=name, infeasible=(Infeasibility(ReasonCode.NOT_CONFIGURED, sentence),))
