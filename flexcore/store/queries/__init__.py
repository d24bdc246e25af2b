"""Named SQL: every statement of the store stands in a `.sql` file here, under a name and one sentence that says why.

Files beside this module are for every dialect; a dialect's folder holds only what differs. The form is

    -- name: append_history :many
    -- One sentence why.
    INSERT …;

`:many` takes a list of rows, `:rows` gives rows, `:one` gives at most one, `:count` is judged by how many rows changed.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

Queries: TypeAlias = Mapping[str, str]

_NAME = re.compile(r"^-- name: (?P<name>[a-z_]+) :(?P<kind>many|rows|one|count)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Query:
    """A statement with its name, its kind and the reason it is there."""

    name: str
    kind: str
    comment: str
    sql: str


def read_queries(dialect: str) -> tuple[Query, ...]:
    """Read every query that a dialect has, shared ones first."""
    folder = Path(__file__).parent
    files = [*sorted(folder.glob("*.sql")), *sorted((folder / dialect).glob("*.sql"))]
    return tuple(query for file in files for query in _parse(file.read_text(encoding="utf-8")))


def load(dialect: str) -> Queries:
    """Give the statements of a dialect by name; one in the dialect's folder stands for a shared one of that name."""
    return {query.name: query.sql for query in read_queries(dialect)}


def _parse(text: str) -> Iterator[Query]:
    headings = list(_NAME.finditer(text))
    ends = [heading.start() for heading in headings[1:]] + [len(text)]
    for heading, end in zip(headings, ends, strict=True):
        lines = text[heading.end() : end].strip().splitlines()
        comment = " ".join(line.removeprefix("--").strip() for line in lines if line.startswith("--"))
        sql = "\n".join(line for line in lines if not line.startswith("--")).strip().removesuffix(";")
        yield Query(heading["name"], heading["kind"], comment, sql)
