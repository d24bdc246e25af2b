"""YAML 1.2 (core schema) or JSON text → a tree of nodes that know where they stand.

Composes from the parser's events itself, because the limits have to hold while reading: size, depth, number of nodes
with every alias counted at full size. Booleans are `true` and `false` only, dates stay text, tags and merge keys are
refused. It never recurses over what was written and never builds an object of a foreign type.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import yaml

from flexcore.language.findings import Findings, shortened
from flexcore.language.nodes import Entry, ListNode, MapNode, Node, ScalarNode
from flexcore.language.scalars import NotJSON, resolve
from flexcore.model.template import Position
from flexcore.model.values import JSON

MAX_CHARACTERS = 1_000_000
MAX_DEPTH = 64
MAX_NODES = 200_000
MAX_ALIASES = 1_000

_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_FORBIDDEN = re.compile("[^\t\n\r -~\x85\xa0-\ud7ff\ufeff\ue000-\ufffd\U00010000-\U0010ffff]")
_SURROGATE_PAIR = re.compile(r"(?<!\\)((?:\\\\)*)\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})")
_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_TEXT_TAG = "tag:yaml.org,2002:str"


def compose(text: str | bytes, findings: Findings) -> tuple[Node | None, str]:
    """Read one document; give its root, None when it cannot be read, and the text that the nodes' places refer to.

    Problems that leave a tree (a duplicate key, a tag) are reported and passed over; the others end the reading.
    """
    source = _readable(text, findings)
    if source is None:
        return None, ""
    try:
        return _Composer(source, findings).document(), source
    except _Refused as refused:
        findings.report(refused.position, refused.message, refused.code, refused.hint)
    except yaml.MarkedYAMLError as error:
        findings.report(_place(error.problem_mark), *_explained(error, source))
    except yaml.YAMLError as error:
        findings.report(Position(line=1, column=1), f"not YAML: {shortened(str(error), 200)}", "yaml")
    return None, source


def _readable(text: str | bytes, findings: Findings) -> str | None:
    if len(text) > MAX_CHARACTERS:
        message = f"the file is too large: {len(text):,} characters, at most {MAX_CHARACTERS:,}"
        findings.report(Position(line=1, column=1), message, "too-large")
        return None
    if isinstance(text, bytes):
        decoded = _decoded(text, findings)
        if decoded is None:
            return None
        text = decoded
    text = text.removeprefix("\ufeff")
    bad = _FORBIDDEN.search(text)
    if bad:
        message = f"the character U+{ord(bad[0]):04X} is not allowed in a file"
        findings.report(_position_in(text, bad.start()), message, "character")
        return None
    if text.lstrip().startswith("{"):
        text = _SURROGATE_PAIR.sub(_joined, text)
    return text


def _decoded(data: bytes, findings: Findings) -> str | None:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        findings.report(_position_in(before, len(before)), "the file is not UTF-8", "encoding", "save it as UTF-8")
        return None


def _joined(pair: re.Match[str]) -> str:
    # JSON writes characters beyond the basic plane as two escapes, which YAML does not know.
    code = 0x10000 + ((int(pair[2], 16) - 0xD800) << 10) + (int(pair[3], 16) - 0xDC00)
    return f"{pair[1]}\\U{code:08x}"


def _position_in(text: str, index: int) -> Position:
    return Position(line=text.count("\n", 0, index) + 1, column=index - text.rfind("\n", 0, index))


class _Mark(Protocol):
    index: int
    line: int
    column: int


def _place(mark: _Mark | None) -> Position:
    return Position(line=mark.line + 1, column=mark.column + 1) if mark else Position(line=1, column=1)


def _explained(error: yaml.MarkedYAMLError, source: str) -> tuple[str, str, str]:
    problem = " ".join(filter(None, (error.problem, error.context)))
    place = _place(error.problem_mark)
    lines = source.splitlines()
    line = lines[place.line - 1] if place.line <= len(lines) else ""
    if "${{" in line:
        hint = 'put text with `${{ … }}` in quotes: "${{ … }}"'
    elif "\t" in line[: place.column]:
        hint = "indent with spaces, not tabs"
    elif "mapping values" in problem:
        hint = "put text that contains `: ` in quotes"
    else:
        hint = ""
    return f"not YAML: {problem}", "yaml", hint


class _Refused(Exception):
    def __init__(self, event: yaml.Event, message: str, code: str, hint: str = "") -> None:
        super().__init__(message)
        self.position = _place(event.start_mark)
        self.message = message
        self.code = code
        self.hint = hint


@dataclass(slots=True)
class _Frame:
    """A list or mapping being read. `height` and `count` are of the tree below, for what an alias costs."""

    position: Position
    anchor: str | None
    is_map: bool
    items: list[Node] = field(default_factory=list)
    entries: list[Entry] = field(default_factory=list)
    keys: set[str] = field(default_factory=set)
    key: tuple[str, Position] | None = None
    height: int = 1
    count: int = 1


@dataclass(frozen=True, slots=True)
class _Anchored:
    node: Node
    height: int
    count: int


class _Composer:
    """Turns the events of one document into nodes."""

    def __init__(self, source: str, findings: Findings) -> None:
        self._loader = _LOADER(source)
        self._next: Callable[[], yaml.Event] = self._loader.get_event
        self._findings = findings
        self._stack: list[_Frame] = []
        self._anchors: dict[str, _Anchored | None] = {}
        self._nodes = 0
        self._aliases = 0
        self._root: Node | None = None

    def document(self) -> Node | None:
        try:
            return self._document()
        finally:
            self._loader.dispose()

    def _document(self) -> Node | None:
        documents = 0
        while not isinstance(event := self._next(), yaml.StreamEndEvent):
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _Refused(event, "several documents in one file", "several-documents", "one workflow per file")
            elif isinstance(event, yaml.NodeEvent):
                self._node(event)
            elif isinstance(event, yaml.CollectionEndEvent):
                self._end()
        return self._root

    def _node(self, event: yaml.NodeEvent) -> None:
        self._count(event, 1)
        match event:
            case yaml.AliasEvent():
                self._alias(event)
            case yaml.ScalarEvent():
                self._scalar(event)
            case yaml.CollectionStartEvent():
                self._begin(event)

    def _count(self, event: yaml.Event, more: int) -> None:
        self._nodes += more
        if self._nodes > MAX_NODES:
            raise _Refused(event, f"more than {MAX_NODES:,} values in the file", "too-large", "aliases count in full")

    def _begin(self, event: yaml.CollectionStartEvent) -> None:
        if len(self._stack) >= MAX_DEPTH:
            raise _Refused(event, f"nested deeper than {MAX_DEPTH} levels", "too-deep")
        self._check_tag(event, "a list" if isinstance(event, yaml.SequenceStartEvent) else "a mapping")
        if event.anchor:
            self._anchors[event.anchor] = None
        self._stack.append(_Frame(_place(event.start_mark), event.anchor, isinstance(event, yaml.MappingStartEvent)))

    def _end(self) -> None:
        frame = self._stack.pop()
        node = (
            MapNode(tuple(frame.entries), frame.position)
            if frame.is_map
            else ListNode(tuple(frame.items), frame.position)
        )
        self._add(node, frame.anchor, frame.height, frame.count)

    def _alias(self, event: yaml.AliasEvent) -> None:
        self._aliases += 1
        if self._aliases > MAX_ALIASES:
            raise _Refused(event, f"more than {MAX_ALIASES:,} aliases in the file", "too-large")
        anchored = self._anchors.get(event.anchor or "")
        if anchored is None:
            inside = event.anchor in self._anchors
            message = f"the alias '{event.anchor}' " + ("contains itself" if inside else "has no anchor before it")
            raise _Refused(event, message, "alias")
        self._count(event, anchored.count)
        if len(self._stack) + anchored.height > MAX_DEPTH:
            raise _Refused(event, f"nested deeper than {MAX_DEPTH} levels", "too-deep")
        self._add(anchored.node, None, anchored.height, anchored.count)

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        position = _place(event.start_mark)
        text: str = event.value
        self._check_tag(event, f"'{shortened(text)}'")
        value: JSON = text
        if event.implicit[0] and event.tag is None:
            resolved = resolve(text)
            if isinstance(resolved, NotJSON):
                self._findings.report(position, f"'{shortened(text)}' {resolved.reason}", "number", resolved.hint)
                resolved = None
            value = resolved
        if _UNSTORABLE.search(text):
            self._findings.report(position, "the text holds a character that cannot be stored", "character")
        style = event.style or ""
        start, end = event.start_mark, event.end_mark
        node = ScalarNode(value, position, start.index if start else 0, end.index if end else 0, style)
        self._add(node, event.anchor, 1, 1)

    def _check_tag(self, event: yaml.ScalarEvent | yaml.CollectionStartEvent, what: str) -> None:
        if event.tag is not None and event.tag != _TEXT_TAG:
            message = f"the tag '{shortened(event.tag)}' on {what} is not supported"
            self._findings.report(_place(event.start_mark), message, "tag", "write plain JSON values")

    def _add(self, node: Node, anchor: str | None, height: int, count: int) -> None:
        if anchor:
            self._anchors[anchor] = _Anchored(node, height, count)
        if not self._stack:
            self._root = node
            return
        frame = self._stack[-1]
        frame.height = max(frame.height, height + 1)
        frame.count += count
        if not frame.is_map:
            frame.items.append(node)
        elif frame.key is None:
            frame.key = self._key(node)
        else:
            self._entry(frame, frame.key, node)
            frame.key = None

    def _key(self, node: Node) -> tuple[str, Position]:
        if isinstance(node, ScalarNode):
            if isinstance(node.value, str):
                return node.value, node.position
            shown = "null" if node.value is None else str(node.value).lower()
            hint = "put it in quotes"
        else:
            shown, hint = "", "write `key: value`"
        self._findings.report(node.position, "a key must be text", "key", hint)
        return shown, node.position

    def _entry(self, frame: _Frame, key: tuple[str, Position], value: Node) -> None:
        name, position = key
        if name == "<<":
            self._findings.report(position, "merge keys (`<<`) are not supported", "merge-key", "write the keys out")
        elif name in frame.keys:
            message = f"duplicate key '{shortened(name)}'"
            self._findings.report(position, message, "duplicate-key", "the first one counts")
        else:
            frame.keys.add(name)
            frame.entries.append(Entry(name, position, value))
