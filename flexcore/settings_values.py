"""What a value of a setting may look like: one reader per type, from a file or from the text of a variable.

Knows no setting. A reader refuses with a ValueError that says what is expected; `typed` names setting and source.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from types import MappingProxyType
from typing import Any, TypeAlias

from flexcore.model.errors import InvalidSettings
from flexcore.model.units import parse_duration, parse_size
from flexcore.settings_layers import Given

Amounts: TypeAlias = tuple[tuple[str, int], ...]  # by name; as pairs, because defaults must not change


@dataclass(frozen=True, slots=True)
class Key:
    """What is known of a setting: `least` is the smallest legal number."""

    sentence: str
    is_size: bool = False
    least: float | None = None
    secret: bool = False
    choices: tuple[str, ...] = ()
    never: bool = False  # a duration that may be `never`, which is zero


def typed(name: str, given: Given, key: Key, default: Any) -> Any:
    """Read a value as the type of its default. Raises InvalidSettings."""
    try:
        value = _READERS[type(default)](given.value, key)
    except (ValueError, TypeError, OverflowError) as error:
        # What the environment filled in may be a secret that stands in the wrong place.
        why = "" if key.secret or given.written != given.value else f": {error}"
        message = f"{given.source}: the setting {name} cannot be {'***' if key.secret else repr(given.written)}{why}"
        raise InvalidSettings(message, hint=key.sentence) from error
    return value


def _text(value: Any, key: Key) -> str:
    if not isinstance(value, str):
        raise ValueError("text is expected")
    if key.choices and value not in key.choices:
        raise ValueError(f"it is one of {', '.join(key.choices)}")
    return value


def _truth(value: Any, _: Key) -> bool:
    if isinstance(value, bool):
        return value
    if str(value).lower() in ("true", "false"):
        return str(value).lower() == "true"
    raise ValueError("true or false is expected")


def _whole(value: Any, key: Key) -> int:
    if isinstance(value, bool) or (isinstance(value, float) and not value.is_integer()):
        raise ValueError("a whole number is expected")
    number = parse_size(value, zero=True) if key.is_size else int(value)
    return int(_at_least(number, key))


def _number(value: Any, key: Key) -> float:
    if isinstance(value, bool):
        raise ValueError("a number is expected")
    return _at_least(float(value), key)


def _span(value: Any, key: Key) -> timedelta:
    span = timedelta(0) if key.never and value == "never" else parse_duration(value, zero=True)
    _at_least(span.total_seconds(), key)
    return span


def _amounts(value: Any, key: Key) -> Amounts:
    given = json.loads(value) if isinstance(value, str) else value
    if not isinstance(given, Mapping):
        raise ValueError("a mapping of names to whole numbers is expected")
    return tuple((str(name), _whole(each, key)) for name, each in given.items())


def _words(value: Any, _: Key) -> frozenset[str]:
    given = value.split(",") if isinstance(value, str) else value
    if not isinstance(given, list) or not all(isinstance(each, str) and each.strip() for each in given):
        raise ValueError("a list of names is expected")
    return frozenset(each.strip() for each in given)


def _at_least(number: float, key: Key) -> float:
    if not number < float("inf") or (key.least is not None and number < key.least):
        raise ValueError(f"at least {key.least:g} is expected")
    return number


_READERS: Mapping[type, Callable[[Any, Key], Any]] = MappingProxyType(
    {str: _text, bool: _truth, int: _whole, float: _number, timedelta: _span, tuple: _amounts, frozenset: _words}
)
