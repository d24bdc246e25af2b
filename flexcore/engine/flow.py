"""What follows from what: steps whose needs have ended get their turn, lists whose steps have ended close.

Works off a queue instead of calling itself, so that a chain of ten thousand instant steps needs no deep stack.
"""

from functools import partial

from flexcore.engine import controls
from flexcore.engine.begin import begin
from flexcore.engine.names import Known, Pending, Place, evaluate
from flexcore.engine.work import Work
from flexcore.model import changes as c
from flexcore.model.execution import StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import Block, scope_of
from flexcore.model.ids import ON_FAILURE, ROOT, Scope, StepPath, step_path
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.values import NOTHING, Payload
from flexcore.model.workflow import Step, type_name


def run(work: Work) -> None:
    """Follow everything that the changes so far set off, to the end."""
    while work.opened or work.ended:
        if work.opened:
            _open(work, work.opened.popleft())
        else:
            _follow(work, work.ended.popleft())
    if not work.asked:
        _suspend_or_resume(work)


def _open(work: Work, scope: Scope) -> None:
    block = work.graph.block(scope)
    for step in block.first:
        _consider(work, scope, block, step)
    if not block.steps:
        _close(work, scope, block)


def _follow(work: Work, path: StepPath) -> None:
    scope = scope_of(path)
    around = work.draft.scopes.get(scope)
    if around is None or around.status is not StepStatus.RUNNING:
        return  # a reused step inside a reused control step
    block, step = work.graph.block(scope), work.graph.step(path)
    for dependent in block.dependents[step.id]:
        _consider(work, scope, block, dependent)
    if work.draft.scopes[scope].ended == len(block.steps):
        _close(work, scope, block)


def _consider(work: Work, scope: Scope, block: Block, step: Step) -> None:
    path = step_path(scope, step.id)
    if work.step(path) is not None:
        return
    stopped_by: StepState | None = None
    for needed in block.needs[step.id]:
        state = work.step(step_path(scope, needed))
        if state is None or not state.status.is_terminal:
            return
        stopped_by = stopped_by or (state if stops_others(state) else None)
    if stopped_by is not None:
        reason = f"it needs '{stopped_by.path}', which {_what_happened(stopped_by)}"
        work.emit(c.StepSkipped(path=path, kind=type_name(step), reason=reason, upstream_failed=True))
        return
    work.attempt(partial(_begin_once, work, scope, step))


def _begin_once(work: Work, scope: Scope, step: Step) -> None:
    # Two steps that it needs may have ended in this decision, and it may have had to ask: then it is here twice.
    if work.step(step_path(scope, step.id)) is None:
        begin(work, scope, step)


def stops_others(state: StepState) -> bool:
    """Say whether steps that need this one cannot run. A step skipped by its own condition stops nobody."""
    return (
        (state.status is StepStatus.FAILED and not state.tolerated)
        or state.status is StepStatus.CANCELLED
        or state.upstream_failed
    )


def _what_happened(state: StepState) -> str:
    if state.status is StepStatus.SKIPPED:
        return "was skipped because of an earlier failure"
    return "was cancelled" if state.status is StepStatus.CANCELLED else "failed"


def _close(work: Work, scope: Scope, block: Block) -> None:
    states = [work.draft.steps[step_path(scope, step.id)] for step in block.steps]
    failure = next((s.failure for s in states if s.status is StepStatus.FAILED and not s.tolerated), None)
    cancelled = failure is None and any(s.status is StepStatus.CANCELLED for s in states)
    result = NOTHING if failure or cancelled or not states else states[-1].result
    work.emit(c.ScopeClosed(scope=scope, result=result, failure=failure, cancelled=cancelled))
    if scope == ROOT:
        work.attempt(partial(_root_closed, work, failure, result))
    elif scope == ON_FAILURE:
        _handled(work)
    else:
        work.attempt(partial(controls.scope_closed, work, scope))


# --- the end of the execution


def _root_closed(work: Work, failure: Failure | None, last: Payload) -> None:
    header = work.draft.header
    if header.cancel_requested is not None and not header.timed_out:
        work.emit(c.ExecutionCancelled(failure=_cancelled(header.cancel_requested)))
        return
    if header.timed_out:
        failure = Failure(message=header.cancel_requested or "", error_class=ErrorClass.TIMEOUT, name="Timeout")
    output = _output(work, last) if failure is None else failure
    if isinstance(output, Failure):
        _fail_execution(work, output)
    elif output is not None:
        work.emit(c.ExecutionSucceeded(output=output))


def _output(work: Work, last: Payload) -> Payload | Failure | None:
    template = work.graph.workflow.output
    if template is None:
        return last
    outcome = evaluate(work, template, Place(scope=ROOT, address="@output"))
    match outcome:
        case Known(value=value):
            return work.payload(value)
        case Pending():
            return None
        case Failure():
            return outcome


def _fail_execution(work: Work, failure: Failure) -> None:
    if work.graph.workflow.on_failure:
        work.emit(c.ScopeOpened(scope=ON_FAILURE, error=failure))
    else:
        work.emit(c.ExecutionFailed(failure=failure))


def _handled(work: Work) -> None:
    """End the execution as it would have without its handler: what the handler does changes no outcome."""
    error = work.draft.scopes[ON_FAILURE].error
    assert error is not None
    work.emit(c.ExecutionFailed(failure=error))


def _cancelled(reason: str) -> Failure:
    return Failure(message=reason or "cancelled on request", error_class=ErrorClass.CANCELLED, name="Cancelled")


def _suspend_or_resume(work: Work) -> None:
    draft = work.draft
    if draft.header.status is ExecutionStatus.RUNNING and draft.suspended and not draft.active:
        work.emit(c.ExecutionSuspended())
    elif draft.header.status is ExecutionStatus.SUSPENDED and draft.active:
        work.emit(c.ExecutionResumed())
