"""Files to typed records, row by row. Knows nothing of Singer.

An empty CSV field is null. A value that does not fit its column is an error that names file, line and column.
"""

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


class BadRow(Exception):
    """A row does not have the columns or types that the configuration promises."""


@dataclass(frozen=True, slots=True)
class Row:
    """A record, and how many bytes of the file it came from."""

    record: dict[str, Any]
    bytes: int


def read(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    """Read a `.csv` or `.jsonl` file. Raises BadRow at the first row that does not fit."""
    if path.suffix == ".csv":
        return _csv(path, columns)
    if path.suffix == ".jsonl":
        return _jsonl(path, columns)
    raise BadRow(f"{path}: neither .csv nor .jsonl")


def _csv(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    with path.open(encoding="utf-8", newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        if missing := [name for name in columns if name not in header]:
            raise BadRow(f"{path}:1: no column {', '.join(missing)}; there are {', '.join(header)}")
        places = [(name, header.index(name), _CASTS[kind]) for name, kind in columns.items()]
        for fields in reader:
            try:
                record = {name: cast(fields[at]) if fields[at] else None for name, at, cast in places}
            except (IndexError, ValueError) as error:
                raise BadRow(f"{path}:{reader.line_num}: {error}") from error
            yield Row(record, sum(map(len, fields)) + len(fields))


def _jsonl(path: Path, columns: Mapping[str, str]) -> Iterator[Row]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, start=1):
            try:
                values = json.loads(line)
                yield Row({name: values[name] for name in columns}, len(line.encode()))
            except (KeyError, TypeError, ValueError) as error:
                raise BadRow(f"{path}:{number}: {error!r}") from error


def _boolean(text: str) -> bool:
    return {"true": True, "false": False}[text.lower()]


_CASTS: Mapping[str, Any] = {"integer": int, "number": float, "string": str, "boolean": _boolean}
