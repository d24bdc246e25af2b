"""decide(state, event, env): what becomes true when something happens, and what to do once that is durable.

Pure: no I/O, no clock, no randomness. Time, entropy, placement, and the answers of JavaScript come in `env`; what is
missing goes out as `Needs`. The same arguments always give the same answer.
"""

from functools import partial
from typing import assert_never

from flexcore.engine import ending, flow, outcomes, pools
from flexcore.engine.names import Pending
from flexcore.engine.work import (
    AttemptEnded,
    AttemptFinished,
    AttemptSubmitted,
    AttemptUnavailable,
    Cancel,
    ChildAccepted,
    ChildFinished,
    Decision,
    Env,
    Event,
    Needs,
    PlaceFree,
    Start,
    TimerFired,
    Work,
)
from flexcore.model import changes as c
from flexcore.model.execution import ExecutionState, StepState
from flexcore.model.failure import Failure
from flexcore.model.graph import Graph
from flexcore.model.ids import ROOT
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.pools import WHOLE


def decide(graph: Graph, state: ExecutionState, event: Event, env: Env) -> Decision | Needs:
    """Give what follows from an event. An event that comes late, or twice, gives a decision without changes."""
    work = Work(graph, state, env)
    if not state.header.status.is_terminal:
        _take(work, event)
        flow.run(work)
    return work.conclude()


def resume(needs: Needs) -> Decision | Needs:
    """Go on where something had to be known, now that `env` has it: what was decided before is not decided again.

    So a loop of a thousand expressions costs a thousand answers, and not half a million decisions.
    """
    work = needs.work
    for action in work.unblock():
        work.attempt(action)
    flow.run(work)
    return work.conclude()


def _take(work: Work, event: Event) -> None:
    match event:
        case Start():
            _start(work, event)
        case AttemptSubmitted():
            outcomes.submitted(work, event)
        case AttemptFinished():
            outcomes.finished(work, event)
        case AttemptUnavailable():
            outcomes.unavailable(work, event)
        case AttemptEnded():
            outcomes.ended(work, event)
        case TimerFired():
            _timer(work, event)
        case PlaceFree(path=None):
            work.attempt(partial(_begin, work))
        case PlaceFree():
            outcomes.place_free(work, event)
        case Cancel(reason=reason):
            ending.cancel_execution(work, reason)
        case ChildAccepted():
            outcomes.child_accepted(work, event)
        case ChildFinished():
            outcomes.child_finished(work, event)
        case _:
            assert_never(event)


def _start(work: Work, event: Start) -> None:
    if work.draft.seq:
        return
    work.emit(event.accepted)
    if work.graph.workflow.concurrency is None:
        work.emit(c.ExecutionStarted())
    for reused in event.reused:
        work.emit(reused)
    if work.graph.workflow.concurrency is None:
        work.opened.append(ROOT)
    else:
        work.attempt(partial(_begin, work))


def _begin(work: Work) -> None:
    """Begin an execution whose workflow has limited places, or let it wait for one."""
    header = work.draft.header
    if header.status is not ExecutionStatus.PENDING or header.cancel_requested is not None:
        return
    claims = pools.of_execution(work)
    if isinstance(claims, Pending):
        return
    if isinstance(claims, Failure):
        work.emit(c.ExecutionFailed(failure=claims))
        return
    full = pools.full_of(work, WHOLE, claims)
    if isinstance(full, Pending):
        return
    if full:
        if full != header.full:
            work.emit(c.ExecutionQueued(full=full, waiting_for=pools.sentence(full)))
        return
    work.emit(c.ExecutionStarted(claims=claims))
    work.opened.append(ROOT)
    # What was taken over before it could begin sets off what comes after it.
    work.ended.extend(path for path, step in work.draft.steps.items() if step.status.is_terminal)


def _timer(work: Work, event: TimerFired) -> None:
    now, header = work.env.now, work.draft.header
    if event.path is None:
        if header.expires_at is not None and header.expires_at <= now and header.cancel_requested is None:
            limit = (header.expires_at - (header.created_at or now)).total_seconds()
            ending.cancel_execution(work, f"not done within its time limit of {round(limit, 2):g} s", timed_out=True)
        return
    state = work.step(event.path)
    if state is None or state.status.is_terminal:
        return
    if _is_over(state, work):
        ending.expire_step(work, state)
    elif state.due_at is not None and state.due_at <= now:
        outcomes.due(work, state)


def _is_over(state: StepState, work: Work) -> bool:
    running = state.status is StepStatus.RUNNING and state.ending is None
    return running and state.expires_at is not None and state.expires_at <= work.env.now
