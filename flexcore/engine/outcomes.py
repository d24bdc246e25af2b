"""What the end of an attempt means: a result, another try, or a failure for good.

Budgets: `retry.attempts` is the user's, for all classes but evicted, lost and quota, which have budgets
of their own; so infrastructure never eats the user's tries.
"""

from dataclasses import replace
from datetime import timedelta
from functools import partial

from flexcore.engine import begin, controls
from flexcore.engine.work import (
    AttemptEnded,
    AttemptFinished,
    AttemptSubmitted,
    AttemptUnavailable,
    ChildAccepted,
    ChildFinished,
    EndAttempt,
    ForgetAttempt,
    PlaceFree,
    StartAttempt,
    Work,
)
from flexcore.model import changes as c
from flexcore.model.execution import Phase, StepState
from flexcore.model.failure import INFRASTRUCTURE, ErrorClass, Failure
from flexcore.model.graph import scope_of
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.values import Payload
from flexcore.model.workflow import RetryPolicy, Task

_NEVER_AGAIN = frozenset({ErrorClass.INPUT, ErrorClass.CANCELLED})
_FIRST_PAUSE = timedelta(milliseconds=200)
_LONGEST_PAUSE = timedelta(minutes=1)
_LONGEST_ASKED = timedelta(hours=1)
_HOUR = timedelta(hours=1)

_Reported = AttemptSubmitted | AttemptFinished | AttemptUnavailable | AttemptEnded


def current(work: Work, event: _Reported) -> StepState | None:
    """Give the step that a report is about; None when the report is late. Late is not failed: it changes nothing."""
    state = work.step(event.path)
    if state is None or not state.in_flight or (state.attempt, state.token) != (event.attempt, event.token):
        return None
    return state


def submitted(work: Work, event: AttemptSubmitted) -> None:
    """Remember where the work is, and that it was found again: its time limit goes on from where it was."""
    state = current(work, event)
    if state is None:
        return
    begins = event.running and state.expires_at is None
    limit = controls.expiry(work, work.graph.step(event.path)) if begins else None
    if state.handle == event.handle and limit is None and not event.adopted:
        return
    work.emit(
        c.StepSubmitted(
            path=event.path,
            attempt=event.attempt,
            handle=event.handle,
            adopted=event.adopted,
            expires_at=limit,
        )
    )


def finished(work: Work, event: AttemptFinished) -> None:
    """Settle an attempt."""
    state = current(work, event)
    if state is None:
        return
    work.actions.append(ForgetAttempt(event.path))
    event = _accounted(work, state, event)
    if event.failure is not None:
        _failed(work, state, event)
        return
    work.emit(
        c.StepSucceeded(
            path=event.path,
            kind=state.kind,
            attempt=event.attempt,
            result=event.result,
            usage=event.usage,
            phases=event.phases,
            artifacts=event.artifacts,
        )
    )


def _accounted(work: Work, state: StepState, event: AttemptFinished) -> AttemptFinished:
    """Add what only we know of: the time in our own queues, and what the time on the runtime costs."""
    phases, usage = event.phases, event.usage
    price = work.env.price(state.runtime or "")
    if price is not None:
        busy = sum((spent for phase, spent in phases.items() if phase is not Phase.QUEUE), timedelta())
        usage = replace(usage, cost=price * (busy / _HOUR))
    if state.waited:
        phases = {**phases, Phase.QUEUE: phases.get(Phase.QUEUE, timedelta()) + state.waited}
    return event if phases is event.phases and usage is event.usage else replace(event, phases=phases, usage=usage)


def ended(work: Work, event: AttemptEnded) -> None:
    """Settle an attempt that had to end. Unconfirmed, it is left to the sweep of orphans."""
    state = current(work, event)
    if state is None or state.ending is None:
        return
    work.actions.append(ForgetAttempt(event.path))
    hint = "" if event.confirmed else "its runtime did not confirm; what may be left there is swept later"
    failure = Failure(message="ended", error_class=ErrorClass.CANCELLED, hint=hint)
    _failed(work, state, AttemptFinished(path=event.path, attempt=event.attempt, token=event.token, failure=failure))


def _failed(work: Work, state: StepState, event: AttemptFinished) -> None:
    step = work.graph.step(event.path)
    failure = event.failure
    assert failure is not None
    if state.ending is ErrorClass.CANCELLED:
        reason = " ".join(filter(None, ("ended on request", failure.hint)))
        work.emit(c.StepCancelled(path=event.path, kind=state.kind, reason=reason))
        return
    if state.ending is ErrorClass.TIMEOUT:
        failure = controls.timed_out(step, event.path, event.attempt)
    failure = replace(failure, step=event.path, attempt=event.attempt)
    budget = _budget(work, state, step.retry, failure)
    if budget is None:
        change = controls.failed(work, event.path, step, failure, event.attempt)
        work.emit(replace(change, usage=event.usage, phases=event.phases))
        return
    pause = _pause(work, state, step.retry, failure, budget)
    work.emit(
        c.StepRetryScheduled(
            path=event.path, attempt=event.attempt, failure=failure, budget=budget, due_at=work.env.now + pause
        )
    )


