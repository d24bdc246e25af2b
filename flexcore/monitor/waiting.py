"""What an unfinished step or execution waits for, in one sentence that is true of the state it is said of.

Pure: the graph, the state, and who is in the limited pools. Each sentence goes on where `STEP waits for …` leaves off.
"""

from collections.abc import Iterator, Mapping, Sequence

from flexcore.model.execution import NEXT_ATTEMPT, ExecutionState, StepState
from flexcore.model.graph import EACH, Graph, child_scope, lists_of, scope_of
from flexcore.model.ids import ExecutionId, Scope, StepPath, indexed, step_path
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.pools import WHOLE, Claim, Party, PoolView, described
from flexcore.monitor.document import time

_NAMED = 3  # of many: the others are counted

Pools = Mapping[str, PoolView]


def waiting_for(graph: Graph, state: ExecutionState, path: StepPath, pools: Pools) -> str | None:
    """Say what a step waits for; None when it has ended. Its list must have begun, or be the workflow's own."""
    step = state.steps.get(path)
    if step is None:
        return _for_its_turn(graph, state, path, pools)
    if step.status.is_terminal:
        return None
    if step.ending is not None:
        return _for_its_end(graph, state, step)
    match step.status:
        case StepStatus.SUSPENDED:
            return step.waiting_for
        case StepStatus.PENDING:
            return _pending(state, step, pools)
        case _:
            return _running(graph, state, step)


def execution_waiting_for(state: ExecutionState, pools: Pools) -> str | None:
    """Say what an execution that has not begun waits for; None for all others: their steps say it."""
    header = state.header
    if header.status is not ExecutionStatus.PENDING:
        return None
    return _place(header.full, Party(header.id, WHOLE), pools) if header.full else "its first step to be decided"


def pools_of(state: ExecutionState) -> set[str]:
    """Name the pools that the sentences about an execution speak of."""
    steps = (claim for step in state.steps.values() for claim in step.full)
    return {claim.pool for claim in (*state.header.full, *steps)}


def _for_its_turn(graph: Graph, state: ExecutionState, path: StepPath, pools: Pools) -> str:
    scope = scope_of(path)
    needed = (step_path(scope, each) for each in graph.block(scope).needs[graph.step(path).id])
    unfinished = [each for each in needed if not _has_ended(state, each)]
    if unfinished:
        return _steps(unfinished)
    why = execution_waiting_for(state, pools)
    return f"the execution to begin, which waits for {why}" if why else "the execution to begin"


def _has_ended(state: ExecutionState, path: StepPath) -> bool:
    known = state.steps.get(path)
    return known is not None and known.status.is_terminal


def _for_its_end(graph: Graph, state: ExecutionState, step: StepState) -> str:
    why = f"over its time limit or to be cancelled ({step.ending})"
    if step.in_flight:
        return f"its end to be confirmed by runtime '{step.runtime}': it is {why}"
    if step.child is not None:
        return f"execution {step.child} to end: it is {why}"
    return f"{_inside(graph, state, step)}: it is {why}"


def _pending(state: ExecutionState, step: StepState, pools: Pools) -> str:
    if step.full:
        return _place(step.full, Party(state.header.id, step.path), pools)
    if step.in_flight:
        return _on_runtime(step)
    if step.waiting_for == NEXT_ATTEMPT:
        return f"{NEXT_ATTEMPT}, at {time(step.due_at)}: attempt {step.attempt} failed: {_brief(step)}"
    return step.waiting_for


def _running(graph: Graph, state: ExecutionState, step: StepState) -> str:
    if step.in_flight:
        return _on_runtime(step)
    if step.child is not None:
        return f"execution {step.child} to end"
    return _inside(graph, state, step)


def _on_runtime(step: StepState) -> str:
    if step.due_at is not None and step.waiting_for:
        return f"{step.waiting_for}; it is asked again at {time(step.due_at)}"
    if step.status is StepStatus.PENDING:
        return f"runtime '{step.runtime}' to take attempt {step.attempt}"
    return f"attempt {step.attempt} on runtime '{step.runtime}', which has it since {time(step.started_at)}"


def _brief(step: StepState) -> str:
    message = step.failure.message if step.failure is not None else ""
    return message.strip().partition("\n")[0][:200]


def _inside(graph: Graph, state: ExecutionState, step: StepState) -> str:
    """Name the unfinished steps in the open lists of a control step; those whose turn has come are named first."""
    begun, waiting = list[StepPath](), list[StepPath]()
    for scope in _open_scopes(graph, state, step):
        for each in graph.block(scope).steps:
            path = step_path(scope, each.id)
            if not _has_ended(state, path):
                (begun if path in state.steps else waiting).append(path)
    return _steps(begun or waiting)


def _open_scopes(graph: Graph, state: ExecutionState, step: StepState) -> Iterator[Scope]:
    for key, _ in lists_of(graph.step(step.path)):
        if key == EACH:
            scopes = [indexed(step.path, index) for index in range(step.loop.started if step.loop else 0)]
        else:
            scopes = [child_scope(step.path, key)]
        yield from (each for each in scopes if each in state.scopes and not state.scopes[each].status.is_terminal)


def _steps(paths: Sequence[StepPath]) -> str:
    named = [f"'{path}'" for path in paths[:_NAMED]]
    more = len(paths) - len(named)
    return f"{'step' if len(paths) == 1 else 'steps'} {_joined(named, more)} to end"


def _place(full: Sequence[Claim], party: Party, pools: Pools) -> str:
    return " and ".join(_one_place(claim, party, pools.get(claim.pool)) for claim in full)


def _one_place(claim: Claim, party: Party, view: PoolView | None) -> str:
    place = f"a place in {described(claim.pool)}"
    if view is None:
        return f"{place} (limit {claim.limit})"
    facts = [f"{view.held} of {claim.limit} taken" + (f", by {_holders(view.holders)}" if view.holders else "")]
    if party in view.waiting:
        facts.append(f"number {view.waiting.index(party) + 1} in the queue")
    return f"{place} ({'; '.join(facts)})"


def _holders(holders: Sequence[ExecutionId]) -> str:
    return _joined(list(holders[:_NAMED]), len(holders) - _NAMED, "others")


def _joined(names: list[str], more: int, others: str = "") -> str:
    if more > 0:
        names = [*names, others or f"{more} more"]
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
