"""Output of steps as a person reads it: whole lines, however they were cut, and JSON log lines as their message.

Changes only what is shown: the record stays as it was written. Pure.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flexcore.cli.render import clean

_LONGEST_OPEN = 64 * 1024
_METRIC = "METRIC: "
_MARK = "flexcore"
_SHOWN_LEVELS = {"warning": "warning: ", "error": "error: ", "critical": "error: "}


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line to show, without line ends inside. Bookkeeping is for the record: progress leaves it out."""

    text: str
    is_bookkeeping: bool = False


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


def read(line: str) -> Sequence[LogLine]:
    """Read a line: a JSON log line becomes `name: event` with its level where that matters, any other stays.

    >>> read('{"event": "2 rows skipped", "name": "tap-flights", "level": "warning"}')
    [LogLine(text='warning: tap-flights: 2 rows skipped', is_bookkeeping=False)]
    """
    event = _log_event(line)
    if event is None:
        return [LogLine(clean(line))]
    name, message, level = event.get("name"), event["event"], event["level"].lower()
    is_bookkeeping = message.startswith(_METRIC) or (_MARK in event and level not in _SHOWN_LEVELS)
    start = _SHOWN_LEVELS.get(level, "") + (f"{name}: " if isinstance(name, str) and name else "")
    details = event.get("exception")
    lines = [*message.splitlines(), *(details.splitlines() if isinstance(details, str) else ())] or [""]
    return [
        LogLine(clean(f"{start if number == 0 else '  '}{each}"), is_bookkeeping) for number, each in enumerate(lines)
    ]


def _log_event(line: str) -> Mapping[str, Any] | None:
    """Give the fields of a JSON log line. One without a level may be anybody's data: that is shown as it is."""
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found.get("event"), str) and isinstance(found.get("level"), str) else None
