"""Checks values as written against a schema of `with`: the part of JSON Schema that parameter models are written in.

A value with an expression in it is exempt, because its type shows only at run time. What this does not know (formats,
patterns) it lets pass: the runtime's own model looks again before it starts anything.
"""

import operator
import re
from collections.abc import Callable, Mapping, Sequence

from flexcore.language.findings import nearest, shortened
from flexcore.language.holes import has_hole
from flexcore.language.nodes import ListNode, MapNode, Node, ScalarNode, is_null, plain
from flexcore.language.reading import Reading
from flexcore.model.values import JSON

Schema = Mapping[str, JSON]

_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "string": "text",
    "integer": "a whole number",
    "number": "a number",
    "boolean": "true or false",
    "null": "null",
}


def check_shape(node: Node, schema: Schema, reading: Reading, what: str) -> None:
    """Report where a value does not have the shape of the schema. `what` names it in messages."""
    definitions = schema.get("$defs")
    _Shapes(reading, definitions if isinstance(definitions, Mapping) else {}).check(node, schema, what)


class _Shapes:
    def __init__(self, reading: Reading, definitions: Mapping[str, JSON]) -> None:
        self._reading = reading
        self._definitions = definitions

    def check(self, node: Node, schema: Schema, what: str) -> None:
        schema = self._resolved(schema)
        choices = _schemas(schema.get("anyOf")) or _schemas(schema.get("oneOf"))
        if choices:
            self._check_choices(node, choices, what)
            return
        types = _types(schema)
        if types and not any(_is(node, each, schema) for each in types):
            if not (isinstance(node, ScalarNode) and has_hole(node)):
                self._reading.wrong_type(node, what, " or ".join(_WORDS.get(each, each) for each in types))
            return
        self._check_words(node, schema, what)
        self._check_bounds(node, schema, what)
        if isinstance(node, MapNode):
            self._check_entries(node, schema, what)
        elif isinstance(node, ListNode) and isinstance(items := schema.get("items"), Mapping):
            for item in node.items:
                self.check(item, items, f"an entry of {what}")

    def _resolved(self, schema: Schema) -> Schema:
        reference = schema.get("$ref")
        if isinstance(reference, str):
            found = self._definitions.get(reference.rpartition("/")[2])
            return found if isinstance(found, Mapping) else {}
        return schema

    def _check_choices(self, node: Node, choices: Sequence[Schema], what: str) -> None:
        resolved = [self._resolved(each) for each in choices]
        fitting = [each for each in resolved if not _types(each) or any(_is(node, t, each) for t in _types(each))]
        if len(fitting) == 1:
            self.check(node, fitting[0], what)
        elif not fitting and not (isinstance(node, ScalarNode) and has_hole(node)):
            types = dict.fromkeys(_WORDS.get(t, t) for each in resolved for t in _types(each) if t != "null")
            self._reading.wrong_type(node, what, " or ".join(types))

    def _check_words(self, node: Node, schema: Schema, what: str) -> None:
        words = schema.get("enum") if "enum" in schema else [schema["const"]] if "const" in schema else None
        if not isinstance(words, Sequence) or has_hole(node) or plain(node) in words:
            return
        hint = nearest(str(plain(node)), [str(word) for word in words])
        message = f"{what} cannot be '{shortened(str(plain(node)))}'"
        self._reading.findings.report(node.position, message, "unknown-word", hint)

    def _check_bounds(self, node: Node, schema: Schema, what: str) -> None:
        value = node.value if isinstance(node, ScalarNode) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return
        for key, is_outside in _BOUNDS.items():
            bound = schema.get(key)
            if isinstance(bound, int | float) and is_outside(value, bound):
                message = f"{what} is {value}, outside of its bounds ({key} {bound:g})"
                self._reading.findings.report(node.position, message, "out-of-range")

    def _check_entries(self, node: MapNode, schema: Schema, what: str) -> None:
        properties = schema.get("properties")
        known = properties if isinstance(properties, Mapping) else {}
        others = schema.get("additionalProperties")
        for entry in node.entries:
            inner = known.get(entry.key, _by_pattern(entry.key, schema, others))
            if isinstance(inner, Mapping):
                self.check(entry.value, inner, f"`{shortened(entry.key)}`")
            elif entry.key not in known and others is False:
                message = f"unknown key '{shortened(entry.key)}' in {what}"
                self._reading.findings.report(entry.position, message, "unknown-key", nearest(entry.key, known))
        required = schema.get("required")
        present = {entry.key for entry in node.entries}
        for key in required if isinstance(required, Sequence) else ():
            if key not in present:
                message = f"`{key}` is missing in {what}"
                self._reading.findings.report(node.position, message, "missing-key")


def _by_pattern(key: str, schema: Schema, others: JSON) -> JSON:
    patterns = schema.get("patternProperties")
    given = patterns.items() if isinstance(patterns, Mapping) else ()
    return next((inner for pattern, inner in given if re.search(pattern, key)), others)


_BOUNDS: Mapping[str, Callable[[float, float], bool]] = {
    "minimum": operator.lt,
    "maximum": operator.gt,
    "exclusiveMinimum": operator.le,
    "exclusiveMaximum": operator.ge,
}


def _schemas(choices: JSON) -> list[Schema]:
    if not isinstance(choices, Sequence):
        return []
    return [each for each in choices if isinstance(each, Mapping)]


def _types(schema: Schema) -> list[str]:
    given = schema.get("type")
    if isinstance(given, str):
        return [given]
    return [str(each) for each in given] if isinstance(given, Sequence) else []


def _is(node: Node, type_name: str, schema: Schema) -> bool:
    value = node.value if isinstance(node, ScalarNode) else None
    match type_name:
        case "object":
            return isinstance(node, MapNode)
        case "array":
            return isinstance(node, ListNode)
        case "null":
            return is_null(node)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "string":
            seconds = schema.get("format") == "duration" and isinstance(value, int | float)
            return isinstance(value, str) or (seconds and not isinstance(value, bool))
        case _:
            return True
