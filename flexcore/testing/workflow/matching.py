"""Compares JSON values: equal, or contained. What differs is said key by key, so that a long value needs no search."""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import TypeGuard

from flexcore.model.values import JSON

_LONGEST = 300


def differences(expected: JSON, actual: JSON, at: str) -> Iterator[str]:
    """Say where two values differ, one line each; nothing when they are equal as JSON (`1` is `1.0`, not `true`)."""
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key in dict.fromkeys((*expected, *actual)):
            yield from _of_key(expected, actual, key, f"{at}.{key}")
    elif _is_list(expected) and _is_list(actual):
        yield from _of_lists(expected, actual, at)
    elif not _same(expected, actual):
        yield f"{at}: expected {shown(expected)}, was {shown(actual)}"


def missing(expected: JSON, actual: JSON, at: str) -> Iterator[str]:
    """Say what of the expected is not in a value, one line each.

    A mapping may have more keys, a list more elements in between, a text more around it.
    """
    if isinstance(expected, Mapping) and isinstance(actual, Mapping):
        for key, value in expected.items():
            if key in actual:
                yield from missing(value, actual[key], f"{at}.{key}")
            else:
                yield f"{at}.{key}: expected {shown(value)}, but there is no such key"
    elif _is_list(expected) and _is_list(actual):
        yield from _not_among(expected, actual, at)
    elif isinstance(expected, str) and isinstance(actual, str):
        if expected not in actual:
            yield f"{at}: expected to contain {shown(expected)}, was {shown(actual)}"
    elif not _same(expected, actual):
        yield f"{at}: expected {shown(expected)}, was {shown(actual)}"


def shown(value: JSON) -> str:
    """Write a value for a message."""
    text = json.dumps(value, ensure_ascii=False, sort_keys=True, default=str)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}… ({len(text):,} characters)"


def _of_key(expected: Mapping[str, JSON], actual: Mapping[str, JSON], key: str, at: str) -> Iterator[str]:
    if key not in actual:
        yield f"{at}: expected {shown(expected[key])}, but there is no such key"
    elif key not in expected:
        yield f"{at}: not expected, was {shown(actual[key])}"
    else:
        yield from differences(expected[key], actual[key], at)


def _of_lists(expected: Sequence[JSON], actual: Sequence[JSON], at: str) -> Iterator[str]:
    for index, (one, other) in enumerate(zip(expected, actual, strict=False)):
        yield from differences(one, other, f"{at}[{index}]")
    for index, value in enumerate(expected[len(actual) :], len(actual)):
        yield f"{at}[{index}]: expected {shown(value)}, but the list has only {len(actual)} elements"
    for index, value in enumerate(actual[len(expected) :], len(expected)):
        yield f"{at}[{index}]: not expected, was {shown(value)}"


def _not_among(expected: Sequence[JSON], actual: Sequence[JSON], at: str) -> Iterator[str]:
    begin = 0
    for wanted in expected:
        found = next((n for n in range(begin, len(actual)) if not any(missing(wanted, actual[n], at))), None)
        if found is None:
            behind = f" behind element {begin - 1}" if begin else ""
            yield f"{at}: expected an element {shown(wanted)}{behind}, was {shown(actual)}"
            return
        begin = found + 1


def _is_list(value: JSON) -> TypeGuard[Sequence[JSON]]:
    return isinstance(value, list | tuple)


def _same(expected: JSON, actual: JSON) -> bool:
    if isinstance(expected, bool) or isinstance(actual, bool):
        return expected is actual
    return expected == actual
