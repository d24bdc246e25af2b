"""Fills the holes of a template: plain paths and literals here, with JavaScript's meaning, the rest from answers.

Pure, so that `decide` may call it: whatever needs JavaScript is named in `Unanswered`, and comes back as an `Answer`.
It never sees a secret's value: in the text its reference stays as it was written, and `Rendered.secrets` says where.

How a value reads inside longer text: text as it is, true and false by name, numbers as JavaScript prints them, null as
nothing, lists and mappings as compact JSON.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeAlias, assert_never

import msgspec

from flexcore.model.execution import SecretText
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.template import (
    Expression,
    ListTemplate,
    Literal,
    MapTemplate,
    PathKey,
    SecretName,
    Template,
    Text,
)
from flexcore.model.values import JSON

_SHOWN_SOURCE = 120
_LEADING_ZEROS = re.compile(r"e([+-])0*(?=\d)")
_ARRAY_INDEX = re.compile(r"0|[1-9][0-9]{0,15}")


@dataclass(frozen=True, slots=True)
class Query:
    """An expression for JavaScript and the values it may read, by root name (`input`, `results`, …)."""

    source: str
    names: Mapping[str, JSON]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What JavaScript made of an expression: a value, or the failure of the step that asked."""

    value: JSON = None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Rendered:
    """A template without holes. Where `secrets` points, `value` holds the references as they were written."""

    value: JSON
    secrets: tuple[SecretText, ...] = ()


@dataclass(frozen=True, slots=True)
class Unanswered:
    """The expressions that JavaScript must answer first, each source once."""

    expressions: tuple[Expression, ...]


Rendering: TypeAlias = Rendered | Unanswered | Failure


def render(template: Template, names: Mapping[str, JSON], answers: Mapping[str, Answer]) -> Rendering:
    """Fill every hole. `answers` is by source, so it belongs to these `names` only; the first failed answer wins."""
    if isinstance(template, Literal):
        return Rendered(value=template.value)
    filling = _Filling(names, answers)
    value = filling.value(template, ())
    if filling.failure is not None:
        return filling.failure
    if filling.unanswered:
        return Unanswered(tuple(filling.unanswered.values()))
    return Rendered(value=value, secrets=tuple(filling.secrets))


def resolve_path(path: tuple[PathKey, ...], names: Mapping[str, JSON]) -> JSON:
    """Follow a plain path. What is missing is null, and so is anything below null; only own keys count."""
    value: JSON = names
    for key in path:
        if value is None:
            return None
        value = _member(value, key)
    return value


def query(expression: Expression, names: Mapping[str, JSON]) -> Query:
    """Ask about an expression, sending along only what it reads."""
    roots = {each[0] for each in expression.reads}
    sent = {name: names[name] for name in sorted(roots) if name in names}
    results = sent.get("results")
    if isinstance(results, Mapping) and ("results",) not in expression.reads:
        steps = {each[1] for each in expression.reads if each[0] == "results"}
        sent["results"] = {step: results[step] for step in sorted(steps) if step in results}
    return Query(expression.source, sent)


def is_truthy(value: JSON) -> bool:
    """Say whether JavaScript takes a value for true: empty lists and mappings are."""
    if isinstance(value, Mapping | list | tuple):
        return True
    return bool(value)


def as_text(value: JSON) -> str:
    """Spell a value inside longer text; see the module's docstring."""
    match value:
        case None:
            return ""
        case bool():
            return "true" if value else "false"
        case str():
            return value
        case int():
            return str(value)
        case float():
            return _number_text(value)
        case _:
            return msgspec.json.encode(value).decode()


def refused(source: str, cause: str, *, name: str = "", hint: str = "") -> Answer:
    """Answer that an expression has no value, and why: the user's error, never the system's."""
    shown = source if len(source) <= _SHOWN_SOURCE else source[: _SHOWN_SOURCE - 1] + "…"
    message = f"the expression `{shown}` failed: {cause}"
    return Answer(failure=Failure(message=message, error_class=ErrorClass.USER, name=name, hint=hint))


class _Filling:
    """One rendering under way: it goes on after a gap, so that all gaps are asked about at once."""

    def __init__(self, names: Mapping[str, JSON], answers: Mapping[str, Answer]) -> None:
        self._names = names
        self._answers = answers
        self.secrets: list[SecretText] = []
        self.unanswered: dict[str, Expression] = {}
        self.failure: Failure | None = None

    def value(self, template: Template, pointer: tuple[PathKey, ...]) -> JSON:
        match template:
            case Literal():
                return template.value
            case Expression():
                return self._expression(template)
            case Text():
                return self._text(template, pointer)
            case ListTemplate():
                return [self.value(each, (*pointer, index)) for index, each in enumerate(template.items)]
            case MapTemplate():
                return {key: self.value(each, (*pointer, key)) for key, each in template.items}
            case _:
                assert_never(template)

    def _expression(self, expression: Expression) -> JSON:
        if expression.literal is not None:
            return expression.literal[0]
        if expression.path is not None:
            return resolve_path(expression.path, self._names)
        answer = self._answers.get(expression.source)
        if answer is None:
            self.unanswered.setdefault(expression.source, expression)
            return None
        if answer.failure is not None and self.failure is None:
            self.failure = answer.failure
        return answer.value

    def _text(self, text: Text, pointer: tuple[PathKey, ...]) -> str:
        parts = [self._part(each) for each in text.parts]
        if any(kind == "secret" for kind, _ in parts):
            self.secrets.append(SecretText(pointer=pointer, parts=tuple(parts)))
        return "".join(_written(kind, value) for kind, value in parts)

    def _part(self, part: str | Expression | SecretName) -> tuple[str, str]:
        match part:
            case str():
                return "text", part
            case SecretName():
                return "secret", part.name
            case Expression():
                return "text", as_text(self._expression(part))
            case _:
                assert_never(part)


def _written(kind: str, value: str) -> str:
    return f"${{{{ secrets.{value} }}}}" if kind == "secret" else value


def _member(value: JSON, key: PathKey) -> JSON:
    match value:
        case Mapping():
            return value.get(str(key))
        case str():
            return _of_text(value, key)
        case list() | tuple():
            return _of_list(value, key)
        case _:
            return None


def _of_list(value: list[JSON] | tuple[JSON, ...], key: PathKey) -> JSON:
    if key == "length":
        return len(value)
    index = _index(key)
    return value[index] if index is not None and index < len(value) else None


def _of_text(value: str, key: PathKey) -> JSON:
    """Take a length or a character in UTF-16 units, as JavaScript does; half a character is null."""
    units = value.encode("utf-16-le", "surrogatepass")
    if key == "length":
        return len(units) // 2
    index = _index(key)
    if index is None or index >= len(units) // 2:
        return None
    unit = units[2 * index : 2 * index + 2].decode("utf-16-le", "surrogatepass")
    return None if "\ud800" <= unit <= "\udfff" else unit


def _index(key: PathKey) -> int | None:
    if isinstance(key, int):
        return key
    return int(key) if _ARRAY_INDEX.fullmatch(key) else None


def _number_text(number: float) -> str:
    """Print a number as JavaScript does: `1`, `0.000001`, `1e-7`, `1e+21`."""
    magnitude = abs(number)
    if not math.isfinite(number):
        return "NaN" if math.isnan(number) else ("Infinity" if number > 0 else "-Infinity")
    if magnitude == 0:
        return "0"
    if 1e-6 <= magnitude < 1e21:
        return format(Decimal(repr(number)), "f").removesuffix(".0")
    return _LEADING_ZEROS.sub(r"e\1", repr(number))
