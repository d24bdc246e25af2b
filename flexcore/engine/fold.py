"""State after a change. `state == fold(history)`, always: `decide` builds its own next state with these functions.

Nothing here evaluates, places, looks up or reads a clock: a change holds every answer it needs.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any, assert_never

from flexcore.engine.draft import Draft
from flexcore.model import changes as c
from flexcore.model.changes import Change, HistoryEntry
from flexcore.model.execution import NEXT_ATTEMPT, ExecutionHeader, ExecutionState, ScopeState, StepState
from flexcore.model.graph import scope_of, split_scope
from flexcore.model.ids import ON_FAILURE, ROOT, ExecutionId, Scope, StepPath
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.rebuilding import rebuilt


def empty(id: ExecutionId) -> ExecutionState:
    """Give the state before the first entry."""
    return ExecutionState(
        header=ExecutionHeader(id=id, workflow="", version="", workspace="", status=ExecutionStatus.PENDING)
    )


def fold(id: ExecutionId, history: Iterable[HistoryEntry]) -> ExecutionState:
    """Compute the state of an execution from its whole history."""
    draft = Draft(empty(id))
    for entry in history:
        apply(draft, entry.change, entry.at)
    return draft.freeze()


def apply(draft: Draft, change: Change, at: datetime) -> None:
    """Make one more change true."""
    draft.seq += 1
    match change:
        case c.StepSucceeded() | c.StepFailed() | c.StepSkipped() | c.StepCancelled() | c.StepReused():
            draft.put(_ended(draft, change, at))
        case (
            c.StepDispatched()
            | c.StepSubmitted()
            | c.StepUnplaced()
            | c.StepQueued()
            | c.StepPostponed()
            | c.StepRetryScheduled()
            | c.StepStarted()
            | c.StepSuspended()
            | c.StepEnding()
        ):
            draft.put(_moved(draft, change, at))
        case c.ScopeOpened():
            _open_scope(draft, change)
        case c.ScopeClosed():
            _close_scope(draft, change)
        case _:
            draft.header = _header(draft, change, at)


_Ended = c.StepSucceeded | c.StepFailed | c.StepSkipped | c.StepCancelled | c.StepReused
_Moved = (
    c.StepDispatched
    | c.StepSubmitted
    | c.StepUnplaced
    | c.StepQueued
    | c.StepPostponed
    | c.StepRetryScheduled
    | c.StepStarted
    | c.StepSuspended
    | c.StepEnding
)
_HeaderChange = (
    c.ExecutionAccepted
    | c.ExecutionQueued
    | c.ExecutionStarted
    | c.ExecutionSuspended
    | c.ExecutionResumed
    | c.CancelRequested
    | c.ExecutionSucceeded
    | c.ExecutionFailed
    | c.ExecutionCancelled
)


def _begun(draft: Draft, path: StepPath, kind: str, at: datetime) -> StepState:
    known = draft.steps.get(path)
    return known or StepState(path=path, kind=kind, status=StepStatus.WAITING, created_at=at)


def _ended(draft: Draft, change: _Ended, at: datetime) -> StepState:
    step = _begun(draft, change.path, change.kind, at)
    # Rebuilt once, and not for each reason it changes: no line is passed more often.
    return rebuilt(
        step,
        finished_at=at,
        waiting_for="",
        due_at=None,
        in_flight=False,
        claims=(),
        full=(),
        **_end_of(step, change),
    )


def _end_of(step: StepState, change: _Ended) -> dict[str, Any]:
    match change:
        case c.StepSucceeded():
            return {
                "status": StepStatus.SUCCEEDED,
                "result": change.result,
                "failure": None,
                "usage": change.usage,
                "phases": change.phases,
                "artifacts": change.artifacts,
                "cached": change.cached,
                "started_at": step.started_at or step.created_at,
            }
        case c.StepFailed():
            return {
                "status": StepStatus.FAILED,
                "failure": change.failure,
                "tolerated": change.tolerated,
                "result": change.result,
                "usage": change.usage,
                "phases": change.phases,
                "started_at": step.started_at or (step.created_at if change.attempt else None),
            }
        case c.StepSkipped():
            return {
                "status": StepStatus.SKIPPED,
                "skipped_reason": change.reason,
                "upstream_failed": change.upstream_failed,
            }
        case c.StepCancelled():
            return {"status": StepStatus.CANCELLED, "skipped_reason": change.reason}
        case c.StepReused():
            return {
                "status": change.status,
                "result": change.result,
                "failure": change.failure,
                "tolerated": change.tolerated,
                "cached": change.given is None,
                "given": change.given,
                "artifacts": change.artifacts,
            }
        case _:
            assert_never(change)


def _moved(draft: Draft, change: _Moved, at: datetime) -> StepState:
    match change:
        case c.StepDispatched():
            return _dispatched(draft, change, at)
        case c.StepSubmitted(handle=handle, expires_at=expires_at):
            step = draft.steps[change.path]
            return rebuilt(
                step,
                status=StepStatus.RUNNING,
                handle=handle,
                adoptions=step.adoptions + change.adopted,
                expires_at=step.expires_at or expires_at,
                started_at=step.started_at or at,
                waiting_for="",  # `due_at` stays: a late report must not take away the alarm of a postponed attempt
            )
        case c.StepUnplaced():
            return rebuilt(
                _begun(draft, change.path, change.kind, at),
                status=StepStatus.PENDING,
                placement=change.placement,
                waiting_for=change.waiting_for,
                due_at=change.due_at,
                full=(),
            )
        case c.StepQueued():
            return _queued(draft, change, at)
        case c.StepPostponed():
            step = draft.steps[change.path]
            spent = {**step.spent, "postponed": step.spent.get("postponed", 0) + 1}
            return rebuilt(step, due_at=change.due_at, waiting_for=change.waiting_for, spent=spent)
        case c.StepRetryScheduled(budget=budget):
            step = draft.steps[change.path]
            return rebuilt(
                step,
                status=StepStatus.PENDING,
                failure=change.failure,
                spent={**step.spent, budget: step.spent.get(budget, 0) + 1},
                due_at=change.due_at,
                waiting_for=NEXT_ATTEMPT,
                handle=None,
                expires_at=None,
                ending=None,
                in_flight=False,
                claims=(),
                queued_at=None,
            )
        case c.StepStarted(loop=loop, child=child, expires_at=expires_at):
            return rebuilt(
                _begun(draft, change.path, change.kind, at),
                status=StepStatus.RUNNING,
                loop=loop,
                child=child,
                parameters=change.parameters,
                expires_at=expires_at,
                started_at=at,
            )
        case c.StepSuspended():
            return rebuilt(
                _begun(draft, change.path, change.kind, at),
                status=StepStatus.SUSPENDED,
                due_at=change.due_at,
                waiting_for=change.waiting_for,
                started_at=at,
            )
        case c.StepEnding(error_class=error_class):
            return rebuilt(draft.steps[change.path], ending=error_class)
        case _:
            assert_never(change)


def _queued(draft: Draft, change: c.StepQueued, at: datetime) -> StepState:
    step = _begun(draft, change.path, change.kind, at)
    return rebuilt(
        step,
        status=StepStatus.PENDING,
        placement=change.placement,
        full=change.full,
        waiting_for=change.waiting_for,
        queued_at=step.queued_at or at,  # whoever gets on in one queue and has to wait in the next keeps its rank
        due_at=None,
    )


def _dispatched(draft: Draft, change: c.StepDispatched, at: datetime) -> StepState:
    known = draft.steps.get(change.path)
    return StepState(
        path=change.path,
        kind=change.kind,
        status=StepStatus.PENDING,
        attempt=change.attempt,
        token=change.token,
        runtime=change.runtime,
        placement=change.placement,
        parameters=change.parameters,
        secrets=change.secrets,
        env=change.env,
        cache_key=change.cache_key,
        in_flight=True,
        claims=change.claims,
        waited=change.waited,
        spent=known.spent if known else {},
        created_at=known.created_at if known else at,
    )


def _open_scope(draft: Draft, change: c.ScopeOpened) -> None:
    draft.put_scope(ScopeState(scope=change.scope, status=StepStatus.RUNNING, error=change.error))
    _count_iteration(draft, change.scope, started=1)


def _close_scope(draft: Draft, change: c.ScopeClosed) -> None:
    if change.cancelled:
        status = StepStatus.CANCELLED
    else:
        status = StepStatus.FAILED if change.failure else StepStatus.SUCCEEDED
    draft.put_scope(rebuilt(draft.scopes[change.scope], status=status, result=change.result, failure=change.failure))
    _count_iteration(draft, change.scope, finished=1, failed=int(change.failure is not None))


def _count_iteration(draft: Draft, scope: Scope, *, started: int = 0, finished: int = 0, failed: int = 0) -> None:
    if scope in (ROOT, ON_FAILURE):
        return
    owner = draft.steps[split_scope(scope)[0]]
    if owner.loop is not None:
        loop = owner.loop
        loop = rebuilt(
            loop,
            started=loop.started + started,
            finished=loop.finished + finished,
            failed=loop.failed + failed,
        )
        draft.put(rebuilt(owner, loop=loop))


def _header(draft: Draft, change: _HeaderChange, at: datetime) -> ExecutionHeader:
    header = draft.header
    match change:
        case c.ExecutionAccepted():
            return _accepted(header.id, change, at)
        case c.ExecutionQueued(full=full):
            return rebuilt(header, full=full)
        case c.ExecutionStarted(claims=claims):
            draft.put_scope(ScopeState(scope=ROOT, status=StepStatus.RUNNING, ended=_already_ended(draft)))
            return rebuilt(header, status=ExecutionStatus.RUNNING, started_at=at, claims=claims, full=())
        case c.ExecutionSuspended():
            return rebuilt(header, status=ExecutionStatus.SUSPENDED)
        case c.ExecutionResumed():
            return rebuilt(header, status=ExecutionStatus.RUNNING)
        case c.CancelRequested(reason=reason, timed_out=timed_out):
            return rebuilt(header, cancel_requested=reason, timed_out=timed_out)
        case c.ExecutionSucceeded(output=output):
            ended = rebuilt(header, status=ExecutionStatus.SUCCEEDED, output=output, finished_at=at)
            return _released(ended)
        case c.ExecutionFailed(failure=failure):
            ended = rebuilt(header, status=ExecutionStatus.FAILED, failure=failure, finished_at=at)
            return _released(ended)
        case c.ExecutionCancelled(failure=failure):
            ended = rebuilt(header, status=ExecutionStatus.CANCELLED, failure=failure, finished_at=at)
            return _released(ended)
        case _:
            assert_never(change)


def _already_ended(draft: Draft) -> int:
    """Count the steps of the workflow's own list that were taken over while the execution was queued."""
    return sum(step.status.is_terminal and scope_of(path) == ROOT for path, step in draft.steps.items())


def _released(header: ExecutionHeader) -> ExecutionHeader:
    return rebuilt(header, claims=(), full=()) if header.claims or header.full else header


def _accepted(id: ExecutionId, change: c.ExecutionAccepted, at: datetime) -> ExecutionHeader:
    return ExecutionHeader(
        id=id,
        workflow=change.workflow,
        version=change.version,
        workspace=change.workspace,
        status=ExecutionStatus.PENDING,
        input=change.input,
        labels=change.labels,
        pinned_runtime=change.pinned_runtime,
        forked_from=change.forked_from,
        parent=change.parent,
        parent_path=change.parent_path,
        depth=change.depth,
        pinned_versions=change.pinned_versions,
        expires_at=change.expires_at,
        created_at=at,
    )
