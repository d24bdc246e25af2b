"""What a new execution takes over from a finished one: results above a step are used again as they are."""

from collections.abc import Iterator

from flexcore.engine.flow import stops_others
from flexcore.model.changes import StepReused
from flexcore.model.errors import InvalidRequest, NotFound
from flexcore.model.execution import ExecutionState, StepState
from flexcore.model.graph import Graph
from flexcore.model.ids import StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.workflow import StepId

_GOOD = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.FAILED})


def reused_steps(graph: Graph, state: ExecutionState, from_step: str | None) -> tuple[StepReused, ...]:
    """Name the finished steps to take over: those that neither are the given step nor come after it.

    `from_step` may be a path inside a control step, which then runs again as a whole. Without it, everything that
    ended well is taken over. Raises NotFound, InvalidRequest.
    """
    again = set() if from_step is None else _after(graph, _root_step(graph, from_step))
    kept = {step.id for step in graph.root.steps if step.id not in again and _ended_well(state, step.id)}
    # A step whose needs run again has to run again too.
    for step in graph.root.steps:
        if step.id in kept and not set(graph.root.needs[step.id]) <= kept:
            kept.discard(step.id)
    return tuple(_reused(kept, state))


def _root_step(graph: Graph, path: str) -> StepId:
    id = StepId(path.split(".")[0].split("[")[0])
    if id not in graph.root.dependents:
        present = ", ".join(step.id for step in graph.root.steps)
        raise NotFound(f"the workflow has no step '{path}' to start from", hint=f"its steps are: {present}")
    return id


def _after(graph: Graph, step: StepId) -> set[StepId]:
    found, todo = {step}, [step]
    while todo:
        for dependent in graph.root.dependents[todo.pop()]:
            if dependent.id not in found:
                found.add(dependent.id)
                todo.append(dependent.id)
    return found


def _ended_well(state: ExecutionState, step: StepId) -> bool:
    known = state.steps.get(StepPath(step))
    return known is not None and known.status in _GOOD and not stops_others(known)


def _reused(kept: set[StepId], state: ExecutionState) -> Iterator[StepReused]:
    for path, step in state.steps.items():
        if path.split(".")[0].split("[")[0] in kept and step.status in _GOOD:
            yield _as_reused(step)


def _as_reused(step: StepState) -> StepReused:
    return StepReused(
        path=step.path,
        kind=step.kind,
        status=step.status,
        result=step.result,
        failure=step.failure,
        tolerated=step.tolerated,
    )


def must_have_ended(state: ExecutionState) -> None:
    """Refuse to fork what still runs. Raises InvalidRequest."""
    if not state.header.status.is_terminal:
        raise InvalidRequest(
            f"execution {state.header.id} is {state.header.status.value}; only a finished one can be retried",
            hint="`flexcore workflow cancel` ends it, `flexcore workflow resume` goes on with it",
        )
