"""Choose a runtime for a step: a pure function of the step, the snapshot and the policy.

No I/O, no clock, no randomness; the same arguments give the same placement, explanation included. The placement is
stored with the dispatch, so recovery never asks again. With nothing learned the answer is that of the rule tables,
and where their choice is infeasible, that of the fallback order: `local` for what a local process can hold, then the
configured priority.
"""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import Literal as OneOf

from flexcore.analyzer.constraints import infeasibilities
from flexcore.analyzer.rules import DEFAULT_THRESHOLDS, LOCAL, RuleChoice, Thresholds, Workload, choose, workload
from flexcore.analyzer.snapshot import Candidate, Snapshot
from flexcore.model.placement import TEMPORARY, Infeasibility, Placement, ReasonCode, Verdict
from flexcore.model.values import JSON
from flexcore.model.workflow import Complexity, Requirements, StepKind

_ALWAYS_ANALYSED = (
    "data_size",
    "complexity",
    "cpu",
    "memory",
    "gpu",
    "resource_intensive",
    "parallelizable",
    "containerized",
    "scalable",
)
_OTHERS = tuple(each.name for each in fields(Requirements) if each.name not in _ALWAYS_ANALYSED)
_UNKNOWN: Mapping[str, JSON] = {"value": None, "source": "unknown"}
_MEMO_LIMIT = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class StepView:
    """What placement needs to know of a step.

    `pin` is the step's own `runtime`: that instance or none. `preferred` is the wish for a whole execution: it acts
    as a pin for the steps that the instance is able to run, and is ignored for the others.
    """

    kind: StepKind
    requirements: Requirements = Requirements()
    pin: str | None = None
    preferred: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """What is configurable about placement. `assumed_duration` prices steps whose length nobody knows."""

    thresholds: Thresholds = DEFAULT_THRESHOLDS
    assumed_duration: timedelta = timedelta(hours=1)


DEFAULT_POLICY = Policy()


def place(step: StepView, snapshot: Snapshot, policy: Policy = DEFAULT_POLICY) -> Placement:
    """Choose, and say why. `chosen` is None when no candidate can run the step now; see `waits`."""
    key = (step, policy)
    known = snapshot.answers.get(key)
    if known is not None:
        return known
    answer = _place(step, snapshot, policy)
    if len(snapshot.answers) >= _MEMO_LIMIT:
        snapshot.answers.clear()
    snapshot.answers[key] = answer
    return answer


def waits(placement: Placement) -> bool:
    """Say whether a step that nothing can run now should wait: some candidate lacks only what may come back."""
    return placement.chosen is None and any(
        not verdict.feasible and all(each.code in TEMPORARY for each in verdict.infeasible)
        for verdict in placement.verdicts
    )


def _place(step: StepView, snapshot: Snapshot, policy: Policy) -> Placement:
    load = workload(step.kind, step.requirements, policy.thresholds)
    rule = choose(load)
    verdicts = tuple(
        Verdict(
            runtime=each.name,
            infeasible=infeasibilities(step.kind, step.requirements, each, policy.assumed_duration),
        )
        for each in snapshot.candidates
    )
    analysis = _analysis(step.requirements, load)
    pin = step.pin or _able(step.preferred, verdicts)
    if pin is not None:
        return _pinned(pin, rule, verdicts, analysis, snapshot)
    return _by_rule(step, rule, verdicts, analysis, snapshot)


def _able(preferred: str | None, verdicts: tuple[Verdict, ...]) -> str | None:
    """Keep the wish if the instance is able to run the step, be it only later."""
    for verdict in verdicts:
        if verdict.runtime == preferred and all(each.code in TEMPORARY for each in verdict.infeasible):
            return preferred
    return None


