"""Control steps: how they start, and what the end of a list inside them means. Only emits.

`parallel`, `foreach` and `while` keep count in their `loop`, so that the end of one iteration costs the same however
many there are.
"""

from dataclasses import replace
from datetime import datetime

from flexcore.engine.names import Pending, Place, evaluate, load
from flexcore.engine.render import is_truthy
from flexcore.engine.work import Work, failure_document, user_failure
from flexcore.model import changes as c
from flexcore.model.execution import LoopState, ScopeState, StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import CATCH, DEFAULT, FINALLY, TRY, child_scope, scope_of, split_scope
from flexcore.model.ids import Scope, StepPath, indexed, named
from flexcore.model.values import JSON, NOTHING, Payload
from flexcore.model.workflow import Branch, ForEach, OnError, Parallel, Step, Try, While, type_name


def start(work: Work, path: StepPath, step: Step, place: Place) -> Failure | None:
    """Start a control step. Gives the failure that keeps it from starting, if one does."""
    match step.action:
        case Branch() as branch:
            return _start_branch(work, path, step, branch, place)
        case Parallel(branches=branches):
            _started(work, path, step, LoopState(total=len(branches)))
            for each in branches:
                work.emit(c.ScopeOpened(scope=named(path, each.id)))
        case ForEach() as loop:
            return _start_foreach(work, path, step, loop, place)
        case While() as loop:
            _started(work, path, step, LoopState(total=None))
            _go_on(work, path, step, loop)
        case Try():
            _started(work, path, step)
            work.emit(c.ScopeOpened(scope=named(path, TRY)))
    return None


def expiry(work: Work, step: Step) -> datetime | None:
    """Say when the time limit of a step that starts now is over."""
    return work.env.now + step.timeout if step.timeout else None


def _started(work: Work, path: StepPath, step: Step, loop: LoopState | None = None) -> None:
    work.emit(c.StepStarted(path=path, kind=type_name(step), loop=loop, expires_at=expiry(work, step)))


def _start_branch(work: Work, path: StepPath, step: Step, branch: Branch, place: Place) -> Failure | None:
    chosen: str | None = None
    for index, case in enumerate(branch.cases):
        outcome = evaluate(work, case.condition, replace(place, address=f"{path}@case{index}"))
        if isinstance(outcome, Pending):
            return None
        if isinstance(outcome, Failure):
            return outcome
        if is_truthy(outcome.value):
            chosen = str(index)
            break
    if chosen is None and branch.default:
        chosen = DEFAULT
    if chosen is None:
        work.emit(c.StepSucceeded(path=path, kind="branch"))
        return None
    _started(work, path, step)
    work.emit(c.ScopeOpened(scope=child_scope(path, chosen)))
    return None


def _start_foreach(work: Work, path: StepPath, step: Step, loop: ForEach, place: Place) -> Failure | None:
    outcome = evaluate(work, loop.items, place)
    if isinstance(outcome, Pending):
        return None
    if isinstance(outcome, Failure):
        return outcome
    items, limit = outcome.value, work.env.limits.foreach_items
    if not isinstance(items, list | tuple):
        kind = "null" if items is None else type(items).__name__
        return user_failure(f"foreach needs a list of items, and got {kind}", path, hint="look at `items`")
    if len(items) > limit:
        return user_failure(f"foreach over {len(items)} items is over the limit of {limit}", path)
    if not items:
        work.emit(c.StepSucceeded(path=path, kind="foreach", result=Payload([])))
        return None
    _started(work, path, step, LoopState(total=len(items), items=work.payload(list(items))))
    _launch(work, path, loop)
    return None


def _launch(work: Work, path: StepPath, loop: ForEach) -> None:
    state = _loop_of(work, path)
    assert state.total is not None
    room = loop.parallelism - (state.started - state.finished)
    for index in range(state.started, min(state.total, state.started + room)):
        work.emit(c.ScopeOpened(scope=indexed(path, index)))


def _loop_of(work: Work, path: StepPath) -> LoopState:
    loop = work.draft.steps[path].loop
    assert loop is not None
    return loop


def _go_on(work: Work, path: StepPath, step: Step, loop: While) -> None:
    def next_round() -> None:
        failure = _next_round(work, path, step, loop)
        if failure is not None:
            settle(work, path, step, failure, NOTHING)

    work.attempt(next_round)


def _next_round(work: Work, path: StepPath, step: Step, loop: While) -> Failure | None:
    rounds = _loop_of(work, path).started
    scope = indexed(path, rounds - 1)  # the condition sees the round before; before the first there is nothing
    place = Place(scope=scope, address=f"{path}@round{rounds}", step=step, around=scope_of(path))
    outcome = evaluate(work, loop.condition, place)
    if isinstance(outcome, Pending):
        return None
    if isinstance(outcome, Failure):
        return replace(outcome, step=path)
    if not is_truthy(outcome.value):
        last = work.draft.scopes[scope].result if rounds else NOTHING
        work.emit(c.StepSucceeded(path=path, kind="while", result=last))
        return None
    if rounds >= loop.max_iterations:
        message = f"the condition still holds after {rounds} iterations, the limit of this loop"
        return user_failure(message, path, name="TooManyIterations", hint="raise max_iterations")
    work.emit(c.ScopeOpened(scope=indexed(path, rounds)))
    return None


# --- what the end of a list means for the step around it


