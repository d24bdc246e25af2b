"""Output of steps as a person reads it: whole lines, however they were cut, and JSON log lines as their message.

Changes only what is shown: the record stays as it was written. Pure.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexcore.cli.render import clean, painted
from flexcore.model.log_records import LogLevel, LogRecord, is_as_severe, log_record

_LONGEST_OPEN = 64 * 1024
_LONGEST_VALUE = 200
_METRIC = "METRIC: "
_MARK = "flexcore"
_SHOWN_LEVELS = {"warning": "warning", "error": "error", "critical": "error"}
_DETAILS = ("exception", "exc_info", "stack_info")
_OF_MELTANO = frozenset({"run_id", "_logger", "stdio", "string_id", _MARK})  # its lines say in words what matters
_ABOUT_THE_PROCESS = frozenset(
    {"name", "logger", "logger_name", "pid", "hostname", "v", "process", "processName", "thread", "threadName"}
    | {"taskName", "module", "funcName", "func_name", "lineno", "filename", "pathname", *_DETAILS}
)


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line to show, without line ends inside. Bookkeeping is for the record: progress leaves it out."""

    text: str
    is_bookkeeping: bool = False
    level: str | None = None

    def coloured(self) -> str:
        """Give the text with its level in colour, where stdout shows colours."""
        word = _SHOWN_LEVELS.get(self.level or "", "")
        start = f"{word}: "
        return (
            f"{painted(word)}: {self.text.removeprefix(start)}" if word and self.text.startswith(start) else self.text
        )


@dataclass(slots=True)
class LogLines:
    """Puts pieces of output together to lines, for each step and stream by itself."""

    _open: dict[tuple[str, str], str] = field(default_factory=dict)

    def take(self, piece: Mapping[str, Any]) -> Sequence[LogLine]:
        """Take a piece in; give the lines that it completes."""
        key = (str(piece.get("path", "")), str(piece.get("stream", "")))
        *whole, rest = (self._open.pop(key, "") + str(piece.get("text", ""))).split("\n")
        if len(rest) > _LONGEST_OPEN:
            whole, rest = [*whole, rest], ""
        if rest:
            self._open[key] = rest
        return [line for each in whole for line in read(each)]

    def rest(self, path: str) -> Sequence[LogLine]:
        """Give the lines of a step that nothing will end any more."""
        keys = [key for key in self._open if key[0] == path]
        return [line for key in keys for line in read(self._open.pop(key))]

    def open_paths(self) -> Sequence[str]:
        """Name the steps with an unfinished line."""
        return list(dict.fromkeys(path for path, _ in self._open))


def records(pieces: Iterable[Mapping[str, Any]], least: LogLevel) -> list[dict[str, Any]]:
    """Give the JSON lines of a level, or of a higher one, in pieces of output, each with where it was written."""
    return [
        {"path": piece["path"], "attempt": piece.get("attempt"), "stream": piece["stream"], **line}
        for piece in pieces
        for line in piece.get("lines") or ()
        if is_as_severe(line["level"], least)
    ]


def read(line: str) -> Sequence[LogLine]:
    """Read a line: a JSON log line becomes `name: event key=value`, with its level where that matters.

    Any other line stays as it is.

    >>> read('{"event": "2 rows skipped", "name": "tap-flights", "level": "warning"}')[0].text
    'warning: tap-flights: 2 rows skipped'
    """
    record = log_record(line)
    if record is None or record.level is None or record.message is None:
        # One without a level may be anybody's data.
        return [LogLine(clean(line))]
    level, name = record.level, record.fields.get("name") or record.fields.get("logger")
    is_bookkeeping = record.message.startswith(_METRIC) or (_MARK in record.fields and level not in _SHOWN_LEVELS)
    start = f"{_SHOWN_LEVELS[level]}: " if level in _SHOWN_LEVELS else ""
    start += f"{name}: " if isinstance(name, str) and name else ""
    first, *further = [*record.message.splitlines(), *_details(record)] or [""]
    texts = [f"{start}{first}{_further_keys(record)}", *(f"  {each}" for each in further)]
    return [LogLine(clean(each), is_bookkeeping, level) for each in texts]


def _details(record: LogRecord) -> list[str]:
    found = (record.fields.get(key) for key in _DETAILS)
    return [line for each in found if isinstance(each, str) for line in each.splitlines()]


def _further_keys(record: LogRecord) -> str:
    """Spell the keys that only this line has, values of one word or number as they are."""
    if not _OF_MELTANO.isdisjoint(record.fields):
        return ""
    own = {key: value for key, value in record.fields.items() if key not in _ABOUT_THE_PROCESS}
    return "".join(f" {key}={_shown(value)}" for key, value in own.items())


def _shown(value: object) -> str:
    text = value if isinstance(value, str) and value and not set(value) & set(' \t\n"=') else json.dumps(value)
    return text if len(text) <= _LONGEST_VALUE else f"{text[: _LONGEST_VALUE - 1]}…"
