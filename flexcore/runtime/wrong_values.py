"""Says in words what a model of pydantic finds wrong with what a person wrote, place by place.

Never repeats a value that stands in the wrong place: it may be a secret.
"""

import difflib
import re
from collections.abc import Iterable

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_ONLY_WORDS = re.compile(r"\^\(?(?:\?:)?([\w-]+(?:\|[\w-]+)*)\)?\$")


def problems_in(error: ValidationError, model: type[BaseModel], prefix: str = "") -> list[str]:
    """Name each place and what is wrong with it; keys that the model does not know with the one probably meant."""
    return [_problem(each, model, prefix) for each in error.errors(include_url=False, include_input=False)]


def keys_of(model: type[BaseModel]) -> list[str]:
    """List the keys of a model as people write them."""
    return sorted(field.alias or name for name, field in model.model_fields.items())


def nearest(word: str, known: Iterable[str]) -> str | None:
    """Find the known word that was probably meant."""
    return next(iter(difflib.get_close_matches(word, sorted(known), n=1)), None)


def _problem(found: ErrorDetails, model: type[BaseModel], prefix: str) -> str:
    match found:
        case {"type": "extra_forbidden", "loc": (*above, key)}:
            near = None if above else nearest(str(key), keys_of(model))
            meant = f" (did you mean '{near}'?)" if near else ""
            return _at(prefix, above, f"unknown key '{key}'{meant}")
        case {"type": "string_pattern_mismatch", "loc": (*place,), "ctx": {"pattern": str(pattern)}} if (
            words := _ONLY_WORDS.fullmatch(pattern)
        ):
            return _at(prefix, place, f"it can only be {' or '.join(repr(each) for each in words[1].split('|'))}")
        case _:
            return _at(prefix, found["loc"], found["msg"].removeprefix("Value error, "))


def _at(prefix: str, location: Iterable[object], message: str) -> str:
    place = f"{prefix}{'.'.join(str(key) for key in location)}".removesuffix(".")
    return f"{place}: {message}" if place else message
