"""How a test names steps: by path, where a loop without an index means each of its iterations, or by a step's id alone.

`fan.score` and `score` are every iteration of it, `fan[2].score` is one; `child.extract` is a step of the sub-workflow
that the step `child` runs.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

from flexcore.model.graph import EACH, Graph, lists_of
from flexcore.model.workflow import Step

_PART = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(?:\[(\d{1,9}|\*)\])?")
_ANY = "*"


class Part(NamedTuple):
    """One segment of a path; `iteration` is a number, `*` for any, or empty."""

    name: str
    iteration: str = ""


@dataclass(frozen=True, slots=True)
class Address:
    """A step or several. `by_id`: the last segment is all that counts."""

    text: str
    parts: tuple[Part, ...]
    by_id: bool = False

    @property
    def precision(self) -> int:
        """Say how exact it is: the more iterations it picks out, the more."""
        return -1 if self.by_id else sum(each.iteration.isdecimal() for each in self.parts)

    def covers(self, path: str) -> bool:
        """Say whether a step's actual path is meant."""
        actual = parts_of(path)
        if actual is None:
            return False
        if self.by_id:
            return actual[-1].name == self.parts[-1].name
        return len(actual) == len(self.parts) and all(map(_covers, self.parts, actual))


@dataclass(frozen=True, slots=True)
class Place:
    """A step of a workflow, or of one of its sub-workflows, at its path with `[*]` for iterations."""

    path: str
    step: Step


class Addresses:
    """All steps that a test can name."""

    def __init__(self, places: Iterable[Place]) -> None:
        self.places = tuple(places)
        self._patterns = tuple((parts_of(each.path) or (), each) for each in self.places)

    @property
    def names(self) -> tuple[str, ...]:
        """Every path, as it would be written to mean all iterations."""
        return tuple(each.path.replace("[*]", "") for each in self.places)

    def find(self, text: str) -> tuple[Address, tuple[Place, ...]] | None:
        """Understand what was written, and say which steps it may mean; None when there is no such step."""
        parts = parts_of(text)
        if parts is None:
            return None
        meant = tuple(place for pattern, place in self._patterns if _fits(parts, pattern))
        if meant:
            return Address(text, parts), meant
        if len(parts) == 1 and not parts[0].iteration:
            meant = tuple(each for each in self.places if each.step.id == text)
        return (Address(text, parts, by_id=True), meant) if meant else None


def places_in(graph: Graph) -> Iterator[Place]:
    """Give every step of a workflow, as written."""
    yield from _places("", graph.root.steps)
    yield from _places("on_failure.", graph.on_failure.steps)


def parts_of(path: str) -> tuple[Part, ...] | None:
    """Take a path apart; None when it is none.

    >>> parts_of("fan[2].score")
    (Part(name='fan', iteration='2'), Part(name='score', iteration=''))
    """
    matches = [_PART.fullmatch(each) for each in path.split(".")]
    return tuple(Part(each[1], each[2] or "") for each in matches if each) if all(matches) else None


def _places(prefix: str, steps: tuple[Step, ...]) -> Iterator[Place]:
    for step in steps:
        path = f"{prefix}{step.id}"
        yield Place(path, step)
        for key, inner in lists_of(step):
            scope = f"{path}[{_ANY}]" if key == EACH else f"{path}[{key}]" if key.isdecimal() else f"{path}.{key}"
            yield from _places(f"{scope}.", inner)


def _fits(written: tuple[Part, ...], pattern: tuple[Part, ...]) -> bool:
    return len(written) == len(pattern) and all(
        one.name == other.name and (one.iteration == other.iteration or other.iteration == _ANY)
        for one, other in zip(written, pattern, strict=True)
    )


def _covers(written: Part, actual: Part) -> bool:
    return written.name == actual.name and written.iteration in ("", _ANY, actual.iteration)
