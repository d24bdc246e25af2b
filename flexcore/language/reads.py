"""Whether what an expression reads is there at the place where it stands."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flexcore.language.problem import Problem, moved, suggestion
from flexcore.model.template import Expression, ListTemplate, Literal, MapTemplate, Position, SecretName, Template, Text

_NOWHERE: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class NamesInScope:
    """What can be read at one place of a workflow.

    `finished`: steps that have ended whenever this place is reached. `unfinished`: steps visible from here that cannot
    have. `elsewhere`: steps that exist but are not seen by name from here, each with what to do instead. `vars` and
    `env` are the declared names; None leaves them unchecked.
    """

    finished: frozenset[str] = frozenset()
    unfinished: frozenset[str] = frozenset()
    elsewhere: Mapping[str, str] = field(default_factory=lambda: _NOWHERE)
    vars: frozenset[str] | None = None
    env: frozenset[str] | None = None
    has_iter: bool = False
    has_error: bool = False
    has_previous_result: bool = True


def check_reads(expression: Expression, scope: NamesInScope) -> list[Problem]:
    """Find everything that the expression reads and that is not there."""
    return [problem for read in expression.reads if (problem := _check(read, expression, scope)) is not None]


def secrets_in(template: Template) -> Iterator[str]:
    """Give the name of every secret that a template refers to."""
    match template:
        case Text():
            yield from (each.name for each in template.parts if isinstance(each, SecretName))
        case ListTemplate():
            for item in template.items:
                yield from secrets_in(item)
        case MapTemplate():
            for _, item in template.items:
                yield from secrets_in(item)
        case Expression() | Literal():
            return


def _check(read: tuple[str, ...], expression: Expression, scope: NamesInScope) -> Problem | None:
    where = _position(read, expression)
    match read:
        case ("results", step):
            return _check_step(step, scope, where)
        case ("vars", name) if scope.vars is not None and name not in scope.vars:
            hint = suggestion(name, scope.vars, "declare it under `vars`")
            return Problem(f"unknown variable '{name}'", "unknown-variable", hint, where)
        case ("env", name) if scope.env is not None and name not in scope.env:
            hint = suggestion(name, scope.env, "declare it under `env`")
            return Problem(f"unknown environment name '{name}'", "unknown-env", hint, where)
        case ("iter",) if not scope.has_iter:
            return Problem("'iter' exists only inside a loop", "not-in-loop", "use it in the steps of a foreach", where)
        case ("error",) if not scope.has_error:
            hint = "it exists in `catch`, in `on_failure` and after a step with `on_error: continue`"
            return Problem("there is no 'error' here", "no-error-here", hint, where)
        case ("previous_result",) if not scope.has_previous_result:
            return Problem("there is no step before this one", "no-previous-result", "use results.STEP", where)
        case _:
            return None


def _check_step(step: str, scope: NamesInScope, where: Position) -> Problem | None:
    if step in scope.finished:
        return None
    if step in scope.unfinished:
        message = f"step '{step}' cannot have finished by then"
        return Problem(message, "step-not-finished", "read it in a later step, or add it to `needs`", where)
    if step in scope.elsewhere:
        return Problem(f"step '{step}' is not visible here", "step-not-visible", scope.elsewhere[step], where)
    visible = scope.finished | scope.unfinished
    return Problem(f"unknown step '{step}'", "unknown-step", suggestion(step, visible), where)


def _position(read: tuple[str, ...], expression: Expression) -> Position:
    """Find the place of a read again: the model keeps one position per expression."""
    pattern = r"\s*(?:\?\.|\.|\[)[\s'\"\[]*".join(re.escape(each) for each in read)
    found = re.search(rf"(?<![\w$.]){pattern}(?![\w$])", expression.source)
    return moved(expression.position, expression.source, found.start()) if found else expression.position
