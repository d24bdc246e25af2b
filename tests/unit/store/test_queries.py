"""SQL stands in files, each statement under one name, with a reason, used in one place."""

import re
import sqlite3
from pathlib import Path

import pytest

import flexcore.store
from flexcore.store.queries import Query, load, read_queries
from flexcore.store.sqlite_schema import migrations

QUERIES = read_queries("sqlite")


@pytest.fixture(scope="module")
def schema() -> sqlite3.Connection:
    connection = sqlite3.connect(":memory:")
    connection.execute(load("sqlite")["create_schema_versions"])
    for migration in migrations():
        connection.executescript(migration.sql)
    return connection


def test_every_name_is_there_once() -> None:
    names = [query.name for query in QUERIES]

    assert sorted(set(names)) == sorted(names)


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_query_is_used_in_exactly_one_module(query: Query) -> None:
    folder = Path(flexcore.store.__file__).parent
    users = [
        path.name for path in sorted(folder.rglob("*.py")) if f'sql["{query.name}"]' in path.read_text(encoding="utf-8")
    ]

    assert len(users) == 1


def test_no_code_asks_for_a_query_that_is_not_there() -> None:
    folder = Path(flexcore.store.__file__).parent
    asked = {
        name
        for path in folder.rglob("*.py")
        for name in re.findall(r'sql\["(\w+)"\]', path.read_text(encoding="utf-8"))
    }

    assert asked == {query.name for query in QUERIES}


def test_no_sql_stands_in_code() -> None:
    folder = Path(flexcore.store.__file__).parent
    statement = re.compile(r'"(SELECT|INSERT INTO|UPDATE|DELETE FROM|CREATE TABLE) ')

    assert [path.name for path in folder.rglob("*.py") if statement.search(path.read_text(encoding="utf-8"))] == []


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_query_says_why_in_a_sentence(query: Query) -> None:
    assert len(query.comment.split()) >= 4
    assert query.comment.endswith(".")


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.name)
def test_every_query_fits_the_schema(query: Query, schema: sqlite3.Connection) -> None:
    names = set(re.findall(r"[:?](\w+)", query.sql))
    parameters: object = dict.fromkeys(names) if ":" in query.sql else (None,) * len(names)

    schema.execute(f"EXPLAIN {query.sql}", parameters)  # type: ignore[arg-type]  # either form is right
