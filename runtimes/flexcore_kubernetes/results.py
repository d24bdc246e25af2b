"""From what is seen at the end to the attempt's result: what the step itself tells, or else what the cluster tells."""

from dataclasses import replace
from datetime import timedelta

from flexcore.model.execution import Phase
from flexcore.runtime.interface import ExecutionRequest, ExecutionResult, Failed, Succeeded
from flexcore.runtime.portable import judgement
from flexcore.runtime.portable.data import DataLinks
from flexcore.runtime.portable.ending import Ending, EndingInLog, decode
from flexcore_kubernetes import outcomes
from flexcore_kubernetes.outcomes import Sight

_NO_RESULT = "the work succeeded, but its result could not be read: its pod and log are gone"


def of_container(sight: Sight, request: ExecutionRequest) -> ExecutionResult:
    """Judge a container or a user's Job."""
    outcome: Succeeded | Failed
    if outcomes.final(sight.job) == "Complete":
        outcome = outcomes.result_of(sight)
    else:
        outcome = Failed(outcomes.failure_of(sight))
    return ExecutionResult(outcome=judgement.redacted(outcome, request.secrets), phases=outcomes.phases_of(sight))


def of_portable(sight: Sight, request: ExecutionRequest, in_log: EndingInLog, data: DataLinks) -> ExecutionResult:
    """Judge a step that the far program ran. It knows best, but for what happened to itself."""
    ending = _ending(sight, in_log)
    failure = outcomes.failure_of(sight) if outcomes.final(sight.job) == "Failed" else None
    if ending is None or (failure is not None and not outcomes.is_plain_exit(failure)):
        instead = outcomes.lost(_NO_RESULT) if failure is None else Failed(failure)
        return ExecutionResult(outcome=judgement.redacted(instead, request.secrets), phases=outcomes.phases_of(sight))
    instead = outcomes.cancelled() if failure is None else Failed(failure)
    result = ending.result(instead, data, request.id, request.secrets)
    return replace(result, phases=_phases(sight, ending))


def is_untold(sight: Sight, in_log: EndingInLog) -> bool:
    """Whether only the step itself can say how it ended, and did not yet."""
    failed = outcomes.final(sight.job) == "Failed"
    return _ending(sight, in_log) is None and (not failed or outcomes.is_plain_exit(outcomes.failure_of(sight)))


def _ending(sight: Sight, in_log: EndingInLog) -> Ending | None:
    message = outcomes.told(sight)
    return (decode(message.encode()) if message else None) or in_log.ending


def _phases(sight: Sight, ending: Ending) -> dict[Phase, timedelta]:
    """The pod's way to its start, then what the far program measured, which begins where the container does."""
    found = outcomes.phases_of(sight)
    if not ending.phases:
        return found
    start = found.get(Phase.START, timedelta(0)) + ending.phases.get(Phase.START, timedelta(0))
    return {Phase.QUEUE: found.get(Phase.QUEUE, timedelta(0)), **ending.phases, Phase.START: start}
