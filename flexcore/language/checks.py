"""One expression, checked: it parses, it uses only names that exist, it is repeatable, and what it reads is known.

Plain paths and JSON literals are recognised without a parser, and never need JavaScript later. What else is allowed is
JavaScript's own library without clocks and chance: the time of an execution is `execution.started_at`.
"""

import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from flexcore.language.problem import Problem, moved, suggestion
from flexcore.language.scopes import free_names, text
from flexcore.language.syntax import Parsed, SyntaxFault, parse
from flexcore.model.template import Expression, PathKey, Position
from flexcore.model.values import JSON

if TYPE_CHECKING:
    from tree_sitter import Node

ROOTS = frozenset(
    {"input", "flow_input", "results", "previous_result", "error", "iter", "vars", "env", "execution"},
)
_KEYED = frozenset({"results", "vars", "env"})  # what is read below them is known when the workflow is
_MEMBERS: Mapping[str, frozenset[str]] = {
    "iter": frozenset({"value", "index", "parent"}),
    "execution": frozenset({"id", "workflow", "started_at"}),
}
_VALUES = frozenset({"Infinity", "NaN", "undefined"})
_FUNCTIONS = frozenset(
    {
        "decodeURI",
        "decodeURIComponent",
        "encodeURI",
        "encodeURIComponent",
        "isFinite",
        "isNaN",
        "parseFloat",
        "parseInt",
    }
)
_TYPES = frozenset(
    {"Array", "BigInt", "Boolean", "Date", "Map", "Number", "Object", "RegExp", "Set", "String", "Symbol"}
)
_LIBRARY = _VALUES | _FUNCTIONS | _TYPES | {"Error", "JSON", "Math", "RangeError", "TypeError"}
_REFUSED = {
    "await_expression": "an expression cannot wait",
    "yield_expression": "an expression cannot wait",
    "import": "an expression cannot import",
    "meta_property": "this has no meaning in an expression",
    "class": "a class has no place in an expression",
    "class_declaration": "a class has no place in an expression",
    "with_statement": "`with` has no place in an expression",
    "jsx_element": "JSX is not JavaScript",
    "jsx_self_closing_element": "JSX is not JavaScript",
}
_WRITES = {"assignment_expression": "left", "augmented_assignment_expression": "left", "update_expression": "argument"}
_CLOCK_HINT = "use execution.started_at, which stays the same when the execution goes on after a crash"

_WORD = r"[^\W\d][\w$]*|\$[\w$]*"
_KEY = (
    rf"\s*(?:\??\.\s*(?P<name>{_WORD})"
    r"|(?:\?\.)?\s*\[\s*(?:(?P<index>0|[1-9]\d{0,14})"
    r"""|"(?P<double>[^"\\\n]*)"|'(?P<single>[^'\\\n]*)')\s*\])"""
)
_NEXT_KEY = re.compile(_KEY)
_ROOT = re.compile(_WORD)
_SIMPLE_TEXT = re.compile(r"'([^'\\\n]*)'")


def compile_expression(
    source: str, position: Position, *, margin: int | None = None
) -> tuple[Expression | None, list[Problem]]:
    """Check one expression; None comes with at least one problem.

    `position` is where `source` starts, `margin` the column of its further lines when that is another one.
    """
    stripped = source.strip()
    start = moved(position, source, len(source) - len(source.lstrip()), margin)
    margin = position.column if margin is None else margin
    if not stripped:
        return None, [Problem("the expression is empty", "empty-expression", "write a value between the braces", start)]
    if (path := plain_path(stripped)) is not None:
        root, key = str(path[0]), path[1] if len(path) > 1 else None
        reads = (_read(root, key),)
        problem = _unknown_member(root, key, start)
        expression = Expression(source=stripped, path=path, reads=reads, position=start)
        return (None, [problem]) if problem else (expression, [])
    if (literal := _json_literal(stripped)) is not None:
        return Expression(source=stripped, literal=literal, position=start), []
    parsed = parse(stripped)
    if isinstance(parsed, SyntaxFault):
        where = moved(start, stripped, parsed.offset, margin)
        return None, [Problem(parsed.message, "syntax", "expressions are JavaScript", where)]
    return _Checks(parsed, stripped, start, margin).expression()


def plain_path(source: str) -> tuple[PathKey, ...] | None:
    """Recognise `results.fetch.rows[0].id`: a root name and keys that are written out."""
    root = _ROOT.match(source)
    if root is None or root[0] not in ROOTS:
        return None
    keys: list[PathKey] = [root[0]]
    end = root.end()
    while end < len(source):
        found = _NEXT_KEY.match(source, end)
        if found is None:
            return None
        name, index, double, single = found.group("name", "index", "double", "single")
        keys.append(int(index) if index is not None else next(x for x in (name, double, single) if x is not None))
        end = found.end()
    return tuple(keys)


