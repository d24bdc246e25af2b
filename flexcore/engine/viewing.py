"""What placement is told of a step: sizes and names, measured on what is known when its turn comes. Pure, no values."""

from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from flexcore.analyzer.view import NO_FACTS, Measured, Source, StepView, Stored
from flexcore.engine.work import Work
from flexcore.model.execution import StepState
from flexcore.model.graph import reads_of, scope_of
from flexcore.model.ids import signature_of
from flexcore.model.template import Literal
from flexcore.model.values import JSON
from flexcore.model.workflow import Step, StepId, Task

_MOST_NODES = 1000  # of parameters that are looked through for references
_CONTAINERS = frozenset({dict, list, tuple})
_FILE, _S3, _OURS = "file:///", "s3://", "artifact:"


def view_of(work: Work, step: Step, task: Task, state: StepState) -> StepView:
    """Describe a step that is about to be placed."""
    header, home = work.draft.header, work.env.data_store
    parameters = state.parameters.value
    inputs = references(parameters, home)
    if state.parameters.ref is not None:
        inputs = (Stored(home, state.parameters.ref.bytes),)
    requirements = step.requirements
    return StepView(
        kind=task.kind,
        requirements=requirements,
        pin=step.runtime,
        preferred=header.pinned_runtime,
        signature=signature_of(header.workflow, state.path),
        data=_measured(work, task, state, inputs),
        inputs=inputs,
        data_stores=stores_of(parameters, home),
        deadline=None if requirements.deadline is None else _left(work, state, requirements.deadline),
        facts=work.env.facts.get(step.id, NO_FACTS),
    )


def stores_of(parameters: JSON, home: str) -> frozenset[str]:
    """Name the stores that a step with these parameters has to reach: where its inputs are, where outputs go."""
    if not isinstance(parameters, dict) or not (parameters.get("inputs") or parameters.get("outputs")):
        return frozenset()
    found = {each.store for each in references(parameters.get("inputs"), home)}
    return frozenset(found | ({home} if parameters.get("outputs") else set()))


def _measured(work: Work, task: Task, state: StepState, inputs: Sequence[Stored]) -> Measured:
    """Add up the data that the parameters refer to; without any, what the steps put out whose results they read."""
    if inputs:
        return Measured(sum(each.bytes for each in inputs), Source.MEASURED)
    if isinstance(task.parameters, Literal):
        return Measured()
    known = [size for each in _read_steps(work, task, state) if (size := _put_out(each)) is not None]
    return Measured(sum(known), Source.MEASURED) if known else Measured()


def _read_steps(work: Work, task: Task, state: StepState) -> Iterator[StepState]:
    names = {read[1] for read in reads_of(task.parameters) if read[0] == "results" and len(read) > 1}
    for name in sorted(names):
        path = work.graph.visible_path(StepId(name), scope_of(state.path)) if name in work.graph.homes else None
        found = work.step(path) if path else None
        if found is not None:
            yield found


def _put_out(step: StepState) -> int | None:
    """Say how much data a step has made, as far as its runtime or its result tells."""
    if step.usage.bytes_out is not None:
        return step.usage.bytes_out
    return None if step.result.ref is None else step.result.ref.bytes


def references(value: JSON, home: str) -> tuple[Stored, ...]:
    """Find the typed references in a value: `{uri, bytes, …}`, each once."""
    # Every step's parameters are looked through: by exact type, which costs a fifth of asking for a Mapping.
    todo: list[Any] = [value] if type(value) in _CONTAINERS else []
    found: dict[str, Stored] = {}
    looked = 0
    while todo and looked < _MOST_NODES:
        each = todo.pop()
        looked += 1
        if type(each) is dict:
            if "uri" in each and (stored := _stored(each, home)) is not None:
                found.setdefault(each["uri"], stored)
                continue
            each = each.values()
        todo += [inner for inner in each if type(inner) in _CONTAINERS]
    return tuple(found.values())


def _stored(value: dict[str, Any], home: str) -> Stored | None:
    """Read a typed reference; None for what is none, or leads to where nobody can look."""
    uri = value.get("uri")
    if type(uri) is not str:
        return None
    size, store = value.get("bytes"), _store(uri, home)
    return Stored(store, size) if store and type(size) is int else None


def _store(uri: str, home: str) -> str:
    if uri.startswith(_OURS):
        return home
    return "s3" if uri.startswith(_S3) else "file" if uri.startswith(_FILE) else ""


def _left(work: Work, state: StepState, deadline: timedelta) -> timedelta:
    """Say how much is left of a deadline, which counts from when the step's turn came."""
    since = timedelta() if state.created_at is None else work.env.now - state.created_at
    return max(deadline - since, timedelta())
