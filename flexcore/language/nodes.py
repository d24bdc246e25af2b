"""A file as a tree of nodes that know where they stand, and the way from a character of a value to its place."""

from dataclasses import dataclass
from typing import TypeAlias

from flexcore.model.template import Position
from flexcore.model.values import JSON


@dataclass(frozen=True, slots=True)
class ScalarNode:
    """Text, a number, true, false or null. `start` and `end` are its place in the text, `style` how it is quoted."""

    value: JSON
    position: Position
    start: int = 0
    end: int = 0
    style: str = ""


@dataclass(frozen=True, slots=True)
class ListNode:
    """A sequence."""

    items: "tuple[Node, ...]"
    position: Position


@dataclass(frozen=True, slots=True)
class Entry:
    """A key with its value; `position` is the key's."""

    key: str
    position: Position
    value: "Node"


@dataclass(frozen=True, slots=True)
class MapNode:
    """A mapping in the order written; every key occurs once."""

    entries: tuple[Entry, ...]
    position: Position


Node: TypeAlias = ScalarNode | ListNode | MapNode


def plain(node: Node) -> JSON:
    """Give the JSON value of a node."""
    match node:
        case ScalarNode(value=value):
            return value
        case ListNode(items=items):
            return [plain(item) for item in items]
        case MapNode(entries=entries):
            return {entry.key: plain(entry.value) for entry in entries}


def kind_of(node: Node) -> str:
    """Name a node's type for a message."""
    match node:
        case ListNode():
            return "a list"
        case MapNode():
            return "a mapping"
        case ScalarNode(value=None):
            return "empty"
        case ScalarNode(value=bool()):
            return "true or false"
        case ScalarNode(value=int() | float()):
            return "a number"
        case ScalarNode():
            return "text"


def is_null(node: Node) -> bool:
    """Tell whether nothing was written, or `null`."""
    return isinstance(node, ScalarNode) and node.value is None


def inside(node: ScalarNode, source: str, offset: int) -> Position:
    """Find the place in the file of a character of a scalar's text: through quotes, escapes, folds and indentation.

    Walks value and source side by side; blanks of the source that the value does not have are folds and indentation.
    """
    at, end, width = node.start, node.end, 0
    if node.style in ("|", ">"):
        at = source.find("\n", at) + 1 or end
    elif node.style in ("'", '"'):
        at += 1
    for wanted in str(node.value)[: offset + 1]:
        at, width = _matched(source, at + width, end, wanted, node.style)
    return _position_at(node, source, min(at, end))


def content_position(node: ScalarNode, source: str) -> Position:
    """Find where a scalar's text begins, behind an opening quote or a block's header."""
    return inside(node, source, 0)


def is_verbatim(node: ScalarNode, source: str) -> bool:
    """Tell whether the text stands in the file exactly as its value is, in one line (quotes aside)."""
    quote = 1 if node.style in ("'", '"') else 0
    return source[node.start + quote : node.end - quote] == node.value and "\n" not in str(node.value)


def _matched(source: str, at: int, end: int, wanted: str, style: str) -> tuple[int, int]:
    """Find the next place of the source that stands for a character, and how long it is there."""
    while at < end:
        here = source[at]
        if style == '"' and here == "\\":
            if source[at + 1 : at + 2] in ("\n", "\r"):
                at += 2
                continue
            return at, {"x": 4, "u": 6, "U": 10}.get(source[at + 1 : at + 2], 2)
        if here == wanted:
            return at, 2 if style == "'" and here == "'" else 1
        if here not in " \t\r\n":
            break
        if wanted == " " and here in "\r\n" and style != "|":
            return at, 1
        at += 1
    return at, 0


def _position_at(node: ScalarNode, source: str, index: int) -> Position:
    breaks = source.count("\n", node.start, index)
    if not breaks:
        return Position(line=node.position.line, column=node.position.column + index - node.start)
    return Position(line=node.position.line + breaks, column=index - source.rfind("\n", 0, index))
