"""Results on stdout: text for people, or one JSON or YAML document. Nothing but results is ever written there.

Text that comes from outside loses its control characters; colours appear on a terminal only, and never with NO_COLOR.
"""

import json
import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TextIO

from flexcore.cli.options import Options, Output
from flexcore.model.units import format_size

_ESCAPE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-_])")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
_COLOURS = {
    "succeeded": "32", "up": "32", "ok": "32",
    "failed": "31", "down": "31", "error": "31",
    "running": "36", "pending": "33", "suspended": "33", "cancelled": "33", "degraded": "33",
    "warning": "33", "taken": "32", "changed": "33", "lost": "31",
    "skipped": "2", "waiting": "2",
}  # fmt: skip
_MINUTE = 60
_HOUR = 3600


def emit(options: Options, document: object, text: str | Iterable[str]) -> None:
    """Print a result in the form that was asked for. `text` is what a person reads."""
    match options.output:
        case Output.JSON:
            sys.stdout.write(json.dumps(document, indent=2, ensure_ascii=False) + "\n")
        case Output.YAML:
            import yaml  # slow to load, seldom needed

            yaml.safe_dump(document, sys.stdout, sort_keys=False, allow_unicode=True, width=120)
        case Output.TEXT:
            lines = [text] if isinstance(text, str) else text
            sys.stdout.write("".join(f"{line}\n" for line in lines))
    sys.stdout.flush()


def say(message: str) -> None:
    """Tell the person something that is not the result: to stderr."""
    sys.stderr.write(f"{message}\n")
    sys.stderr.flush()


def clean(text: str) -> str:
    """Take terminal escapes and control characters out of foreign text; tabs and line ends stay."""
    return _CONTROL.sub("", _ESCAPE.sub("", text.replace("\r\n", "\n")))


def has_colours(stream: TextIO) -> bool:
    """Say whether a stream shows colours."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(word: str, stream: TextIO | None = None) -> str:
    """Colour a status word where colours are shown."""
    target = stream or sys.stdout
    code = _COLOURS.get(word)
    return f"\x1b[{code}m{word}\x1b[0m" if code and has_colours(target) else word


def table(headers: Sequence[str], rows: Iterable[Sequence[Any]], *, right: Iterable[int] = ()) -> list[str]:
    """Lay rows out in columns under headers; the columns numbered in `right` are aligned there."""
    cells = [list(headers), *([_cell(each) for each in row] for row in rows)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(headers))]
    to_the_right = set(right)
    lines = []
    for number, row in enumerate(cells):
        padded = [
            cell.rjust(width) if column in to_the_right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        if number:
            padded = [cell.replace(cell.strip(), painted(cell.strip())) if cell.strip() else cell for cell in padded]
        lines.append("  ".join(padded).rstrip())
    return lines


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, list | tuple):
        return clean(", ".join(map(str, value)))
    return clean(str(value)).replace("\n", " ")


def seconds(value: float | None) -> str:
    """Show a time span: `0.35s`, `12.3s`, `4m05s`, `2h03m`."""
    if value is None:
        return ""
    if value < 10:
        return f"{value:.2f}s"
    if value < _MINUTE:
        return f"{value:.1f}s"
    if value < _HOUR:
        return f"{int(value) // _MINUTE}m{int(value) % _MINUTE:02}s"
    return f"{int(value) // _HOUR}h{int(value) % _HOUR // _MINUTE:02}m"


def count(value: float | None) -> str:
    """Show a number of things: `27,004`."""
    return "" if value is None else f"{int(value):,}"


def size(value: float | None) -> str:
    """Show a number of bytes: `27.4MB`."""
    return "" if value is None else format_size(int(value))


def pretty(value: object) -> str:
    """Show a JSON value to a person: text as it is, anything else indented."""
    return clean(value) if isinstance(value, str) else json.dumps(value, indent=2, ensure_ascii=False)


def listing(options: Options, items: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str) -> None:
    """Print a list of documents as a table of some of their keys; nested ones by `a.b`."""
    rows = [[_at(item, column) for column in columns] for item in items]
    headers = [column.rpartition(".")[2].removesuffix("_s").replace("_", " ").upper() for column in columns]
    emit(options, [dict(item) for item in items], table(headers, rows) if items else empty)


def _at(document: Mapping[str, Any], column: str) -> Any:
    value: Any = document
    for key in column.split("."):
        value = value.get(key) if isinstance(value, Mapping) else None
    if column.endswith("duration_s"):
        return seconds(value)
    return str(value).lower() if isinstance(value, bool) else value
