"""A placement in sentences, for people. Reads nothing but the placement, so that what is stored explains itself."""

from collections.abc import Mapping

from flexcore.analyzer.rules import ROWS
from flexcore.model.placement import Placement, Verdict


def why(placement: Placement) -> str:
    """Say in one line what was chosen and why."""
    return f"{placement.chosen or 'none'}, because {_because(placement)}"


def explain(placement: Placement) -> list[str]:
    """Say the whole: the choice, what each other candidate lacked, and what is known of the step."""
    others = [_judged(each) for each in placement.verdicts if each.runtime != placement.chosen]
    return [why(placement), *others, *_known(placement)]


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
            return f"earlier runs speak for it; the rules {_rule(placement)}"
        case "none":
            return f"no runtime can run the step now: {_refusals(placement)}"


def _rule(placement: Placement) -> str:
    row = ROWS.get(placement.rule)
    condition = f"{placement.rule}: {row.text}" if row else placement.rule
    return f"({condition}) choose {placement.rule_would_choose}"


def _refusals(placement: Placement) -> str:
    reasons = [each.reason for verdict in placement.verdicts for each in verdict.infeasible]
    return "; ".join(dict.fromkeys(reasons)) or "none is configured"


def _judged(verdict: Verdict) -> str:
    if verdict.feasible:
        return f"{verdict.runtime}: could run it too"
    reasons = "; ".join(f"{each.reason} [{each.code.value}]" for each in verdict.infeasible)
    return f"{verdict.runtime}: {reasons}"


def _known(placement: Placement) -> list[str]:
    entries = [(name, entry) for name, entry in placement.analysis.items() if isinstance(entry, Mapping)]
    facts = [f"{name} {entry['value']} ({entry['source']})" for name, entry in entries if entry["source"] != "unknown"]
    unknown = [name for name, entry in entries if entry["source"] == "unknown"]
    lines = (("known of the step", facts), ("not known", unknown))
    return [f"{title}: {', '.join(listed)}" for title, listed in lines if listed]