def _pinned(
    pin: str, rule: RuleChoice, verdicts: tuple[Verdict, ...], analysis: Mapping[str, JSON], snapshot: Snapshot
) -> Placement:
    elsewhere = Infeasibility(ReasonCode.PINNED_ELSEWHERE, f"the step is pinned to {pin}")
    judged = tuple(
        each if each.runtime == pin else Verdict(runtime=each.runtime, infeasible=(*each.infeasible, elsewhere))
        for each in verdicts
    )
    if pin not in snapshot.names:
        judged = (*judged, _not_configured(pin, snapshot))
    feasible = any(each.runtime == pin and each.feasible for each in judged)
    return Placement(
        chosen=pin if feasible else None,
        source="pinned" if feasible else "none",
        rule=rule.row,
        rule_would_choose=rule.runtime,
        verdicts=judged,
        analysis=analysis,
    )


def _by_rule(
    step: StepView, rule: RuleChoice, verdicts: tuple[Verdict, ...], analysis: Mapping[str, JSON], snapshot: Snapshot
) -> Placement:
    feasible = [each for each, verdict in zip(snapshot.candidates, verdicts, strict=True) if verdict.feasible]
    named = [each for each in snapshot.candidates if each.kind == rule.runtime]
    if not named:
        verdicts = (*verdicts, _not_configured(rule.runtime, snapshot))
    matching = [each for each in feasible if each.kind == rule.runtime]
    chosen = matching[0] if matching else _fallback(step.requirements, feasible)
    follows = chosen is not None and bool(named) and chosen is named[0]
    return Placement(
        chosen=chosen.name if chosen else None,
        source=_source(bool(matching), len(feasible)),
        rule=rule.row,
        rule_would_choose=rule.runtime,
        fallback_reason=None if follows or chosen is None else _fallback_reason(rule, named, verdicts),
        verdicts=verdicts,
        analysis=analysis,
    )


def _source(is_rules_choice: bool, feasible: int) -> OneOf["rule", "only-feasible", "none"]:
    if feasible == 0:
        return "none"
    return "rule" if is_rules_choice or feasible > 1 else "only-feasible"


def _fallback(requirements: Requirements, feasible: list[Candidate]) -> Candidate | None:
    """Take a local instance for what a local process can hold, else the best priority among the others.

    `feasible` is in the order of priority. Local takes the rest only where there is nothing else.
    """
    fits_local = not requirements.gpu and not requirements.scalable and requirements.complexity is not Complexity.ML
    preferred = [each for each in feasible if (each.kind == LOCAL) is fits_local]
    return next(iter(preferred or feasible), None)


def _fallback_reason(rule: RuleChoice, named: list[Candidate], verdicts: tuple[Verdict, ...]) -> str:
    name = named[0].name if named else rule.runtime
    reasons = next(each.infeasible for each in verdicts if each.runtime == name)
    why = "; ".join(each.reason for each in reasons)
    return f"the rules ({rule.row}) would choose {name}, but {why}"


def _not_configured(name: str, snapshot: Snapshot) -> Verdict:
    present = ", ".join(sorted(snapshot.names)) or "none"
    sentence = f"{name} is not configured; present: {present}"
    return Verdict(runtime=name, infeasible=(Infeasibility(ReasonCode.NOT_CONFIGURED, sentence),))


def _analysis(requirements: Requirements, load: Workload) -> dict[str, JSON]:
    """Give each requirement its value and where that came from; those that no rule reads only when declared."""
    analysis: dict[str, JSON] = {name: _declared(getattr(requirements, name)) for name in _ALWAYS_ANALYSED}
    for name in ("resource_intensive", "containerized"):
        value = getattr(load, name)
        if value is not None and value != getattr(requirements, name):
            analysis[name] = {"value": value, "source": "inferred"}
    for name in _OTHERS:
        value = getattr(requirements, name)
        if value is not None and value != ():
            analysis[name] = _declared(value)
    return analysis


def _declared(value: object) -> Mapping[str, JSON]:
    match value:
        case None:
            return _UNKNOWN
        case Complexity():
            return {"value": value.value, "source": "declared"}
        case timedelta():
            return {"value": value.total_seconds(), "source": "declared"}
        case tuple():
            return {"value": [str(each) for each in value], "source": "declared"}
        case bool() | int() | float() | str():
            return {"value": value, "source": "declared"}
        case _:
            raise TypeError(f"a requirement of type {type(value).__name__} has no JSON form")
