"""Which lines an execution's document has, in the workflow's own order: each step that was reached or can be."""

from collections.abc import Iterator

from flexcore.model.execution import ExecutionState
from flexcore.model.graph import EACH, Graph, child_scope, lists_of
from flexcore.model.ids import ON_FAILURE, ROOT, Scope, indexed, step_path
from flexcore.model.workflow import Step, type_name
from flexcore.monitor.document import Row


def rows(graph: Graph, state: ExecutionState) -> Iterator[Row]:
    """Walk the steps in the order written; those inside a control step follow it, iteration by iteration."""
    yield from _scope(graph, state, ROOT)
    if ON_FAILURE in state.scopes:
        yield from _scope(graph, state, ON_FAILURE)


def _scope(graph: Graph, state: ExecutionState, scope: Scope) -> Iterator[Row]:
    block = graph.block(scope)
    for step in block.steps:
        path = step_path(scope, step.id)
        known = state.steps.get(path)
        if known is None and state.header.status.is_terminal:
            continue
        needs = ", ".join(f"'{each}'" for each in block.needs[step.id])
        yield Row(
            path=path, id=step.id, kind=type_name(step), state=known, waiting_for=f"step {needs}" if needs else ""
        )
        for inner in _inner(step, path, state):
            yield from _scope(graph, state, inner)


def _inner(step: Step, path: str, state: ExecutionState) -> Iterator[Scope]:
    for key, _ in lists_of(step):
        if key != EACH:
            if (scope := child_scope(step_path(ROOT, path), key)) in state.scopes:
                yield scope
            continue
        index = 0
        while (scope := indexed(step_path(ROOT, path), index)) in state.scopes:
            yield scope
            index += 1