def _budget(work: Work, state: StepState, policy: RetryPolicy, failure: Failure) -> str | None:
    if failure.error_class in INFRASTRUCTURE:
        name = failure.error_class.value
        return name if state.spent.get(name, 0) < work.env.limits.infrastructure_tries else None
    retried = failure.error_class in policy.on if policy.on else failure.error_class not in _NEVER_AGAIN
    return "user" if retried and state.spent.get("user", 0) + 1 < policy.attempts else None


def _pause(work: Work, state: StepState, policy: RetryPolicy, failure: Failure, budget: str) -> timedelta:
    tries = state.spent.get(budget, 0)
    if budget == "user":
        pause = backoff(policy.delay, policy.factor, policy.max_delay, tries)
        pause *= 1 + policy.jitter * (2 * work.chance(state.path) - 1)
    else:
        pause = backoff(_FIRST_PAUSE, 4, _LONGEST_PAUSE, tries)
    asked = failure.retry_after if failure.retry_after and failure.retry_after > 0 else 0
    longest = max(policy.max_delay, _LONGEST_ASKED).total_seconds()  # whatever a server asks for
    return max(pause, timedelta(seconds=min(asked, longest)))


def backoff(first: timedelta, factor: float, longest: timedelta, tries: int) -> timedelta:
    """Give the pause after `tries` earlier pauses: first · factor^tries, at most `longest`."""
    seconds = first.total_seconds()
    for _ in range(tries):
        if seconds >= longest.total_seconds():
            break
        seconds *= factor
    return min(timedelta(seconds=min(seconds, 10**9)), longest)


def unavailable(work: Work, event: AttemptUnavailable) -> None:
    """Call `execute` again later: the outcome is unknown, which is never a failed attempt."""
    state = current(work, event)
    if state is None or state.ending is not None:
        return
    pause = backoff(_FIRST_PAUSE, 2, _LONGEST_PAUSE, state.spent.get("postponed", 0))
    sentence = f"runtime '{state.runtime}', which cannot be reached: {event.reason}"
    work.emit(
        c.StepPostponed(path=event.path, attempt=event.attempt, due_at=work.env.now + pause, waiting_for=sentence)
    )


def due(work: Work, state: StepState) -> None:
    """A step's time has come: the end of a wait, the next attempt, another look for a runtime or at one."""
    step = work.graph.step(state.path)
    if state.status is StepStatus.SUSPENDED:
        work.emit(c.StepSucceeded(path=state.path, kind=state.kind))
    elif state.in_flight:
        work.actions.append(EndAttempt(state.path) if state.ending else StartAttempt(state.path))
    elif state.attempt == 0:
        work.attempt(partial(begin.begin_again, work, scope_of(state.path), step))
    elif isinstance(step.action, Task):
        work.attempt(partial(begin.dispatch, work, step, step.action, state))


def place_free(work: Work, event: PlaceFree) -> None:
    """Let a step that waits in a queue look for its places."""
    state = work.step(event.path) if event.path is not None else None
    if state is not None and state.full and not state.status.is_terminal:
        due(work, state)


# --- sub-workflows


def child_accepted(work: Work, event: ChildAccepted) -> None:
    """Go on at once when nobody waits for the child."""
    state = work.step(event.path)
    action = work.graph.step(event.path).action
    if state is None or state.status.is_terminal or getattr(action, "wait", True):
        return
    work.emit(c.StepSucceeded(path=event.path, kind=state.kind, result=Payload({"id": event.child})))


def child_finished(work: Work, event: ChildFinished) -> None:
    """Take over what a child came to."""
    state = work.step(event.path)
    if state is None or state.status.is_terminal or state.child != event.child or not event.status.is_terminal:
        return
    step = work.graph.step(event.path)
    if event.status is ExecutionStatus.SUCCEEDED:
        work.emit(c.StepSucceeded(path=event.path, kind=state.kind, result=event.output))
    elif state.ending is ErrorClass.CANCELLED:
        work.emit(c.StepCancelled(path=event.path, kind=state.kind, reason="ended on request"))
    elif state.ending is ErrorClass.TIMEOUT:
        begin.fail(work, event.path, step, controls.timed_out(step, event.path))
    else:
        cause = event.failure or Failure(message=f"the execution ended {event.status.value}")
        hint = cause.hint or f"execution {event.child} has the details"
        failure = replace(cause, step=event.path, hint=hint, cause=event.failure)
        begin.fail(work, event.path, step, failure)
