"""What the names in an expression mean at a place: `results`, `iter`, `error`, `vars`, …

Only what an expression reads is collected, so that a large result costs nobody who does not look at it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from flexcore.engine.render import Rendered, Unanswered, query, render
from flexcore.engine.work import Work, failure_document, user_failure
from flexcore.model.execution import SecretText, StepState
from flexcore.model.failure import Failure
from flexcore.model.graph import Graph, reads_of, scope_of, split_scope
from flexcore.model.ids import ON_FAILURE, ROOT, Scope, StepPath, indexed, named, step_path
from flexcore.model.lifecycle import StepStatus
from flexcore.model.template import Literal, Template
from flexcore.model.values import JSON, Payload, canonical
from flexcore.model.workflow import ForEach, Parallel, Step, StepId, While


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """A template's value; secrets inside it are still names."""

    value: JSON
    secrets: tuple[SecretText, ...] = ()


_LONGEST_VARIABLE = 128 * 1024 - 1  # what Linux takes of one variable


class Pending:
    """Something must be known first; it has been asked for."""


PENDING = Pending()
Outcome: TypeAlias = Known | Failure | Pending


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where an expression stands: the scope, and the step it belongs to (None for the workflow's output).

    `address` names the expression's answers: a path and, where a step has several values to compute, which one.
    """

    scope: Scope
    address: str
    step: Step | None = None
    around: Scope | None = None  # where `iter` is looked for, if not in `scope`: a loop's condition is outside it


def evaluate(work: Work, template: Template, place: Place) -> Outcome:
    """Compute a template's value, or ask for what that needs."""
    if isinstance(template, Literal):
        return Known(value=template.value)
    names = names_for(work, reads_of(template), place)
    if names is None:
        return PENDING
    if isinstance(names, Failure):
        return names
    answers = work.env.answers.get(place.address, {})
    rendered = render(template, names, answers)
    match rendered:
        case Rendered():
            return Known(value=rendered.value, secrets=rendered.secrets)
        case Unanswered(expressions=expressions):
            work.queries.extend((place.address, query(each, names)) for each in expressions)
            return PENDING
        case Failure():
            return _of_step(rendered, place)


def _of_step(failure: Failure, place: Place) -> Failure:
    path = step_path(place.scope, place.step.id) if place.step else ""
    return user_failure(failure.message, path, name=failure.name or "ExpressionError", hint=failure.hint)


def names_for(work: Work, reads: tuple[tuple[str, ...], ...], place: Place) -> Mapping[str, JSON] | Failure | None:
    """Collect the values of what is read. None when some of it has to be loaded first."""
    missing = len(work.values)
    names: dict[str, JSON] = {}
    for read in reads:
        root = read[0]
        if root == "results":
            seen = names.setdefault("results", {})
            assert isinstance(seen, dict)
            seen.update(_results(work, read[1:], place.scope))
        elif root == "env":
            outcome = environment(work, place)
            if not isinstance(outcome, dict):
                return None if isinstance(outcome, Pending) else outcome
            names["env"] = outcome
        elif root not in names:
            names[root] = _root(work, root, place)
    return None if len(work.values) > missing else names


def environment(work: Work, place: Place) -> dict[str, str] | Failure | Pending:
    """Compute the declared environment of a step: the workflow's, overridden by the step's own."""
    workflow = work.graph.workflow
    declared = {**workflow.env, **(place.step.env if place.step else {})}
    values: dict[str, str] = {}
    for name, template in declared.items():
        # Environment entries may not read `env` themselves: the language refuses it, so this ends.
        inner = Place(scope=place.scope, address=f"{place.address}@env.{name}", step=place.step)
        outcome = evaluate(work, template, inner)
        if not isinstance(outcome, Known):
            return outcome
        values[name] = text = outcome.value if isinstance(outcome.value, str) else _text(outcome.value)
        if len(text) > _LONGEST_VARIABLE:
            message = f"environment variable {name} would have {len(text):,} characters"
            return user_failure(message, inner.address, hint=f"the limit is {_LONGEST_VARIABLE:,}; pass it in `args`")
    return values


def _text(value: JSON) -> str:
    return "" if value is None else canonical(value).decode()


def _root(work: Work, root: str, place: Place) -> JSON:
    header = work.draft.header
    match root:
        case "input" | "flow_input":
            return load(work, header.input)
        case "previous_result":
            return _previous_result(work, place)
        case "error":
            failure = _error(work, place)
            return failure_document(failure) if failure else None
        case "iter":
            return _iteration(work, place.scope if place.around is None else place.around)
        case "vars":
            own = place.step.vars if place.step else {}
            return {**work.graph.workflow.vars, **own}
        case "execution":
            started = header.created_at or work.env.now
            return {"id": header.id, "workflow": header.workflow, "started_at": started.isoformat()}
        case _:
            return None


def load(work: Work, payload: Payload) -> JSON:
    """Give a payload's value; ask for it when it is out of line and not here yet."""
    if payload.ref is None:
        return payload.value
    if payload.ref.uri in work.env.values:
        return work.env.values[payload.ref.uri]
    work.values.append(payload.ref)
    return None


def _results(work: Work, step: tuple[str, ...], scope: Scope) -> dict[str, JSON]:
    wanted = [StepId(step[0])] if step else list(work.graph.steps)
    found: dict[str, JSON] = {}
    for id in wanted:
        path = work.graph.visible_path(id, scope) if id in work.graph.homes else None
        state = work.step(path) if path else None
        if state is not None and state.status.is_terminal:
            found[id] = load(work, state.result)
    return found


def _previous_result(work: Work, place: Place) -> JSON:
    """Give what the step before made; outside a list (an output, a loop's condition), what its last step did."""
    scope, step = place.scope, None if place.around is not None else place.step
    while step is not None:
        steps = work.graph.block(scope).steps
        position = steps.index(step)
        if position:
            state = work.step(step_path(scope, steps[position - 1].id))
            return load(work, state.result) if state else None
        if scope in (ROOT, ON_FAILURE):
            return None
        owner = split_scope(scope)[0]
        scope, step = scope_of(owner), work.graph.step(owner)
    state = work.step(step_path(scope, work.graph.block(scope).steps[-1].id))
    return load(work, state.result) if state else None


def _error(work: Work, place: Place) -> Failure | None:
    """Find the nearest failure: one tolerated earlier in this list, else that of the catch or handler around."""
    scope: Scope | None = place.scope
    while scope is not None:
        tolerated = _tolerated(work, scope)
        if tolerated:
            return tolerated
        around = work.draft.scopes.get(scope)
        if around is not None and around.error is not None:
            return around.error
        scope = None if scope in (ROOT, ON_FAILURE) else scope_of(split_scope(scope)[0])
    return None


def _tolerated(work: Work, scope: Scope) -> Failure | None:
    for step in reversed(work.graph.block(scope).steps):
        state = work.step(step_path(scope, step.id))
        if state is not None and state.status is StepStatus.FAILED and state.tolerated:
            return state.failure
        if state is not None and state.status is StepStatus.SUCCEEDED and state.loop is not None and state.loop.failed:
            return _tolerated_inside(work, state, step)
    return None


def _tolerated_inside(work: Work, state: StepState, step: Step) -> Failure | None:
    """Find the first failure of a branch or iteration that its `on_error: continue` took."""
    if isinstance(step.action, Parallel):
        scopes = [named(state.path, branch.id) for branch in step.action.branches]
    else:
        scopes = [indexed(state.path, index) for index in range(state.loop.started if state.loop else 0)]
    closed = (work.draft.scopes.get(scope) for scope in scopes)
    return next((each.failure for each in closed if each is not None and each.failure is not None), None)


def _iteration(work: Work, scope: Scope) -> JSON:
    owner, index = _loop_around(work.graph, work, scope)
    if owner is None:
        return None
    state = work.draft.steps[owner]
    items = load(work, state.loop.items) if state.loop else None
    value = items[index] if isinstance(items, list | tuple) and index < len(items) else None
    return {"value": value, "index": index, "parent": _iteration(work, scope_of(owner))}


def _loop_around(graph: Graph, work: Work, scope: Scope) -> tuple[StepPath | None, int]:
    while scope not in (ROOT, ON_FAILURE):
        owner, key = split_scope(scope)
        if key.isdecimal() and isinstance(graph.step(owner).action, ForEach | While):
            return owner, int(key)
        scope = scope_of(owner)
    return None, 0
