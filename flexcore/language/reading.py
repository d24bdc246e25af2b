"""What is shared while one file is read, and typed access to a mapping: a wrong value is reported and read as absent.

Absent and null are the same here. What a caller asked for is what is allowed: `close` reports every other key.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import TypeVar

from flexcore.language.findings import Findings, nearest, shortened
from flexcore.language.nodes import Entry, ListNode, MapNode, Node, ScalarNode, is_null, kind_of
from flexcore.model.template import Position
from flexcore.model.units import parse_duration, parse_size
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind

Word = TypeVar("Word", bound=StrEnum)


@dataclass(slots=True, kw_only=True)
class Reading:
    """One file under way. `task_parameters` has the JSON Schema of `with` per kind, `files` tells what exists."""

    findings: Findings
    source: str
    task_parameters: Mapping[StepKind, Mapping[str, JSON]] = field(default_factory=dict)
    files: Callable[[str], bool] | None = None
    steps: int = 0
    effort: int = 2_000_000  # characters that may be walked for exact positions; then estimates have to do
    first_seen: dict[str, Position] = field(default_factory=dict)
    needs_positions: dict[Position, tuple[Position, ...]] = field(default_factory=dict)  # by the step's own position

    def wrong_type(self, node: Node, what: str, expected: str, hint: str = "") -> None:
        """Report a value that is not of its type."""
        message = f"{what} must be {expected}, but is {kind_of(node)}"
        self.findings.report(node.position, message, "wrong-type", hint)


class Fields:
    """A mapping, read key by key."""

    def __init__(self, node: MapNode, reading: Reading) -> None:
        self.position = node.position
        self._reading = reading
        self._entries = {entry.key: entry for entry in node.entries}
        self._allowed: dict[str, None] = {}

    def entry(self, key: str) -> Entry | None:
        """Give a key with its value, null or not; None only when it is not there."""
        self._allowed[key] = None
        return self._entries.get(key)

    def node(self, key: str, *, required: bool = False) -> Node | None:
        """Give a value of any type; null counts as absent."""
        entry = self.entry(key)
        if entry is not None and not is_null(entry.value):
            return entry.value
        if required and entry is not None:
            self._report(entry.position, f"`{key}` is empty", "missing-key")
        elif required:
            self._report(self.position, f"`{key}` is missing", "missing-key")
        return None

    def text(self, key: str, *, required: bool = False) -> str | None:
        """Give text."""
        node = self.node(key, required=required)
        if node is None or (isinstance(node, ScalarNode) and isinstance(node.value, str)):
            return None if node is None else str(node.value)
        hint = "put it in quotes" if isinstance(node, ScalarNode) else ""
        self._reading.wrong_type(node, f"`{key}`", "text", hint)
        return None

    def boolean(self, key: str) -> bool | None:
        """Give true or false."""
        node = self.node(key)
        if node is None or (isinstance(node, ScalarNode) and isinstance(node.value, bool)):
            return None if node is None else bool(node.value)
        self._reading.wrong_type(node, f"`{key}`", "true or false", "`yes` and `no` are text")
        return None

    def integer(self, key: str, lowest: int, highest: int) -> int | None:
        """Give a whole number within bounds, both included."""
        number = self._number(key, lowest, highest, "a whole number")
        return int(number) if number is not None else None

    def number(self, key: str, lowest: float, highest: float) -> float | None:
        """Give a number within bounds, both included."""
        return self._number(key, lowest, highest, "a number")

    def _number(self, key: str, lowest: float, highest: float, expected: str) -> int | float | None:
        node = self.node(key)
        if node is None:
            return None
        value = node.value if isinstance(node, ScalarNode) else None
        allowed = int if expected == "a whole number" else int | float
        if isinstance(value, bool) or not isinstance(value, allowed):
            fraction = isinstance(value, float)
            self._reading.wrong_type(node, f"`{key}`", expected, "it has a fraction" if fraction else "")
            return None
        if not lowest <= value <= highest:
            message = f"`{key}` must be from {lowest:,} to {highest:,}, but is {value}"
            self._report(node.position, message, "out-of-range")
            return None
        return value

    def duration(self, key: str, *, zero: bool = False) -> timedelta | None:
        """Give a duration."""
        node = self.node(key)
        return None if node is None else duration_of(node, self._reading, f"`{key}`", zero=zero)

    def size(self, key: str) -> int | None:
        """Give a size in bytes."""
        node = self.node(key)
        if node is None:
            return None
        if not isinstance(node, ScalarNode) or isinstance(node.value, bool):
            self._reading.wrong_type(node, f"`{key}`", "a size", "write for example 10GB or 512MiB")
            return None
        try:
            return parse_size(_quantity(node))
        except ValueError as error:
            self._report(node.position, f"`{key}`: {error}", "size")
            return None

    def choice(self, key: str, words: type[Word]) -> Word | None:
        """Give one of a closed set of words."""
        text = self.text(key)
        return None if text is None else word_of(self._entries[key].value, words, self._reading, f"`{key}`")

    def items(self, key: str, *, required: bool = False, what: str = "a list") -> Sequence[Node] | None:
        """Give the elements of a list."""
        node = self.node(key, required=required)
        if node is None or isinstance(node, ListNode):
            return None if node is None else node.items
        self._reading.wrong_type(node, f"`{key}`", what)
        return None

    def mapping(self, key: str) -> MapNode | None:
        """Give a mapping."""
        node = self.node(key)
        if node is None or isinstance(node, MapNode):
            return node
        self._reading.wrong_type(node, f"`{key}`", "a mapping")
        return None

    def close(self, *, later: Collection[str] = (), elsewhere: Mapping[str, str] | None = None) -> None:
        """Report every key that nobody asked for; `later` names those that a later version will know."""
        for key, entry in self._entries.items():
            if key in self._allowed:
                continue
            if key in later:
                message = f"`{key}` is not supported yet in this version"
                self._report(entry.position, message, "not-supported-yet", "leave it out")
            else:
                hint = (elsewhere or {}).get(key) or nearest(key, self._allowed)
                self._report(entry.position, f"unknown key '{shortened(key)}'", "unknown-key", hint)

    def _report(self, position: Position, message: str, code: str, hint: str = "") -> None:
        self._reading.findings.report(position, message, code, hint)


def duration_of(node: Node, reading: Reading, what: str, *, zero: bool = False) -> timedelta | None:
    """Read a duration from a value."""
    if not isinstance(node, ScalarNode) or isinstance(node.value, bool) or node.value is None:
        reading.wrong_type(node, what, "a duration", "write for example 30s, 5m or 1h30m")
        return None
    try:
        return parse_duration(_quantity(node), zero=zero)
    except ValueError as error:
        reading.findings.report(node.position, f"{what}: {error}", "duration")
        return None


def _quantity(node: ScalarNode) -> str | int | float:
    return node.value if isinstance(node.value, str | int | float) else str(node.value)


def word_of(node: Node, words: type[Word], reading: Reading, what: str) -> Word | None:
    """Read one of a closed set of words from a value."""
    value = node.value if isinstance(node, ScalarNode) else None
    known = {word.value: word for word in words}
    if isinstance(value, str) and value in known:
        return known[value]
    if not isinstance(value, str):
        reading.wrong_type(node, what, "text", f"one of: {', '.join(known)}")
    else:
        message = f"{what} cannot be '{shortened(value)}'"
        reading.findings.report(node.position, message, "unknown-word", nearest(value, known))
    return None
