"""A step's turn has come: what happens to it, by kind. Only emits; what that sets off is for `flow`."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import assert_never

from flexcore.analyzer.place import waits
from flexcore.engine import controls, pools
from flexcore.engine.names import PENDING, Known, Pending, Place, environment, evaluate
from flexcore.engine.render import is_truthy
from flexcore.engine.viewing import view_of
from flexcore.engine.work import LookAgain, StartAttempt, StartChild, Work, user_failure
from flexcore.model import changes as c
from flexcore.model.execution import StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import scope_of
from flexcore.model.ids import ExecutionId, Scope, StepPath, step_path
from flexcore.model.lifecycle import StepStatus
from flexcore.model.placement import Placement
from flexcore.model.pools import Claim
from flexcore.model.units import parse_duration
from flexcore.model.values import JSON, canonical, digest, wrong_format
from flexcore.model.workflow import (
    Branch,
    ForEach,
    Parallel,
    Step,
    SubWorkflow,
    Task,
    Transform,
    Try,
    Wait,
    While,
    type_name,
)


def begin(work: Work, scope: Scope, step: Step) -> None:
    """Give a step its turn. Emits nothing when something must be known first."""
    path = step_path(scope, step.id)
    place = Place(scope=scope, address=path, step=step)
    if step.when is not None:
        outcome = evaluate(work, step.when, replace(place, address=f"{path}@if"))
        match outcome:
            case Pending():
                return
            case Failure():
                fail(work, path, step, outcome)
                return
            case Known(value=value):
                if not is_truthy(value):
                    reason = f"its condition is false: {step.when.source}"
                    work.emit(c.StepSkipped(path=path, kind=type_name(step), reason=reason))
                    return
    _begin_action(work, path, step, place)


def begin_again(work: Work, scope: Scope, step: Step) -> None:
    """Give a step, whose turn has come before, another look for a runtime. Its condition has been answered."""
    path = step_path(scope, step.id)
    _begin_action(work, path, step, Place(scope=scope, address=path, step=step))


def _begin_action(work: Work, path: StepPath, step: Step, place: Place) -> None:
    match step.action:
        case Task() as task:
            _begin_task(work, path, step, task, place)
        case Transform(value=template):
            outcome = evaluate(work, template, place)
            if isinstance(outcome, Known):
                work.emit(c.StepSucceeded(path=path, kind="transform", result=work.payload(outcome.value)))
            elif isinstance(outcome, Failure):
                fail(work, path, step, outcome)
        case Wait() as wait:
            _begin_wait(work, path, step, wait, place)
        case SubWorkflow() as sub:
            _begin_child(work, path, step, sub, place)
        case Branch() | Parallel() | ForEach() | While() | Try():
            failure = controls.start(work, path, step, place)
            if failure is not None:
                fail(work, path, step, failure)
        case _:
            assert_never(step.action)


def fail(work: Work, path: StepPath, step: Step, failure: Failure, attempt: int = 0) -> None:
    """End a step as failed for good; with `on_error: continue` its failure becomes its result."""
    failure = replace(failure, step=failure.step or path, attempt=failure.attempt or attempt)
    work.emit(controls.failed(work, path, step, failure, attempt))


# --- tasks


def _begin_task(work: Work, path: StepPath, step: Step, task: Task, place: Place) -> None:
    parameters = evaluate(work, task.parameters, place)
    declared = environment(work, place)
    if isinstance(parameters, Pending) or isinstance(declared, Pending):
        return
    if isinstance(parameters, Failure) or isinstance(declared, Failure):
        failure = parameters if isinstance(parameters, Failure) else declared
        assert isinstance(failure, Failure)
        fail(work, path, step, failure)
        return
    if wrong := _wrong_inputs(parameters.value):
        fail(work, path, step, user_failure("; ".join(wrong), path, name="WrongFormat"))
        return
    key = _cache_key(work, path, step, [parameters.value, declared], place)
    if isinstance(key, Pending):
        return
    if isinstance(key, Failure):
        fail(work, path, step, key)
        return
    if key and (known := work.env.cached[key]) is not None:
        work.emit(c.StepSucceeded(path=path, kind=task.kind, result=known, cached=True))
        return
    before = work.step(path)  # it may have had its turn, and found no runtime or no place
    first = StepState(
        path=path,
        kind=task.kind,
        status=before.status if before else StepStatus.WAITING,
        waiting_for=before.waiting_for if before else "",
        full=before.full if before else (),
        queued_at=before.queued_at if before else None,
        parameters=work.payload(parameters.value),
        secrets=parameters.secrets,
        env=declared,
        cache_key=key,
    )
    dispatch(work, step, task, first)


def _wrong_inputs(parameters: JSON) -> list[str]:
    """Name each input whose data is of another format than the step says that it reads: no runtime need be asked."""
    inputs = parameters.get("inputs") if isinstance(parameters, dict) else None
    if not isinstance(inputs, dict):
        return []
    return [f"inputs.{name}: {wrong}" for name, each in inputs.items() if (wrong := _wrong_input(each))]


def _wrong_input(declared: JSON) -> str:
    match declared:
        case {"format": str(reads), "from": dict() as data} if _is_reference(data):
            return wrong_format(reads, data)
        case _:
            return ""


def _is_reference(data: Mapping[str, JSON]) -> bool:
    return isinstance(data.get("uri"), str) and isinstance(data.get("format"), str)


def dispatch(work: Work, step: Step, task: Task, state: StepState) -> None:
    """Place a step's next attempt and send it off; without a feasible runtime it waits, or fails with the reasons."""
    placement = work.env.place(view_of(work, step, task, state))
    if placement.chosen is None:
        _unplaced(work, step, task, state, placement)
        return
    claims = pools.NONE
    if step.concurrency is not None or work.env.limits.runtimes or work.env.limits.tags:
        found = _places(work, step, task, state, placement)
        if found is None:
            return
        claims = found
    work.emit(
        c.StepDispatched(
            path=state.path,
            kind=task.kind,
            attempt=state.attempt + 1,
            token=state.token + 1,
            runtime=placement.chosen,
            placement=placement,
            parameters=state.parameters,
            secrets=state.secrets,
            env=state.env,
            cache_key=state.cache_key,
            claims=claims,
            waited=None if state.queued_at is None else work.env.now - state.queued_at,
        )
    )
    work.actions.append(StartAttempt(state.path))


