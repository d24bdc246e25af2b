"""The input of an execution from the command line: `-p key=value`, typed by the workflow's schema, and whole JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flexcore.model.errors import InvalidInput
from flexcore.model.values import JSON

_JSON_TYPES: Mapping[str, tuple[type, ...]] = {
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
    "array": (list,),
    "object": (dict,),
}


def json_argument(text: str, option: str) -> JSON:
    """Read JSON, or with `@file` the file's content. Raises InvalidInput with the place of what is wrong."""
    source = option
    if text.startswith("@"):
        path = Path(text[1:])
        source = f"{option} {path}"
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"{source} cannot be read: {error}") from error
    try:
        value: JSON = json.loads(text, parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        where = f"line {error.lineno} column {error.colno}"
        raise InvalidInput(f"{source} is not JSON: {error.msg} at {where}", hint="in a shell, put it in '…'") from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{source} is not JSON: {error}") from error
    return value


def merged(whole: JSON, pairs: Sequence[str], schema: Mapping[str, Any] | None) -> JSON:
    """Put `-p` pairs over the whole input. None when nothing was given."""
    if not pairs:
        return whole
    if whole is not None and not isinstance(whole, Mapping):
        raise InvalidInput("-p needs an input that is an object", hint="leave out --parameters or make it {…}")
    given = {**(whole or {})}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name:
            raise InvalidInput(f"-p {pair} has no value", hint="write -p name=value")
        given[name] = typed(text, _part(schema, name))
    return given


def typed(text: str, part: Mapping[str, Any] | None) -> JSON:
    """Read a value as its schema wants it: text stays text where text is allowed; without a type, JSON if it is some.

    >>> typed("4", {"type": "integer"}), typed("4", {"type": "string"}), typed("4", None), typed("four", None)
    (4, '4', 4, 'four')
    """
    wanted = (part or {}).get("type")
    types = [wanted] if isinstance(wanted, str) else list(wanted or ())
    if types == ["string"]:
        return text
    try:
        value: JSON = json.loads(text, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return text
    if not types or any(_fits(value, each) for each in types):
        return value
    # Of the wrong type either way: text where that is legal, else as read, for the schema's own message.
    return text if "string" in types else value


def _fits(value: JSON, name: str) -> bool:
    if isinstance(value, bool):
        return name == "boolean"
    return isinstance(value, _JSON_TYPES.get(name, ()))


def _part(schema: Mapping[str, Any] | None, name: str) -> Mapping[str, Any] | None:
    properties = (schema or {}).get("properties")
    part = properties.get(name) if isinstance(properties, Mapping) else None
    return part if isinstance(part, Mapping) else None


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")
