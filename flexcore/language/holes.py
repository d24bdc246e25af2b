"""Nodes with `${{ … }}` in them → templates, with every position exact, however the text was quoted or folded."""

from dataclasses import replace

from flexcore.language.expressions import compile_condition, compile_template
from flexcore.language.findings import shortened
from flexcore.language.nodes import (
    ListNode,
    MapNode,
    Node,
    ScalarNode,
    content_position,
    inside,
    is_verbatim,
    kind_of,
    plain,
)
from flexcore.language.problem import Problem
from flexcore.language.reading import Reading
from flexcore.model.template import Expression, ListTemplate, Literal, MapTemplate, Position, Template, Text
from flexcore.model.values import JSON

HOLE = "${{"
MAX_HOLES = 200


def has_hole(node: Node) -> bool:
    """Tell whether an expression stands anywhere in a value."""
    match node:
        case ScalarNode(value=value):
            return isinstance(value, str) and HOLE in value
        case ListNode(items=items):
            return any(has_hole(item) for item in items)
        case MapNode(entries=entries):
            return any(has_hole(entry.value) for entry in entries)


def template_of(node: Node, reading: Reading, *, allow_secrets: bool = False) -> Template:
    """Compile a value. What is wrong in it is reported."""
    match node:
        case ScalarNode(value=value):
            if isinstance(value, str) and HOLE in value:
                return _compiled(node, reading, allow_secrets=allow_secrets)
            return Literal(value)
        case ListNode(items=items):
            return as_list(tuple(template_of(item, reading, allow_secrets=allow_secrets) for item in items))
        case MapNode():
            check_keys(node, reading)
            return as_mapping(
                tuple(
                    (entry.key, template_of(entry.value, reading, allow_secrets=allow_secrets))
                    for entry in node.entries
                )
            )


def as_list(items: tuple[Template, ...]) -> Template:
    """Join templates to one of a list: a constant when all are."""
    whole = [item.value for item in items if isinstance(item, Literal)]
    return Literal(whole) if len(whole) == len(items) else ListTemplate(items)


def as_mapping(items: tuple[tuple[str, Template], ...]) -> Template:
    """Join templates to one of a mapping: a constant when all are."""
    whole = {key: item.value for key, item in items if isinstance(item, Literal)}
    return Literal(whole) if len(whole) == len(items) else MapTemplate(items)


def check_keys(node: MapNode, reading: Reading) -> None:
    """Report keys with an expression in them: only values are filled in."""
    for entry in node.entries:
        if HOLE in entry.key:
            message = f"the key '{shortened(entry.key)}' is not filled in"
            hint = "build the whole mapping in one expression: ${{ {[key]: value} }}"
            reading.findings.report(entry.position, message, "expression-in-key", hint)


def condition_of(node: Node, reading: Reading, key: str) -> Expression | None:
    """Compile what stands under `if` or `condition`: one `${{ … }}`, or true or false."""
    if not isinstance(node, ScalarNode):
        reading.wrong_type(node, f"`{key}`", "an expression", "write it as ${{ … }}")
        return None
    if isinstance(node.value, str) and HOLE not in node.value:
        message = f"`{key}` is text, not an expression"
        hint = f"write it as ${{{{ {shortened(node.value.strip(), 40)} }}}}"
        reading.findings.report(node.position, message, "not-a-condition", hint)
        return None
    start = _start(node, reading)
    expression, problems = compile_condition(node.value, start)
    _report(node, reading, start, problems)
    return None if expression is None else _exact(node, reading, start, expression)


def list_of(node: Node, reading: Reading) -> Template:
    """Compile what a loop goes over: a list, or one `${{ … }}`."""
    template = template_of(node, reading)
    if isinstance(template, Expression | ListTemplate) or isinstance(node, ListNode):
        return template
    if isinstance(template, Text) or has_hole(node):
        if isinstance(template, Text):
            reading.findings.report(
                node.position, "`items` is text around an expression", "wrong-type", "leave only the ${{ … }}"
            )
    else:
        reading.findings.report(
            node.position, f"`items` must be a list, but is {kind_of(node)}", "wrong-type", "or write it as ${{ … }}"
        )
    return Literal([])


def constants_of(node: MapNode, reading: Reading, what: str) -> dict[str, JSON]:
    """Give a mapping of constants; an expression in it is reported, because nobody would fill it in."""
    for entry in node.entries:
        if has_hole(entry.value):
            message = f"{what} are constants: '{shortened(entry.key)}' has an expression"
            hint = "compute it in a transform step"
            reading.findings.report(entry.value.position, message, "not-constant", hint)
    return {entry.key: plain(entry.value) for entry in node.entries}


def _compiled(node: ScalarNode, reading: Reading, *, allow_secrets: bool) -> Template:
    if str(node.value).count(HOLE) > MAX_HOLES:
        message = f"more than {MAX_HOLES:,} expressions in one text"
        reading.findings.report(node.position, message, "too-large", "build the text in a step")
        return Literal(None)
    start = _start(node, reading)
    template, problems = compile_template(node.value, locate=lambda _: start, allow_secrets=allow_secrets)
    _report(node, reading, start, problems)
    match template:
        case Expression():
            return _exact(node, reading, start, template)
        case Text(parts=parts):
            exact = (_exact(node, reading, start, part) if isinstance(part, Expression) else part for part in parts)
            return Text(tuple(exact))
        case _:
            return template


def _start(node: ScalarNode, reading: Reading) -> Position:
    return content_position(node, reading.source) if isinstance(node.value, str) else node.position


def _report(node: ScalarNode, reading: Reading, start: Position, problems: list[Problem]) -> None:
    for problem in problems:
        reading.findings.add(problem, _real(node, reading, start, problem.position))


def _exact(node: ScalarNode, reading: Reading, start: Position, expression: Expression) -> Expression:
    real = _real(node, reading, start, expression.position)
    return expression if real == expression.position else replace(expression, position=real)


def _real(node: ScalarNode, reading: Reading, start: Position, reckoned: Position) -> Position:
    """Correct a position that was reckoned as if the text stood in the file as its value is."""
    if not isinstance(node.value, str) or reading.effort <= 0:
        return reckoned
    reading.effort -= len(node.value) // 50
    if is_verbatim(node, reading.source):
        return reckoned
    offset = 0
    for _ in range(reckoned.line - start.line):
        offset = node.value.find("\n", offset) + 1
    offset += reckoned.column - start.column
    reading.effort -= offset
    return inside(node, reading.source, offset)
