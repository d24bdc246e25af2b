"""What can be learned from a transition: how each attempt went that ended in it. Pure, and no value of a user's.

Written in the same transaction as the end itself, so that what is learned is never more and never less than what
happened. Only attempts that a runtime ended are told of: results that were reused, cached or given teach nothing.
"""

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from flexcore.model import changes as c
from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionState, Phase, StepState
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import signature_of
from flexcore.model.observation import Observation
from flexcore.model.placement import Placement, Prediction

SUCCEEDED = "succeeded"

_TEACHES_NOTHING = frozenset({ErrorClass.CANCELLED, ErrorClass.INPUT, ErrorClass.INTERNAL})


def observations(
    before: ExecutionState, after: ExecutionState, entries: Sequence[HistoryEntry]
) -> Iterator[Observation]:
    """Tell of the attempts that end in these entries, which led from one state to the other."""
    for entry in entries:
        change = entry.change
        # By type, and not by pattern: this is asked of every entry that is written, and few answer.
        if type(change) is c.StepSucceeded:
            if change.attempt and not change.cached:
                yield from _observed(after, after.steps[change.path], entry.at, SUCCEEDED)
        elif type(change) is c.StepFailed:
            if change.attempt and change.failure.error_class not in _TEACHES_NOTHING:
                yield from _observed(after, after.steps[change.path], entry.at, change.failure.error_class.value)
        elif type(change) is c.StepRetryScheduled:
            step = before.steps.get(change.path)
            if step is None or step.attempt != change.attempt or change.failure.error_class in _TEACHES_NOTHING:
                continue  # without the attempt in the state before, it began and ended in one transaction
            yield from _observed(after, step, entry.at, change.failure.error_class.value)


def _observed(state: ExecutionState, step: StepState, at: datetime, outcome: str) -> Iterator[Observation]:
    placement = step.placement
    if step.runtime is None or placement is None:
        return
    phases = step.phases if outcome == SUCCEEDED else {}
    prediction, seconds = _predicted(placement, placement.chosen), _seconds(step, at, phases)
    score, rule_score = _compared(placement, outcome, seconds)
    yield Observation(
        signature=signature_of(state.header.workflow, step.path),
        family=step.kind,
        runtime=step.runtime,
        runtime_kind=placement.chosen_kind,
        outcome=outcome,
        at=at,
        input_bytes=placement.input_bytes,
        seconds=seconds,
        cpu_s=step.usage.cpu_s,
        score=score,
        store=placement.input_store,
        expected_wait_s=None if prediction is None else prediction.wait.mean,
        rule_score=rule_score,
    )


def _seconds(step: StepState, at: datetime, phases: Mapping[Phase, timedelta]) -> dict[Phase, float]:
    """Give the phases in seconds; of an attempt that did not succeed, how long it ran before it ended."""
    if phases:
        # A runtime that tells nothing of its start has it in the run: it is not to be reckoned twice.
        return {Phase.START: 0.0, **{phase: spent.total_seconds() for phase, spent in phases.items()}}
    begun = step.started_at or step.created_at
    return {} if begun is None else {Phase.RUN: max((at - begun).total_seconds(), 0.0)}


def _compared(
    placement: Placement, outcome: str, seconds: Mapping[Phase, float]
) -> tuple[float, float] | tuple[None, None]:
    """Give what a learned choice came to, and what the rules' was predicted to, both in the units of scores.

    Nothing of choices under a deadline, whose score is mostly risk, nor of what the user's own code failed at.
    """
    if placement.source != "learned" or outcome == ErrorClass.USER.value:
        return None, None
    chosen, other = _predicted(placement, placement.chosen), _predicted(placement, placement.by_rule)
    if chosen is None or other is None or chosen.p_miss or other.p_miss:
        return None, None
    took, weights = sum(seconds.values()), placement.weights
    busy, expected = took - seconds.get(Phase.QUEUE, 0.0), chosen.total.mean - chosen.wait.mean
    money = 0.0 if chosen.cost is None or expected <= 0 else chosen.cost * busy / expected
    score = weights["time"] * took + weights["cost"] * weights["seconds_per_unit"] * money + chosen.score.degraded
    if placement.by_rule == placement.chosen:
        return score, score
    if outcome == SUCCEEDED:
        return score, sum(other.score)
    # The work is still to be done. By the rules it might have run out of time as well; lost is lost to the choice.
    return score, min(sum(other.score), score) if outcome == ErrorClass.TIMEOUT.value else 0.0


def _predicted(placement: Placement, runtime: str | None) -> Prediction | None:
    return next((each.prediction for each in placement.verdicts if each.runtime == runtime), None)
