"""Checks an execution's input against the workflow's schema, and fills in what the schema has defaults for."""

from collections.abc import Mapping
from typing import Any

from flexcore.model.errors import Diagnostic, InvalidInput
from flexcore.model.values import JSON


def complete_input(schema: Mapping[str, JSON] | None, value: JSON) -> JSON:
    """Give the input with defaults filled in. Raises InvalidInput with every problem and its path.

    Without a schema anything goes. A missing input is an empty mapping where the schema wants one.
    """
    if schema is None:
        return value
    if value is None and schema.get("type", "object") == "object":
        value = {}
    completed = _with_defaults(schema, value)
    _check(schema, completed)
    return completed


def _with_defaults(schema: JSON, value: JSON) -> JSON:
    properties = schema.get("properties") if isinstance(schema, Mapping) else None
    if not isinstance(value, Mapping) or not isinstance(properties, Mapping):
        return value
    filled: dict[str, JSON] = dict(value)
    for name, part in properties.items():
        if name not in filled and isinstance(part, Mapping) and "default" in part:
            filled[name] = part["default"]
        if name in filled:
            filled[name] = _with_defaults(part, filled[name])
    return filled


def _check(schema: Mapping[str, JSON], value: JSON) -> None:
    from jsonschema import Draft202012Validator  # slow to import, and many workflows have no schema

    checker: Any = Draft202012Validator
    problems = sorted(checker(schema).iter_errors(value), key=lambda each: [str(key) for key in each.absolute_path])
    if not problems:
        return
    found = [Diagnostic("input", 0, 0, each.message, "invalid_input", path=_path(each)) for each in problems]
    told = "; ".join(f"{each.path}: {each.message}" for each in found)
    raise InvalidInput(
        f"the input does not fit the workflow: {told}",
        hint="`flexcore workflow show NAME` has the schema of the input",
        diagnostics=found,
    )


def _path(problem: Any) -> str:
    keys = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in problem.absolute_path)
    return f"input{keys}"
