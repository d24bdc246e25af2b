"""Expressions and templates as written, checked: `${{ JavaScript }}` in the values of a workflow file.

Nothing is evaluated here. Every problem is found at once and has its place. A value without holes becomes one Literal;
a string that is one hole keeps the type of what stands in it; `$${{` is a literal `${{`.

A hole ends at the first `}}` before which stands a complete expression, so braces, strings, patterns and comments in
it need no escaping. What an expression may be is checks.py's business, what it may read is reads.py's.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence

from flexcore.language.checks import compile_expression, plain_path
from flexcore.language.problem import Problem, moved
from flexcore.language.reads import NamesInScope, check_reads, secrets_in
from flexcore.language.syntax import LONGEST, SyntaxFault, parse
from flexcore.model.template import (
    Expression,
    ListTemplate,
    Literal,
    MapTemplate,
    PathKey,
    Position,
    SecretName,
    Template,
    Text,
)
from flexcore.model.values import JSON

__all__ = [
    "NamesInScope",
    "Problem",
    "check_reads",
    "compile_condition",
    "compile_expression",
    "compile_template",
    "secrets_in",
]

Locate = Callable[[tuple[PathKey, ...]], Position]

_SECRET = re.compile(r"secrets\.([A-Za-z_][A-Za-z0-9_]*)")
_HOLE = "${{"
_ENDS = 64  # places tried as the end of one hole


def compile_template(value: JSON, *, locate: Locate, allow_secrets: bool) -> tuple[Template, list[Problem]]:
    """Turn a parsed YAML value into a template.

    `locate` gives the place of the value at a path below `value`: of the first character of its content, so behind an
    opening quote. Secrets (`${{ secrets.NAME }}`, alone between the braces) are for a step's `with` only.
    """
    compiler = _Compiler(locate, allow_secrets)
    return compiler.value(value, ()), compiler.problems


def compile_condition(value: JSON, position: Position) -> tuple[Expression | None, list[Problem]]:
    """Compile what stands under `if` or `condition`: one hole, or true or false."""
    template, problems = compile_template(value, locate=lambda _: position, allow_secrets=False)
    match template:
        case Expression():
            return template, problems
        case Literal(value=bool() as plain):
            return Expression(source=json.dumps(plain), literal=(plain,), position=position), problems
        case _ if problems:
            return None, problems
    hint = "write it as ${{ … }}"
    return None, [Problem("a condition is one expression, or true or false", "not-a-condition", hint, position)]


class _Compiler:
    """One template under way; `problems` gathers what is wrong with it."""

    def __init__(self, locate: Locate, allow_secrets: bool) -> None:
        self._locate = locate
        self._allow_secrets = allow_secrets
        self.problems: list[Problem] = []

    def value(self, value: JSON, path: tuple[PathKey, ...]) -> Template:
        match value:
            case str():
                return self._string(value, path) if _HOLE in value else Literal(value)
            case Mapping():
                items = tuple((key, self.value(each, (*path, key))) for key, each in value.items())
                self._check_keys(value, path)
                plain = {key: each.value for key, each in items if isinstance(each, Literal)}
                return Literal(plain) if len(plain) == len(items) else MapTemplate(items)
            case Sequence():
                parts = tuple(self.value(each, (*path, index)) for index, each in enumerate(value))
                whole = [each.value for each in parts if isinstance(each, Literal)]
                return Literal(whole) if len(whole) == len(parts) else ListTemplate(parts)
            case _:
                return Literal(value)

    def _check_keys(self, value: Mapping[str, JSON], path: tuple[PathKey, ...]) -> None:
        for key in value:
            if _HOLE in key and f"${_HOLE}" not in key:
                where = self._locate((*path, key))
                hint = "build the whole mapping in one expression: ${{ {[key]: value} }}"
                self.problems.append(Problem(f"the key '{key}' is not filled in", "expression-in-key", hint, where))

    def _string(self, value: str, path: tuple[PathKey, ...]) -> Template:
        start = self._locate(path)
        parts: list[str | Expression | SecretName] = []
        done = 0
        while (opening := value.find(_HOLE, done)) >= 0:
            if opening > done and value[opening - 1] == "$":
                _append(parts, value[done : opening - 1] + _HOLE)
                done = opening + len(_HOLE)
                continue
            _append(parts, value[done:opening])
            end = _end_of_hole(value, opening + len(_HOLE))
            if end is None:
                self._unterminated(moved(start, value, opening))
                return Literal(value)
            hole = self._hole(
                value[opening + len(_HOLE) : end], moved(start, value, opening + len(_HOLE)), start.column
            )
            parts.extend([hole] if hole is not None else [])
            done = end + 2
        _append(parts, value[done:])
        return _whole(parts)

    def _unterminated(self, where: Position) -> None:
        problem = Problem(
            "'${{' is never closed", "unterminated", "close it with '}}', or write $${{ for the text", where
        )
        self.problems.append(problem)

    def _hole(self, source: str, position: Position, margin: int) -> Expression | SecretName | None:
        if (secret := _SECRET.fullmatch(source.strip())) is not None:
            if not self._allow_secrets:
                message = "secrets can be used only inside a step's `with`"
                self.problems.append(Problem(message, "secret-not-allowed", "pass it to the step in `with`", position))
            return SecretName(secret[1])
        expression, problems = compile_expression(source, position, margin=margin)
        self.problems.extend(problems)
        return expression


def _end_of_hole(value: str, start: int) -> int | None:
    """Find the `}}` that ends a hole: the first with a complete expression before it, else the most likely one."""
    first = end = value.find("}}", start)
    following = value.find(_HOLE, start)
    likely = first
    for _ in range(_ENDS):
        if end < 0 or end - start > LONGEST:
            break
        candidate = value[start:end].strip()
        if candidate and (plain_path(candidate) is not None or not isinstance(parse(candidate), SyntaxFault)):
            return end
        if following < 0 or end < following:
            likely = end
        end = value.find("}}", end + 1)
    return likely if first >= 0 else None


def _append(parts: list[str | Expression | SecretName], piece: str) -> None:
    if not piece:
        return
    if parts and isinstance(last := parts[-1], str):
        parts[-1] = last + piece
    else:
        parts.append(piece)


def _whole(parts: list[str | Expression | SecretName]) -> Template:
    """Make a template of a string's parts. Line ends after a single hole are YAML's, not the author's."""
    match parts:
        case []:
            return Literal("")
        case [str() as plain]:
            return Literal(plain)
        case [Expression() as alone]:
            return alone
        case [Expression() as alone, str() as rest] if not rest.strip("\n"):
            return alone
        case _:
            return Text(tuple(parts))
