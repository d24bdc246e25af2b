"""Values with holes: what stands in a workflow file where `${{ … }}` may be written, after parsing.

A whole-string `${{ x }}` keeps the JSON type of x; inside longer text it is turned into text. Code is never templated.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from flexcore.model.values import JSON

PathKey: TypeAlias = str | int


@dataclass(frozen=True, slots=True, kw_only=True)
class Position:
    """Where something was written, 1-based."""

    line: int = 0
    column: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Expression:
    """A JavaScript expression, checked when the workflow was.

    `path` is set for a plain path such as `results.fetch.rows[0].id`: root name first, then keys and indices; it is
    resolved natively. `literal` is set for a JSON literal (its value in a 1-tuple). With neither, JavaScript decides.
    `reads` has one entry per thing it refers to: the root name, and for `results`, `vars` and `env` also the name below
    (`("results", "fetch")`; only `("results",)` when the step is computed).
    """

    source: str
    path: tuple[PathKey, ...] | None = None
    literal: tuple[JSON] | None = None
    reads: tuple[tuple[str, ...], ...] = ()
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True)
class SecretName:
    """A secret by reference. Decide and the journal see only this name; the value is filled in at dispatch."""

    name: str


@dataclass(frozen=True, slots=True)
class Literal:
    """A value without holes (a constant, possibly a whole list or mapping)."""

    value: JSON


@dataclass(frozen=True, slots=True)
class Text:
    """Text around holes. A secret alone in its string is a Text of one part."""

    parts: "tuple[str | Expression | SecretName, ...]"


@dataclass(frozen=True, slots=True)
class ListTemplate:
    """A list with holes somewhere inside."""

    items: "tuple[Template, ...]"


@dataclass(frozen=True, slots=True)
class MapTemplate:
    """A mapping with holes somewhere inside, in the order written."""

    items: "tuple[tuple[str, Template], ...]"


Template: TypeAlias = Literal | Expression | Text | ListTemplate | MapTemplate


def expressions_in(template: Template) -> Iterator[Expression]:
    """Walk the expressions of a template in the order written."""
    match template:
        case Expression():
            yield template
        case Text(parts=parts):
            yield from (part for part in parts if isinstance(part, Expression))
        case ListTemplate(items=items):
            for item in items:
                yield from expressions_in(item)
        case MapTemplate(items=entries):
            for _, entry in entries:
                yield from expressions_in(entry)
        case _:
            return
