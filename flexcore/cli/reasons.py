"""Why a step went where it did, read from the document of its placement: one calm line.

A choice that could have been no other is said in few words; what is worth a sentence is what surprises.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from flexcore.cli.render import clean, seconds

_NEVER = frozenset({"TYPE_UNSUPPORTED"})
"""Where the rules' choice cannot run a step of this kind anyway, it is no news that another runtime has it."""

_ELSEWHERE = frozenset({"PINNED_ELSEWHERE"})

_NO_NEWS = frozenset({"DISABLED", "NOT_CONFIGURED", "UNHEALTHY", "CIRCUIT_OPEN"})
"""What says nothing of the step."""


def why(placement: Mapping[str, Any] | None) -> str:
    """Say in one line why a runtime was chosen, or why none was."""
    if not placement:
        return ""
    chosen = placement.get("chosen")
    if not chosen:
        named = list(refusals(placement, but=_ELSEWHERE)) or list(refusals(placement))
        return "; ".join(f"{name}: {reason}" for name, reason in named) or "no runtime can have it"
    warnings = "".join(f"; {clean(str(each))}" for each in placement.get("warnings") or ())
    return _because(placement, str(chosen)) + warnings


def _because(placement: Mapping[str, Any], chosen: str) -> str:
    source, rule = placement.get("source"), placement.get("rule")
    if source == "pinned":
        return "pinned"
    if source == "learned":
        return _learned(placement, chosen)
    if _is_no_surprise(placement):
        others = [each for each in placement.get("candidates", ()) if each.get("feasible")]
        return _only(placement) if len(others) == 1 else "the first of those that can run it"
    if placement.get("fallback_reason"):
        return clean(str(placement["fallback_reason"]))
    return _only(placement) if source == "only-feasible" else f"rule {rule}" if rule else "the rules"


def _only(placement: Mapping[str, Any]) -> str:
    """Say that there is no other, and what about the step keeps those out that run its kind."""
    kept = [reason for _, reason in refusals(placement, but=_NEVER | _NO_NEWS)]
    return "; ".join(["the only runtime left", *kept]) if kept else "the only runtime that can run it"


def _is_no_surprise(placement: Mapping[str, Any]) -> bool:
    """Say whether the rules' choice could never have had the step, because of its kind."""
    wanted = placement.get("rule_would_choose")
    for each in placement.get("candidates", ()):
        if each.get("runtime") == wanted and wanted != placement.get("chosen"):
            return bool(_NEVER & {reason.get("code") for reason in each.get("reasons", ())})
    return False


def _learned(placement: Mapping[str, Any], chosen: str) -> str:
    expected = dict(_predictions(placement))
    if chosen not in expected:
        return "earlier runs speak for it"
    own = expected.pop(chosen)
    runs = own.get("n") or 0
    basis = f"{runs} earlier run{'s' if runs != 1 else ''} there" if runs else "what is known of such steps"
    said = f"about {_typical(own)} expected, by {basis}"
    if not expected:
        return said
    return f"{said}; {', '.join(_elsewhere(name, found, own) for name, found in expected.items())}"


def _elsewhere(name: str, found: Mapping[str, Any], own: Mapping[str, Any]) -> str:
    """Say what is expected of another; of one that is no slower, that it costs more where it does."""
    is_dearer = (found.get("cost") or 0.0) > (own.get("cost") or 0.0) and _seconds(found) <= _seconds(own)
    return f"{_typical(found)} on {name}" + (", for more money" if is_dearer else "")


def expected_time(placement: Mapping[str, Any] | None) -> str:
    """Say how long the step is expected to take where it goes; empty where nothing is known."""
    placement = placement or {}
    found = dict(_predictions(placement)).get(str(placement.get("chosen")))
    return "" if found is None else _typical(found)


def _typical(prediction: Mapping[str, Any]) -> str:
    return seconds(_seconds(prediction))


def _seconds(prediction: Mapping[str, Any]) -> float:
    return float((prediction.get("total") or {}).get("p50_s") or 0.0)


def _predictions(placement: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for each in placement.get("candidates", ()):
        if isinstance(found := each.get("prediction"), Mapping):
            yield str(each.get("runtime")), found


def refusals(placement: Mapping[str, Any], but: frozenset[str] = frozenset()) -> Iterator[tuple[str, str]]:
    """Give each runtime that could not have the step, and why; those out for one of the codes in `but` are left out."""
    for candidate in placement.get("candidates", ()):
        if but & {each.get("code") for each in candidate.get("reasons", ()) if isinstance(each, Mapping)}:
            continue
        reasons = ", ".join(
            str(each.get("reason", each)) if isinstance(each, Mapping) else str(each)
            for each in candidate.get("reasons", ())
        )
        if reasons:
            yield str(candidate.get("runtime")), clean(reasons)