class _Checks:
    """The checks of one parsed expression."""

    def __init__(self, parsed: Parsed, source: str, start: Position, margin: int) -> None:
        self._margin = margin
        self._parsed = parsed
        self._source = source
        self._start = start
        self._problems: list[Problem] = []
        self._reads: dict[tuple[str, ...], None] = {}

    def expression(self) -> tuple[Expression | None, list[Problem]]:
        root = self._parsed.root
        if root.type == "sequence_expression":
            self._report(root, "two values, separated by a comma", "syntax", "make it a list: [a, b]")
        self._check_nodes(root)
        for node in free_names(root):
            self._check_name(node)
        if self._problems:
            return None, self._problems
        return Expression(source=self._source, reads=tuple(self._reads), position=self._start), []

    def _report(self, node: "Node", message: str, code: str, hint: str) -> None:
        self._problems.append(Problem(message, code, hint, self._place(node)))

    def _place(self, node: "Node") -> Position:
        return moved(self._start, self._source, self._parsed.offset(node), self._margin)

    def _check_nodes(self, root: "Node") -> None:
        todo = [root]
        while todo:
            node = todo.pop()
            if (why := _REFUSED.get(node.type)) is not None:
                self._report(node, why, "not-supported", "do it in a python step")
                continue
            if node.type == "number" and _loses_digits(text(node)):
                message = f"the number {text(node)} is beyond 2^53 and would lose digits in JavaScript"
                self._report(node, message, "number-too-large", "write it as text")
            todo.extend(reversed(node.named_children))

    def _check_name(self, node: "Node") -> None:
        name = text(node)
        if name == "secrets":
            hint = "write ${{ secrets.NAME }} with nothing else between the braces; text around it is fine"
            self._report(node, "a secret must stand alone between its braces", "secret-in-expression", hint)
        elif name in ROOTS:
            self._check_root(node, name)
        elif name not in _LIBRARY:
            names = f"names here: {', '.join(sorted(ROOTS))}"
            hint = suggestion(name, ROOTS | _LIBRARY, names)
            self._report(node, f"unknown name '{name}'", "unknown-name", hint)
        elif name in ("Date", "Math"):
            self._check_clock(node, name)

    def _check_root(self, node: "Node", name: str) -> None:
        parent = node.parent
        if parent is not None and parent.child_by_field_name(_WRITES.get(parent.type, "-")) == node:
            self._report(node, f"'{name}' cannot be assigned to", "assignment", "give the new value another name")
        key = _member_key(node)
        problem = _unknown_member(name, key, self._place(node))
        self._problems.extend([problem] if problem else [])
        self._reads.setdefault(_read(name, key))

    def _check_clock(self, node: "Node", name: str) -> None:
        parent, key = node.parent, _member_key(node)
        if (name, key) == ("Math", "random"):
            self._report(node, "an expression has no chance", "not-repeatable", "draw the number in a step")
        elif (name, key) == ("Date", "now") or (name == "Date" and parent is not None and _without_arguments(parent)):
            self._report(node, "an expression has no current time", "not-repeatable", _CLOCK_HINT)


def _json_literal(source: str) -> tuple[JSON] | None:
    """Recognise what is both JSON and the same value in JavaScript."""
    if (quoted := _SIMPLE_TEXT.fullmatch(source)) is not None:
        return (quoted[1],)
    if source[0] not in '[{"-0123456789tfn' or "__proto__" in source:
        return None
    try:
        value: JSON = json.loads(source, parse_constant=_not_json, parse_int=_integer, parse_float=_number)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        return None
    return (value,)


def _not_json(word: str) -> JSON:
    raise ValueError(word)


def _integer(digits: str) -> int:
    if _loses_digits(digits.lstrip("-")):
        raise ValueError(digits)
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise ValueError(digits)
    return value


def _loses_digits(number: str) -> bool:
    return len(number) > 15 and number.isdigit() and (len(number) > 16 or int(number) > 2**53)


def _read(root: str, key: PathKey | None) -> tuple[str, ...]:
    return (root, key) if root in _KEYED and isinstance(key, str) else (root,)


def _unknown_member(root: str, key: PathKey | None, where: Position) -> Problem | None:
    members = _MEMBERS.get(root)
    if members is None or key is None or key in members:
        return None
    hint = suggestion(str(key), members)
    return Problem(f"'{root}' has no '{key}'", "unknown-name", hint, where)


def _member_key(node: "Node") -> str | None:
    """Give the name under which a member of this name is taken, when it is written out."""
    parent = node.parent
    if parent is None or parent.child_by_field_name("object") != node:
        return None
    if (named := parent.child_by_field_name("property")) is not None:
        return text(named)
    index = parent.child_by_field_name("index")
    if index is None or index.type != "string" or any(each.type == "escape_sequence" for each in index.named_children):
        return None
    return text(index)[1:-1]


def _without_arguments(call: "Node") -> bool:
    """Say whether this is `new Date()`, or `Date(…)`, which ignores what it is given."""
    if call.type == "new_expression":
        arguments = call.child_by_field_name("arguments")
        return arguments is None or arguments.named_child_count == 0
    return (
        call.type == "call_expression"
        and call.child_by_field_name("function") is not None
        and (text(call).startswith("Date"))
    )
