"""A line of output as a log record: what JSON logs of all makes have in common, and the keys that are their own.

Reads one line and decides nothing. The line itself stays the record; this is only how it is understood.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from flexcore.model.values import JSON


class LogLevel(StrEnum):
    """From the least to the most severe."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


_ORDER = tuple(each.value for each in LogLevel)
_LEVEL_KEYS = ("level", "levelname", "severity", "log.level", "lvl")
_MESSAGE_KEYS = ("event", "message", "msg")
_TIME_KEYS = ("timestamp", "time", "@timestamp", "asctime", "ts")
_SPELLINGS = {"warn": "warning", "err": "error", "fatal": "critical", "crit": "critical", "trace": "debug"}


@dataclass(frozen=True, slots=True)
class LogRecord:
    """A line that is a JSON object. What it does not say is None; `fields` are its other keys."""

    level: str | None
    message: str | None
    time: JSON
    fields: Mapping[str, JSON]

    def document(self) -> dict[str, JSON]:
        """Give it as a plain document."""
        return {"level": self.level, "message": self.message, "time": self.time, "fields": dict(self.fields)}


def log_record(line: str) -> LogRecord | None:
    """Read a line; None when it is not a JSON object.

    >>> log_record('{"level": "WARN", "msg": "slow", "ms": 12}')
    LogRecord(level='warning', message='slow', time=None, fields={'ms': 12})
    """
    if not line.startswith("{"):
        return None
    try:
        found = json.loads(line, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, dict):
        return None
    level = _taken(found, _LEVEL_KEYS)
    message = _taken(found, _MESSAGE_KEYS)
    time = next((found.pop(key) for key in _TIME_KEYS if isinstance(found.get(key), str | int | float)), None)
    return LogRecord(None if level is None else _level(level), message, time, found)


def is_as_severe(level: str | None, least: LogLevel) -> bool:
    """Say whether a level is known and no less severe than another."""
    return level in _ORDER and _ORDER.index(level) >= _ORDER.index(least)


def _taken(found: dict[str, Any], keys: tuple[str, ...]) -> str | None:
    key = next((key for key in keys if isinstance(found.get(key), str)), None)
    return None if key is None else str(found.pop(key))


def _level(word: str) -> str:
    """Spell a level the way we do; numbers mean different things to different libraries and stay fields."""
    plain = word.strip().lower()
    return _SPELLINGS.get(plain, plain)


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")
