"""What a new execution takes over from a finished one: results above a step are used again as they are.

A result given by hand stands for a step that had failed: what comes after it goes on as if the step had succeeded.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flexcore.engine.flow import stops_others
from flexcore.model.changes import StepReused
from flexcore.model.errors import InvalidRequest, NotFound
from flexcore.model.execution import ExecutionState, Given, StepState
from flexcore.model.graph import Graph
from flexcore.model.ids import StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.values import Payload
from flexcore.model.workflow import StepId, type_name

_GOOD = frozenset({StepStatus.SUCCEEDED, StepStatus.SKIPPED, StepStatus.FAILED})


@dataclass(frozen=True, slots=True, kw_only=True)
class Fork:
    """What is wanted of a fork. Without `from_step`, everything that ended well is taken over.

    `from_step` may be a path inside a control step, which then runs again as a whole. `results` are given by hand, for
    steps of the outermost list.
    """

    from_step: str | None = None
    results: Mapping[str, Payload] = field(default_factory=dict)
    given: Given | None = None


def reused_steps(graph: Graph, state: ExecutionState, fork: Fork) -> tuple[StepReused, ...]:
    """Name the finished steps to take over: those that neither are the given step nor come after it.

    Raises NotFound, InvalidRequest.
    """
    again = set() if fork.from_step is None else _after(graph, _root_step(graph, fork.from_step))
    given = {_to_be_given(graph, state, path): result for path, result in fork.results.items()}
    kept = {step.id for step in graph.root.steps if step.id not in again and _ended_well(state, step.id)}
    # A step whose needs run again has to run again too.
    for step in graph.root.steps:
        if step.id in kept and not set(graph.root.needs[step.id]) <= kept | set(given):
            kept.discard(step.id)
    return (*_reused(kept - set(given), state), *_given(graph, given, fork.given))


def _root_step(graph: Graph, path: str) -> StepId:
    names = [StepId(part.partition("[")[0]) for part in path.split(".")]
    id = names[0]
    if id not in graph.root.dependents or names[-1] not in graph.steps:
        present = ", ".join(step.id for step in graph.root.steps)
        raise NotFound(f"the workflow has no step '{path}'", hint=f"its steps are: {present}")
    return id


def _to_be_given(graph: Graph, state: ExecutionState, path: str) -> StepId:
    id = _root_step(graph, path)
    if id != path:
        raise InvalidRequest(
            f"'{path}' is inside '{id}': a result can be given for a step of the outermost list only",
            hint=f"give the result of '{id}' as a whole, or retry from it",
        )
    if _ended_well(state, id):
        raise InvalidRequest(
            f"step '{path}' has not failed: its result stands and cannot be replaced",
            hint="a result can be given for a step that failed, was cancelled or did not run",
        )
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
        given=step.given,
        artifacts=step.artifacts,
    )


def _given(graph: Graph, results: Mapping[StepId, Payload], given: Given | None) -> Iterator[StepReused]:
    for step in graph.root.steps:
        if step.id in results:
            yield StepReused(
                path=StepPath(step.id),
                kind=type_name(step),
                status=StepStatus.SUCCEEDED,
                result=results[step.id],
                given=given,
            )


def must_have_ended(state: ExecutionState) -> None:
    """Refuse to fork what still runs. Raises InvalidRequest."""
    if not state.header.status.is_terminal:
        raise InvalidRequest(
            f"execution {state.header.id} is {state.header.status.value}; only a finished one can be retried",
            hint="`flexcore workflow cancel` ends it, `flexcore workflow resume` goes on with it",
        )