def _places(work: Work, step: Step, task: Task, state: StepState, placement: Placement) -> tuple[Claim, ...] | None:
    """Find the places that the attempt needs. None when it has to wait for them, has to ask, or cannot say which."""
    path = state.path
    place = Place(scope=scope_of(path), address=f"{path}@concurrency", step=step)
    claims = pools.of_attempt(work, path, step, place, placement.chosen or "")
    if isinstance(claims, Failure):
        fail(work, path, step, claims)
        return None
    full = claims if isinstance(claims, Pending) else pools.full_of(work, path, claims)
    if isinstance(claims, Pending) or isinstance(full, Pending):
        return None
    if full and full != state.full:  # one entry for a stay in a queue, however often it is looked at
        sentence = pools.sentence(full)
        work.emit(c.StepQueued(path=path, kind=task.kind, placement=placement, full=full, waiting_for=sentence))
    return None if full else claims


def _unplaced(work: Work, step: Step, task: Task, state: StepState, placement: Placement) -> None:
    sentence = _refusals(placement)
    if waits(placement):
        due_at = work.env.now + work.env.limits.unplaced_interval
        waiting_for = f"a runtime ({sentence})"
        if state.status is StepStatus.PENDING and state.waiting_for == waiting_for:
            work.actions.append(LookAgain(state.path, due_at))  # as it was: that is no news for the history
            return
        work.emit(
            c.StepUnplaced(path=state.path, kind=task.kind, placement=placement, waiting_for=waiting_for, due_at=due_at)
        )
        return
    failure = Failure(
        message=f"no runtime can run this step: {sentence}",
        error_class=ErrorClass.INPUT,
        name="NoFeasibleRuntime",
        hint="`flexcore workflow plan` shows each runtime's reasons; `flexcore runtime list` what is configured",
    )
    fail(work, state.path, step, failure)


def _refusals(placement: Placement) -> str:
    reasons = (f"{each.runtime}: {each.infeasible[0].reason}" for each in placement.in_the_way)
    return "; ".join(reasons) or "there is no runtime"


def _cache_key(work: Work, path: StepPath, step: Step, own: JSON, place: Place) -> str | Failure | Pending:
    if step.cache is None:
        return ""
    if step.cache.key is not None:
        outcome = evaluate(work, step.cache.key, replace(place, address=f"{path}@cache"))
        if not isinstance(outcome, Known):
            return outcome
        own = outcome.value
    header = work.draft.header
    # The version covers the step's definition and the content of its files.
    key = digest(canonical([header.workspace, header.workflow, header.version, step.id, own]))
    if key not in work.env.cached:
        work.cache_keys.append(key)
        return PENDING
    return key


# --- waits and sub-workflows


def _begin_wait(work: Work, path: StepPath, step: Step, wait: Wait, place: Place) -> None:
    template = wait.duration if wait.duration is not None else wait.until
    assert template is not None, "the language gives a wait exactly one of both"
    outcome = evaluate(work, template, place)
    if isinstance(outcome, Pending):
        return
    due = outcome if isinstance(outcome, Failure) else _due(work, wait, outcome.value, path)
    if isinstance(due, Failure):
        fail(work, path, step, due)
        return
    sentence = f"time: until {due.isoformat(timespec='seconds')}"
    work.emit(c.StepSuspended(path=path, kind="wait", due_at=due, waiting_for=sentence))


def _due(work: Work, wait: Wait, value: JSON, path: str) -> datetime | Failure:
    try:
        if wait.duration is not None:
            if isinstance(value, bool) or not isinstance(value, str | int | float):
                raise ValueError(f"{value!r} is not a duration")
            pause = timedelta(0) if value == 0 else parse_duration(value)
            return work.env.now + pause
        moment = datetime.fromisoformat(str(value))
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError) as error:
        return user_failure(f"cannot wait for {value!r}: {error}", path, hint="such as 10m, or 2026-12-01T00:00:00Z")


def _begin_child(work: Work, path: StepPath, step: Step, sub: SubWorkflow, place: Place) -> None:
    outcome = evaluate(work, sub.input, place)
    if isinstance(outcome, Pending):
        return
    if isinstance(outcome, Failure):
        fail(work, path, step, outcome)
        return
    limit = work.env.limits.depth
    if work.draft.header.depth + 1 > limit:
        fail(work, path, step, user_failure(f"sub-workflows nest deeper than {limit} levels", path))
        return
    child, own = ExecutionId(work.fresh_id("exe", path)), work.payload(outcome.value)
    expires_at = controls.expiry(work, step)
    work.emit(c.StepStarted(path=path, kind="workflow", child=child, parameters=own, expires_at=expires_at))
    work.actions.append(StartChild(path=path, child=child, workflow=sub.name, input=own))
