"""The JSON Schema of a workflow's input, checked as a schema."""

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

from flexcore.language.findings import nearest, shortened
from flexcore.language.holes import constants_of
from flexcore.language.nodes import ListNode, MapNode, Node
from flexcore.language.reading import Fields, Reading
from flexcore.model.template import Position
from flexcore.model.values import JSON

if TYPE_CHECKING:
    from jsonschema import Draft202012Validator

_MAX_PROBLEMS = 20
_KEYWORDS = frozenset(
    re.findall(
        r"\S+",
        """$schema $id $ref $defs $comment $anchor title description type properties required additionalProperties
        patternProperties propertyNames minProperties maxProperties dependentRequired dependentSchemas enum const
        default examples allOf anyOf oneOf not if then else unevaluatedProperties deprecated readOnly writeOnly
        format minimum maximum items definitions""",
    )
)


def inputs_of(around: Fields, reading: Reading) -> dict[str, JSON] | None:
    """Read `inputs`: a JSON Schema (2020-12) of an object."""
    node = around.mapping("inputs")
    if node is None:
        return None
    schema = constants_of(node, reading, "`inputs`")
    for entry in node.entries:
        if entry.key not in _KEYWORDS:
            message = f"'{shortened(entry.key)}' is not a word of JSON Schema"
            hint = nearest(entry.key, _KEYWORDS, "inputs are declared under `properties`")
            reading.findings.report(entry.position, message, "schema", hint)
    for error in sorted(_validator().iter_errors(schema), key=str)[:_MAX_PROBLEMS]:
        path = list(error.absolute_path)
        where = f"`{path[-1]}`" if path else "`inputs`"
        message = f"{where} is not valid in a JSON Schema: {shortened(error.message, 120)}"
        reading.findings.report(_position(node, path), message, "schema", "`inputs` is a JSON Schema")
    return schema


@cache  # it compiles the schema of schemas, and importing the library is left to files that have inputs
def _validator() -> "Draft202012Validator":
    import jsonschema

    validator = jsonschema.Draft202012Validator
    return validator(validator.META_SCHEMA, format_checker=validator.FORMAT_CHECKER)


def _position(node: Node, path: Sequence[str | int]) -> Position:
    for key in path:
        match node:
            case MapNode(entries=entries):
                inner = next((entry.value for entry in entries if entry.key == key), None)
            case ListNode(items=items):
                inner = items[key] if isinstance(key, int) and key < len(items) else None
            case _:
                inner = None
        if inner is None:
            break
        node = inner
    return node.position
