"""A placement in sentences, for people. Reads nothing but the placement, so that what is stored explains itself.

It has names, figures and reasons, never a value of a user's.
"""

from collections.abc import Mapping
from typing import assert_never

from flexcore.analyzer.constraints import seconds
from flexcore.analyzer.constraints import size as size_text
from flexcore.analyzer.rules import ROWS
from flexcore.model.placement import Evidence, Placement, Prediction, Verdict


def why(placement: Placement) -> str:
    """Say in one line what was chosen and why."""
    return f"{placement.chosen or 'none'}, because {_because(placement)}"


def explain(placement: Placement) -> list[str]:
    """Say the whole: the choice, what is expected of it, what speaks against the others, what is known of the step."""
    chosen = [_expected(each) for each in placement.verdicts if each.runtime == placement.chosen and each.prediction]
    others = [_judged(each) for each in placement.verdicts if each.runtime != placement.chosen]
    return [why(placement), *chosen, *placement.warnings, *others, *_weighed(placement), *_known(placement)]


def _because(placement: Placement) -> str:
    match placement.source:
        case "pinned":
            return f"the step is pinned to it; the rules {_rule(placement)}"
        case "rule" if placement.fallback_reason is None:
            return f"the rules {_rule(placement)}"
        case "rule":
            return f"it is next in the fallback order; {placement.fallback_reason}"
        case "only-feasible":
            return f"nothing else can run the step; {placement.fallback_reason}"
        case "learned":
            return f"{_learned(placement)}; the rules {_rule(placement)}"
        case "none":
            return f"no runtime can run the step now: {_refusals(placement)}"
        case _:
            assert_never(placement.source)


def _rule(placement: Placement) -> str:
    row = ROWS.get(placement.rule)
    condition = f"{placement.rule}: {row.text}" if row else placement.rule
    return f"({condition}) choose {placement.rule_would_choose}"


def _learned(placement: Placement) -> str:
    """Say the two figures that decided: what is expected of the choice, and of the best of the others."""
    if placement.warnings:
        return placement.warnings[0]
    scored = {each.runtime: each for each in placement.verdicts if each.score is not None}
    taken = scored.pop(placement.chosen or "", None)
    if taken is None or taken.prediction is None:
        return "earlier runs speak for it"
    mine = f"earlier runs say about {seconds(taken.prediction.total.mean)}"
    others = [each for each in scored.values() if each.feasible]
    second = min(others, key=lambda each: each.score or 0.0, default=None)
    if second is None or second.prediction is None:
        return mine
    there = f"{mine}, {seconds(second.prediction.total.mean)} on {second.runtime}"
    if (second.score or 0.0) < (taken.score or 0.0):
        return f"{there}, which is too little gain to move"
    by_time = second.prediction.total.mean > taken.prediction.total.mean
    return there if by_time else f"{there}, which scores worse under the policy {placement.policy}"


def _refusals(placement: Placement) -> str:
    reasons = [each.reason for verdict in placement.in_the_way for each in verdict.infeasible]
    return "; ".join(dict.fromkeys(reasons)) or "none is configured"


def _judged(verdict: Verdict) -> str:
    if verdict.feasible:
        return f"{verdict.runtime}: could run it too" if verdict.prediction is None else _expected(verdict)
    reasons = "; ".join(f"{each.reason} [{each.code.value}]" for each in verdict.infeasible)
    return f"{verdict.runtime}: {reasons}"


def _expected(verdict: Verdict) -> str:
    found = verdict.prediction
    assert found is not None and verdict.score is not None
    parts = (("wait", found.wait), ("start", found.start), ("move", found.move), ("run", found.exec))
    listed = ", ".join(f"{name} {seconds(each.mean)}" for name, each in parts if each.mean > 0)
    total = f"about {seconds(found.total.mean)} (nine times of ten under {seconds(found.total.p90)})"
    return f"{verdict.runtime}: {total}: {listed}; {_odds(found)}; score {verdict.score:.3g}, {_basis(found)}"


def _odds(found: Prediction) -> str:
    odds = [f"fails {found.p_fail:.1%}"]
    if found.p_miss:
        odds.append(f"misses the deadline {found.p_miss:.0%}")
    if found.cost is not None:
        odds.append(f"costs {found.cost:.3g}")
    odds.append(f"is the best {found.p_best:.0%}")
    return ", ".join(odds)


def _basis(found: Prediction) -> str:
    match found.evidence:
        case Evidence.OWN:
            return f"from {found.n} runs of the step there" if found.n > 1 else "from 1 run of the step there"
        case Evidence.FAMILY:
            return "from runs elsewhere and of similar steps"
        case Evidence.RUNTIME:
            return "from what else ran there"
        case Evidence.RULE:
            return "assumed: nothing ran there yet"
        case _:
            assert_never(found.evidence)


def _weighed(placement: Placement) -> list[str]:
    lines = []
    if placement.weights:
        listed = ", ".join(f"{name} {value:g}" for name, value in placement.weights.items())
        lines.append(f"policy {placement.policy}: {listed}")
    if placement.fault:
        lines.append(f"what was learned could not be used, so the rules decided: {placement.fault}")
    return lines


def _known(placement: Placement) -> list[str]:
    entries = [(name, entry) for name, entry in placement.analysis.items() if isinstance(entry, Mapping)]
    facts = [_fact(name, entry) for name, entry in entries if entry["source"] != "unknown"]
    unknown = [name for name, entry in entries if entry["source"] == "unknown"]
    lines = (("known of the step", facts), ("not known", unknown))
    return [f"{title}: {', '.join(listed)}" for title, listed in lines if listed]


def _fact(name: str, entry: Mapping[str, object]) -> str:
    value, because = entry["value"], entry.get("because")
    is_size = name in ("data_size", "memory", "disk") and isinstance(value, int)
    shown = size_text(value) if is_size and isinstance(value, int) else value
    reason = f": {', '.join(str(each) for each in because)}" if isinstance(because, list | tuple) else ""
    return f"{name} {shown} ({entry['source']}{reason})"
