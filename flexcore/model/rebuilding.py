"""`dataclasses.replace` for the frozen, slotted dataclasses of the hot path, at less than half its price.

The states of steps are rebuilt several times per step; the standard function checks each field each time. Only for
classes that do nothing when they are made: no `__post_init__`, no field that is not set from outside.
"""

from collections.abc import Callable
from dataclasses import fields
from functools import cache
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

__all__ = ["rebuilt"]

Model = TypeVar("Model")

if TYPE_CHECKING:
    from dataclasses import replace as rebuilt  # so that a type checker looks at the fields' names and types
else:

    def rebuilt(value: Model, /, **changes: Any) -> Model:
        """Give a copy with some fields changed. Raises KeyError for a field that there is not."""
        kind = type(value)
        read, put, places = _parts(kind)
        parts = list(read(value))
        for name, part in changes.items():
            parts[places[name]] = part
        new = object.__new__(kind)
        for write, part in zip(put, parts, strict=True):
            write(new, part)
        return new


@cache
def _parts(kind: type[Any]) -> tuple[Callable[[Any], tuple[Any, ...]], tuple[Callable[..., None], ...], dict[str, int]]:
    names = [field.name for field in fields(kind)]
    if hasattr(kind, "__post_init__") or len(names) < 2 or not all(field.init for field in fields(kind)):
        raise TypeError(f"{kind.__name__} cannot be rebuilt without being made anew")
    put = tuple(getattr(kind, name).__set__ for name in names)  # what a slot is behind its frozen front
    return attrgetter(*names), put, {name: place for place, name in enumerate(names)}
