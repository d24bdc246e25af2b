"""Ending work before its time: a cancel, or a time limit. The intent is written first, and acted on until confirmed."""

from collections.abc import Iterator

from flexcore.engine.draft import CONTROL_KINDS
from flexcore.engine.work import CancelChild, EndAttempt, Work
from flexcore.model import changes as c
from flexcore.model.execution import StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import StepPath, step_path
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.workflow import type_name

CANCELLED = "the execution was cancelled"
TIMED_OUT = "the execution was over its time limit"


def cancel_execution(work: Work, reason: str, *, timed_out: bool = False) -> None:
    """Write the intent, and end everything that is open. From here nothing new starts."""
    if work.draft.header.cancel_requested is None:
        work.emit(c.CancelRequested(reason, timed_out))
    if work.draft.header.status is ExecutionStatus.PENDING:
        _end_queued(work, reason, timed_out=timed_out)
        return
    _end_inside(work, "", ErrorClass.CANCELLED, TIMED_OUT if timed_out else CANCELLED)


def _end_queued(work: Work, reason: str, *, timed_out: bool) -> None:
    """End an execution that never began, because it had no place yet."""
    if not timed_out:
        failure = Failure(message=reason or "cancelled on request", error_class=ErrorClass.CANCELLED, name="Cancelled")
        work.emit(c.ExecutionCancelled(failure=failure))
        return
    # It begins, without the place it waited for, to end as any other whose time is over: `on_failure` runs.
    work.emit(c.ExecutionStarted())
    work.ended.extend(path for path, step in work.draft.steps.items() if step.status.is_terminal)
    _skip_what_waits(work, "", TIMED_OUT)


def expire_step(work: Work, state: StepState) -> None:
    """End a step that is over its time limit: a task's attempt, a sub-workflow, or all inside a control step."""
    reason = "over its time limit"
    work.emit(c.StepEnding(path=state.path, attempt=state.attempt, error_class=ErrorClass.TIMEOUT, reason=reason))
    if state.kind in CONTROL_KINDS:
        _end_inside(work, state.path, ErrorClass.CANCELLED, f"'{state.path}' was over its time limit")
    elif state.child is not None:
        work.actions.append(CancelChild(state.child))
    else:
        work.actions.append(EndAttempt(state.path))


def _end_inside(work: Work, around: StepPath | str, error_class: ErrorClass, reason: str) -> None:
    # Intents first: when a list closes below, the control step around it must know that it is ending.
    for state in list(_open_steps(work, around)):
        if state.ending is None and state.status is StepStatus.RUNNING and state.kind in CONTROL_KINDS:
            work.emit(c.StepEnding(path=state.path, attempt=0, error_class=error_class, reason=reason))
    for state in list(_open_steps(work, around)):
        if state.kind not in CONTROL_KINDS:
            _end_step(work, state, error_class, reason)
    _skip_what_waits(work, around, reason)


def _open_steps(work: Work, around: StepPath | str) -> Iterator[StepState]:
    prefixes = (f"{around}[", f"{around}.") if around else ("",)
    for state in work.draft.steps.values():
        if not state.status.is_terminal and state.path.startswith(prefixes):
            yield state


def _end_step(work: Work, state: StepState, error_class: ErrorClass, reason: str) -> None:
    if state.in_flight or state.child is not None:
        if state.ending is not error_class:  # also one that its own time limit is ending: it must not be tried again
            ending = c.StepEnding(path=state.path, attempt=state.attempt, error_class=error_class, reason=reason)
            work.emit(ending)
        work.actions.append(CancelChild(state.child) if state.child else EndAttempt(state.path))
    else:
        work.emit(c.StepCancelled(path=state.path, kind=state.kind, reason=reason))


def _skip_what_waits(work: Work, around: StepPath | str, reason: str) -> None:
    prefixes = (f"{around}[", f"{around}.") if around else ("",)
    for scope in list(work.draft.scopes.values()):
        if scope.status is not StepStatus.RUNNING or not scope.scope.startswith(prefixes):
            continue
        for step in work.graph.block(scope.scope).steps:
            path = step_path(scope.scope, step.id)
            if work.step(path) is None:
                work.emit(c.StepCancelled(path=path, kind=type_name(step), reason=reason))
