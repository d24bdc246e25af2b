"""Everything found wrong in one text, gathered so that its author hears of all of it at once."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from flexcore.language.problem import Problem, suggestion
from flexcore.model.errors import Diagnostic
from flexcore.model.template import Position

LIMIT = 200
_LISTED = 40
_CANDIDATES = 500  # a spelling is compared with at most so many, or one bad file would take seconds


class Findings:
    """Collects problems of one text. From LIMIT on they are dropped, and a last one says so."""

    def __init__(self, file_name: str) -> None:
        self._file_name = file_name
        self._found: set[Diagnostic] = set()
        self._path: list[str] = []

    @contextmanager
    def within(self, step: str) -> Iterator[None]:
        """Say which step the problems found inside belong to."""
        self._path.append(step)
        try:
            yield
        finally:
            self._path.pop()

    def report(self, position: Position, message: str, code: str, hint: str = "") -> None:
        """Note a problem. The same problem at the same place counts once."""
        if self.is_full:
            return
        path = self._path[-1] if self._path else ""
        self._found.add(Diagnostic(self._file_name, position.line, position.column, message, code, hint, path))

    def add(self, problem: Problem, position: Position | None = None) -> None:
        """Note a problem of an expression; `position` where its own is only an estimate."""
        self.report(position or problem.position, problem.message, problem.code, problem.hint)

    @property
    def is_full(self) -> bool:
        """Tell whether looking further is of no use."""
        return len(self._found) >= LIMIT

    def sorted(self) -> list[Diagnostic]:
        """Give everything found, in the order of the text."""
        found = sorted(self._found)
        if self.is_full:
            last = found[-1]
            message = f"too many problems: only {LIMIT} are shown"
            found.append(Diagnostic(last.file, last.line, last.column, message, "too-many-problems"))
        return found


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Give a hint with the known word that was probably meant, else `otherwise`, else all known words when few."""
    candidates = alike(word, known)
    if len(candidates) > _LISTED:
        otherwise = otherwise or "no known name is like it"
    return suggestion(word[:100], candidates, otherwise)


def alike(word: str, known: Iterable[str]) -> frozenset[str]:
    """Give the known words; when they are many, only as many as can be compared with a word in reasonable time."""
    words = frozenset(known)
    if len(words) <= _CANDIDATES:
        return words
    near = (each for each in words if abs(len(each) - len(word)) <= 1 and each[:1] == word[:1])
    return frozenset(sorted(near)[:_CANDIDATES])


def shortened(text: str, limit: int = 60) -> str:
    """Shorten what is quoted in a message, so that no message is longer than a line or two."""
    return text if len(text) <= limit else f"{text[: limit - 1]}…"