def scope_closed(work: Work, scope: Scope) -> None:
    """A list inside a control step has ended: go on with the next one, or end the step."""
    path, key = split_scope(scope)
    step, state = work.graph.step(path), work.draft.steps[path]
    if state.ending is not None:
        if not _finally_still(work, path, step, state, key):
            _end_early(work, path, step, state)
        return
    closed = work.draft.scopes[scope]
    match step.action:
        case Branch():
            settle(work, path, step, closed.failure, closed.result)
        case Parallel() as parallel:
            if state.loop and state.loop.finished == state.loop.total:
                _join(work, path, step, parallel)
        case ForEach() as loop:
            _iteration_closed(work, path, step, loop)
        case While() as loop:
            _round_closed(work, path, step, loop, closed)
        case Try() as attempt:
            _try_closed(work, path, step, attempt, key, closed)
        case _:
            raise AssertionError(f"{path} has no lists inside")


def settle(work: Work, path: StepPath, step: Step, failure: Failure | None, result: Payload) -> None:
    """End a control step with what came out of it."""
    if failure is None:
        work.emit(c.StepSucceeded(path=path, kind=type_name(step), result=result))
    else:
        work.emit(failed(work, path, step, failure))


def failed(work: Work, path: StepPath, step: Step, failure: Failure, attempt: int = 0) -> c.StepFailed:
    """Make the change that ends a step as failed; with `on_error: continue` its failure becomes its result."""
    tolerated = step.on_error is OnError.CONTINUE
    result = work.payload({"error": failure_document(failure)}) if tolerated else NOTHING
    return c.StepFailed(
        path=path, kind=type_name(step), attempt=attempt, failure=failure, tolerated=tolerated, result=result
    )


def _finally_still(work: Work, path: StepPath, step: Step, state: StepState, key: str) -> bool:
    """Let `finally` run after a try was over its own time limit; not when something around it ends, or everything."""
    is_due = isinstance(step.action, Try) and step.action.final and key != FINALLY
    if not is_due or state.ending is not ErrorClass.TIMEOUT or work.draft.header.cancel_requested is not None:
        return False
    work.emit(c.ScopeOpened(scope=named(path, FINALLY), error=timed_out(step, path)))
    return True


def _end_early(work: Work, path: StepPath, step: Step, state: StepState) -> None:
    if state.loop is not None and state.loop.finished < state.loop.started:
        return
    if state.ending is ErrorClass.CANCELLED:
        work.emit(c.StepCancelled(path=path, kind=type_name(step), reason="the execution was cancelled"))
    else:
        work.emit(failed(work, path, step, timed_out(step, path)))


def timed_out(step: Step, path: StepPath, attempt: int = 0) -> Failure:
    """Make the failure of a step that was over its time limit."""
    limit = step.timeout.total_seconds() if step.timeout else 0
    return Failure(
        message=f"not done within its time limit of {limit:g} s",
        error_class=ErrorClass.TIMEOUT,
        name="Timeout",
        step=path,
        attempt=attempt,
    )


def _join(work: Work, path: StepPath, step: Step, parallel: Parallel) -> None:
    closed = [(branch, work.draft.scopes[named(path, branch.id)]) for branch in parallel.branches]
    failure = next((s.failure for b, s in closed if s.failure and b.on_error is OnError.FAIL), None)
    asked = len(work.values)
    results: dict[str, JSON] = {branch.id: _result_of(work, scope) for branch, scope in closed}
    if len(work.values) == asked:
        settle(work, path, step, failure, work.payload(results) if failure is None else NOTHING)


def _result_of(work: Work, scope: ScopeState) -> JSON:
    if scope.failure is not None:
        return {"error": failure_document(scope.failure)}
    return load(work, scope.result)


def _iteration_closed(work: Work, path: StepPath, step: Step, loop: ForEach) -> None:
    state = _loop_of(work, path)
    tolerant = step.on_error is OnError.CONTINUE
    if state.started < (state.total or 0) and (tolerant or not state.failed):
        _launch(work, path, loop)
        return
    if state.finished < state.started:
        return
    scopes = [work.draft.scopes[indexed(path, index)] for index in range(state.started)]
    failure = None if tolerant else next((scope.failure for scope in scopes if scope.failure), None)
    if failure is not None:
        settle(work, path, step, failure, NOTHING)
        return
    asked = len(work.values)
    results = [_result_of(work, scope) for scope in scopes]
    if len(work.values) == asked:
        settle(work, path, step, None, work.payload(results))


def _round_closed(work: Work, path: StepPath, step: Step, loop: While, closed: ScopeState) -> None:
    if closed.failure is not None:
        settle(work, path, step, closed.failure, NOTHING)
    else:
        _go_on(work, path, step, loop)


def _try_closed(work: Work, path: StepPath, step: Step, action: Try, key: str, closed: ScopeState) -> None:
    if key == TRY and closed.failure and action.catch:
        work.emit(c.ScopeOpened(scope=named(path, CATCH), error=closed.failure))
    elif key != FINALLY and action.final:
        work.emit(c.ScopeOpened(scope=named(path, FINALLY), error=closed.failure))
    else:
        _settle_try(work, path, step)


def _settle_try(work: Work, path: StepPath, step: Step) -> None:
    scopes = work.draft.scopes
    body = scopes.get(named(path, CATCH)) or scopes[named(path, TRY)]
    final = scopes.get(named(path, FINALLY))
    failure = (final.failure if final else None) or body.failure
    settle(work, path, step, failure, body.result)
