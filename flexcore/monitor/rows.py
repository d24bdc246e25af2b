"""Which lines an execution's document has, in the workflow's own order: each step that was reached or can be."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import TypeAlias

from flexcore.model.execution import ExecutionState
from flexcore.model.graph import EACH, Graph, child_scope, lists_of, scope_of, split_scope
from flexcore.model.ids import ON_FAILURE, ROOT, Scope, StepPath, indexed, step_path
from flexcore.model.workflow import Step, type_name
from flexcore.monitor.document import Row
from flexcore.monitor.waiting import Pools, waiting_for

Inside: TypeAlias = Mapping[StepPath, set[str]]  # by control step: the keys of its lists that something is known of


def rows(graph: Graph, state: ExecutionState, pools: Pools = MappingProxyType({})) -> Iterator[Row]:
    """Walk the steps in the order written; those inside a control step follow it, iteration by iteration.

    `pools` has the limited pools in which steps wait for a place.
    """
    inside = _inside(state)
    yield from _scope(graph, state, pools, ROOT, inside)
    if ON_FAILURE in state.scopes:
        yield from _scope(graph, state, pools, ON_FAILURE, inside)


def _scope(graph: Graph, state: ExecutionState, pools: Pools, scope: Scope, inside: Inside) -> Iterator[Row]:
    block = graph.block(scope)
    # A list that was taken over with its control step has no scope: nothing more will happen in it.
    is_open = not state.header.status.is_terminal and (scope == ROOT or scope in state.scopes)
    for step in block.steps:
        path = step_path(scope, step.id)
        known = state.steps.get(path)
        if known is None and not is_open:
            continue
        sentence = None if state.header.status.is_terminal else waiting_for(graph, state, path, pools)
        yield Row(path=path, id=step.id, kind=type_name(step), state=known, waiting_for=sentence)
        for inner in _inner(step, path, inside.get(path, set())):
            yield from _scope(graph, state, pools, inner, inside)


def _inner(step: Step, path: StepPath, keys: set[str]) -> Iterator[Scope]:
    for key, _ in lists_of(step):
        if key == EACH:
            yield from (indexed(path, index) for index in sorted(map(int, keys)))
        elif key in keys:
            yield child_scope(path, key)


def _inside(state: ExecutionState) -> Inside:
    """Find every list that has a scope, or a step that was taken over without one."""
    found: defaultdict[StepPath, set[str]] = defaultdict(set)
    for scope in {*state.scopes, *map(scope_of, state.steps)} - {ROOT, ON_FAILURE}:
        owner, key = split_scope(scope)
        found[owner].add(key)
    return found
