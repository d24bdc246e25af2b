"""The http and sql steps: against a real server on the loopback, and real SQLite files."""

import base64
import json
import socket
import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any
from urllib.parse import urlsplit

import pytest
from flexcore_local import run_http, run_sql
from local_steps import Local

from flexcore.model.failure import ErrorClass


class Answers(BaseHTTPRequestHandler):
    """`/status/N` answers N, `/echo` what was sent, `/binary` bytes, `/large` too much, `/hang` nothing."""

    def do_GET(self) -> None:
        path = urlsplit(self.path)
        match path.path.split("/")[1:]:
            case ["status", code]:
                self.reply(int(code), b"no such thing", "text/plain", {"Retry-After": "7"})
            case ["echo"]:
                body = self.rfile.read(int(self.headers.get("content-length", 0))).decode()
                echo = {"method": self.command, "query": path.query, "body": body, "x": self.headers.get("x-mine")}
                self.reply(200, json.dumps(echo).encode(), "application/json; charset=utf-8")
            case ["moved"]:
                self.reply(302, b"", "text/plain", {"Location": "/status/200"})
            case ["binary"]:
                self.reply(200, bytes(range(256)), "application/octet-stream")
            case ["large"]:
                self.reply(200, b"x" * (run_http.MAX_BODY_BYTES + 1), "text/plain")
            case _:
                self.rfile.read(1)

    do_POST = do_PUT = do_GET

    def reply(self, status: int, body: bytes, media: str, headers: dict[str, str] | None = None) -> None:
        self.send_response(status)
        for name, value in {"Content-Type": media, "Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as serving:
        Thread(target=serving.serve_forever, args=(0.02,), daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


async def test_an_answer_becomes_the_result(local: Local, server: str) -> None:
    parameters = {"method": "post", "url": f"{server}/echo", "headers": {"X-Mine": 1}, "query": {"a": ["b c", 2]}}

    seen = await local.run("http", {**parameters, "json": {"k": None}})

    assert seen.output["status"] == 200
    assert seen.output["headers"]["content-type"].startswith("application/json")
    assert seen.output["json"] == {"method": "POST", "query": "a=b+c&a=2", "body": '{"k":null}', "x": "1"}


async def test_text_and_bytes_come_as_a_body(local: Local, server: str) -> None:
    text = await local.run("http", {"url": f"{server}/moved"})
    binary = await local.run("http", {"url": f"{server}/binary"})

    assert (text.output["status"], text.output["body"]) == (200, "no such thing")
    assert binary.output["encoding"] == "base64"
    assert base64.b64decode(binary.output["body"]) == bytes(range(256))


@pytest.mark.parametrize(
    ("status", "error_class", "retry_after"),
    [
        (503, ErrorClass.DEPENDENCY, 7.0),
        (429, ErrorClass.DEPENDENCY, 7.0),
        (404, ErrorClass.INPUT, 7.0),
    ],
)
async def test_an_unexpected_status_fails_by_class(
    local: Local, server: str, status: int, error_class: ErrorClass, retry_after: float
) -> None:
    failure = (await local.run("http", {"url": f"{server}/status/{status}?token=hidden"})).failure

    assert (failure.error_class, failure.retry_after, failure.name) == (error_class, retry_after, f"status {status}")
    assert "hidden" not in failure.message


@pytest.mark.parametrize("expect", [404, ["2xx", "4xx"], "404"])
async def test_any_status_can_be_expected(local: Local, server: str, expect: object) -> None:
    assert (await local.run("http", {"url": f"{server}/status/404", "expect": expect})).output["status"] == 404


async def test_what_does_not_answer_is_told_apart(local: Local, server: str) -> None:
    with socket.socket() as free:  # taken, and nobody listens
        free.bind(("127.0.0.1", 0))
        refused = await local.run("http", {"url": f"http://127.0.0.1:{free.getsockname()[1]}/"})

    silent = await local.run("http", {"url": f"{server}/hang", "timeout": "200ms"})
    large = await local.run("http", {"url": f"{server}/large"})

    assert refused.failure.error_class is ErrorClass.DEPENDENCY
    assert silent.failure.error_class is ErrorClass.TIMEOUT
    assert large.failure.name == "BodyTooLarge"


def test_retry_after_is_read_in_both_forms() -> None:
    now = datetime(2026, 1, 1, tzinfo=UTC)

    assert run_http.retry_after("120", now) == 120
    assert run_http.retry_after("Thu, 01 Jan 2026 00:01:00 GMT", now) == 60
    assert run_http.retry_after("soon", now) is None


def test_every_status_has_a_class() -> None:
    expected = {302: "user", 400: "input", 408: "dependency", 429: "dependency", 500: "dependency", 599: "dependency"}

    assert {status: run_http.status_class(status) for status in expected} == expected


SCRIPT = """
create table t (id integer primary key, name text, raw blob);
insert into t (name, raw) values (:name, x'00ff'), ('semi;colon', null);
-- the last statement's rows are the result;
select id, name, raw from t order by id
"""


async def test_a_script_gives_the_rows_of_its_last_statement(local: Local) -> None:
    seen = await local.run("sql", {"connection": "sqlite:///data.db", "script": SCRIPT, "params": {"name": "ü'; drop"}})

    assert seen.output == {
        "rows": [{"id": 1, "name": "ü'; drop", "raw": "AP8="}, {"id": 2, "name": "semi;colon", "raw": None}],
        "row_count": 2,
    }
    assert (local.folder / "data.db").exists()


async def test_a_failed_script_changes_nothing(local: Local) -> None:
    script = "create table t (n); insert into t values (1); select * from missing"

    seen = await local.run("sql", {"connection": "sqlite:///data.db", "script": script})

    assert seen.failure.error_class is ErrorClass.USER
    assert "missing" in seen.failure.message
    assert sqlite3.connect(local.folder / "data.db").execute("select * from sqlite_master").fetchall() == []


async def test_read_only_is_kept_by_the_connection(local: Local) -> None:
    sqlite3.connect(local.folder / "data.db").execute("create table t (n)")
    parameters = {"connection": "sqlite:///data.db", "read_only": True}

    written = await local.run("sql", {**parameters, "script": "insert into t values (1)"})
    read = await local.run("sql", {**parameters, "script": "select ? as n", "params": [5]})

    assert written.failure.name == "SQLITE_READONLY"
    assert written.failure.error_class is ErrorClass.USER
    assert read.output["rows"] == [{"n": 5}]


@pytest.mark.parametrize(
    ("connection", "script", "error_class"),
    [
        ("sqlite:///missing/data.db", "select 1", ErrorClass.DEPENDENCY),
        ("sqlite:///data.db", "selekt 1", ErrorClass.USER),
        ("oracle://x", "select 1", ErrorClass.INPUT),
        ("postgresql://127.0.0.1:1/none?connect_timeout=2", "select 1", ErrorClass.DEPENDENCY),
    ],
)
async def test_a_failure_of_sql_has_a_class(
    local: Local, connection: str, script: str, error_class: ErrorClass
) -> None:
    assert (await local.run("sql", {"connection": connection, "script": script})).failure.error_class is error_class


async def test_changed_rows_are_counted(local: Local) -> None:
    script = "create table t (n); insert into t values (1), (2), (3)"

    seen = await local.run("sql", {"connection": "sqlite:///data.db", "script": script})

    assert seen.output == {"rows": [], "row_count": 3}


def test_a_script_is_split_where_statements_end(tmp_path: Path) -> None:
    trigger = "create trigger a after insert on t begin update t set n = 1; select 2; end;"

    assert list(run_sql.statements(f"select ';' as \"a;b\"; {trigger} -- end;\n")) == [
        "select ';' as \"a;b\";",
        f" {trigger}",
    ]
