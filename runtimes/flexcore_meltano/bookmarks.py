"""What a Singer state says: where each stream goes on from, and the same state with a stream set back.

Pure. Knows the bookmarks of the Singer SDK (`replication_key_value`, also per partition) and the flat ones of older
taps (`{"updated_at": …}`). Never guesses: a bookmark that cannot be compared with what was asked for is refused.
"""

import copy
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

_KEY, _VALUE, _PARTITIONS, _UNFINISHED = "replication_key", "replication_key_value", "partitions", "progress_markers"
_DATE_LENGTH = len("2026-01-31")
_DATE = re.compile(r"\d{4}-\d\d-\d\d")  # the standard has other forms, which taps do not read
_WHOLE = re.compile(r"-?[0-9]+")
_ABOUT_THE_STREAM = frozenset(
    {"version", "last_replication_method", "initial_full_table_complete", "starting_replication_value", _KEY}
    | {"replication_key_signpost", _UNFINISHED, _PARTITIONS}
)


class CannotRewind(Exception):
    """The stream cannot be set back as asked: `message` says why, `hint` what would work."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """Where the next run goes on with one stream, or with one partition of it. Value None: from the beginning."""

    stream: str
    partition: Mapping[str, Any] | None
    key: str | None
    value: Any
    unfinished: bool  # the last run got further, but not in an order that can be gone on from

    def document(self) -> dict[str, Any]:
        """Give it as a plain document."""
        return {
            "stream": self.stream,
            "partition": dict(self.partition) if self.partition is not None else None,
            "key": self.key,
            "value": self.value,
            "unfinished": self.unfinished,
        }


def starts(state: Any) -> list[Start]:
    """Say from where the next run would go on, stream by stream."""
    return [start for stream, bookmark in _bookmarks(state).items() for start in _starts(stream, bookmark)]


def rewound(state: Any, stream: str, text: str, key: str | None = None) -> Any:
    """Give the state with every bookmark of a stream set back to a value. Raises CannotRewind."""
    changed = copy.deepcopy(state)
    bookmarks = _bookmarks(changed)
    if stream not in bookmarks:
        raise CannotRewind(f"the state has no stream '{stream}'", f"streams there: {', '.join(bookmarks) or 'none'}")
    places = [place for part in _parts(bookmarks[stream]) for place in _places(part, key)]
    if not places:
        wanted = f" '{key}'" if key else ""
        raise CannotRewind(f"stream '{stream}' has no bookmark{wanted} to set back", "it is read from the beginning")
    names = {name for _, name in places}
    if len(names) > 1:
        raise CannotRewind(f"stream '{stream}' has several bookmarks", f"choose one by --key: {', '.join(names)}")
    for part, name in places:
        part[name] = _set_back(part[name], text, f"{stream}: {_shown_key(part, name)}")
        part.pop(_UNFINISHED, None)
    return changed


def differences(before: Any, after: Any, where: str = "") -> Iterator[dict[str, Any]]:
    """Say what differs between two states, place by place; what is not there is null."""
    if before == after:
        return
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            yield from differences(before.get(key), after.get(key), f"{where}.{key}" if where else str(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for number, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    else:
        yield {"where": where, "before": before, "after": after}


def _bookmarks(state: Any) -> dict[str, dict[str, Any]]:
    found = state.get("bookmarks") if isinstance(state, Mapping) else None
    return (
        {str(name): each for name, each in found.items() if isinstance(each, dict)} if isinstance(found, dict) else {}
    )


def _starts(stream: str, bookmark: dict[str, Any]) -> Iterator[Start]:
    for part in _parts(bookmark):
        places = _places(part, None)
        context = part.get("context") if part is not bookmark else None
        for _, name in places or [(part, "")]:
            yield Start(
                stream=stream,
                partition=context if isinstance(context, Mapping) else None,
                key=_shown_key(part, name) or None,
                value=part.get(name),
                unfinished=_UNFINISHED in part,
            )


def _parts(bookmark: dict[str, Any]) -> list[dict[str, Any]]:
    """Give what holds bookmarks: the partitions where there are some, and the stream itself where it has one."""
    partitions = bookmark.get(_PARTITIONS)
    parts = [each for each in partitions if isinstance(each, dict)] if isinstance(partitions, list) else []
    return [*([bookmark] if _places(bookmark, None) or not parts else []), *parts]


def _places(part: dict[str, Any], key: str | None) -> list[tuple[dict[str, Any], str]]:
    if _VALUE in part:
        return [(part, _VALUE)] if key in (None, _VALUE, part.get(_KEY)) and _is_position(part[_VALUE]) else []
    names = [name for name, value in part.items() if name not in _ABOUT_THE_STREAM and _is_position(value)]
    return [(part, name) for name in names if key in (None, name)]


def _is_position(value: Any) -> bool:
    return isinstance(value, str | int | float) and not isinstance(value, bool)


def _shown_key(part: Mapping[str, Any], name: str) -> str:
    return str(part.get(_KEY) or name) if name in (_VALUE, "") and part.get(_KEY) else name


def _set_back(current: Any, text: str, what: str) -> Any:
    """Read the wanted value in the type and form of the current one."""
    wanted: Any
    if isinstance(current, int | float):
        wanted = _number(text, what)
        later = wanted > current
    elif _WHOLE.fullmatch(current):
        wanted = str(int(_number(text, what)))
        later = int(wanted) > int(current)
    elif (moment := _moment(current)) is not None:
        wanted = _dated(text, current, what)
        later = (_moment(wanted) or moment) > moment
    else:
        raise CannotRewind(f"{what} is {current!r}, which has no order to go back in", "give the whole state by `set`")
    if later:
        raise CannotRewind(f"{what} is at {current}: {text} is not back but ahead", "to skip data, use `set`")
    return wanted


def _number(text: str, what: str) -> int | float:
    try:
        number = int(text) if _WHOLE.fullmatch(text) else float(text)
    except ValueError as error:
        raise CannotRewind(f"{what} is a number, and '{text}' is none") from error
    if not math.isfinite(number):
        raise CannotRewind(f"{what} is a number, and '{text}' is none that a state can hold")
    return int(number) if number == int(number) else number


def _moment(text: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _dated(text: str, current: str, what: str) -> str:
    """Complete a date to the form that the tap itself writes: some read nothing else."""
    if _moment(text) is None or not _DATE.match(text):
        raise CannotRewind(f"{what} is a time ({current}), and '{text}' is none", "write for example 2026-01-31")
    if len(current) <= _DATE_LENGTH:
        return text
    zone = "Z" if current.endswith("Z") else current[-6:] if current[-6:-5] in ("+", "-") else ""
    if len(text) == _DATE_LENGTH:
        return f"{text}{current[_DATE_LENGTH]}00:00:00{zone}"
    return text if datetime.fromisoformat(text).tzinfo else f"{text}{zone}"
