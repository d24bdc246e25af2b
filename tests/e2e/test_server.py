"""`flexcore server` as an operator and a web client meet it."""

import json
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.cli_session import TOKEN, Server, Session, server

from flexcore.testing.command import until

HELLO = """\
name: hello
inputs: {type: object, properties: {n: {type: integer, default: 1}}}
steps:
  - {id: one, type: bash, with: {script: 'echo "$1"', args: ["${{ input.n }}"]}}
  - {id: two, type: transform, with: {value: "${{ results.one + 1 }}"}}
output: ${{ results.two }}
"""
# Goes on until a file appears, and writes down every time that it began.
WAITS = """\
name: waits
inputs: {type: object, properties: {folder: {type: string}}}
steps:
  - id: work
    type: bash
    with:
      script: 'echo begun >> "$1/begun"; while [ ! -e "$1/go" ]; do sleep 0.05; done; echo 7'
      args: ["${{ input.folder }}"]
output: ${{ results.work }}
"""
OPEN = [("GET", "/healthz"), ("GET", "/readyz")]
GUARDED = [
    ("GET", "/metrics"),
    ("GET", "/openapi.json"),
    ("GET", "/api/v1/workflows"),
    ("PUT", "/api/v1/workflows/hello"),
    ("POST", "/api/v1/workflows/hello/executions"),
    ("GET", "/api/v1/executions"),
    ("POST", "/api/v1/executions/exe_1:cancel"),
    ("GET", "/api/v1/executions/exe_1/stream"),
    ("GET", "/api/v1/runtimes"),
    ("POST", "/api/v1/runtimes/local:execute"),
    ("GET", "/api/v1/nothing/of/the/kind"),
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    with server(tmp_path_factory.mktemp("server"), FLEXCORE_SERVER__TOKEN=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def http(running: Server) -> Iterator[httpx.Client]:
    with client(running) as http:
        deployed(http, "hello", HELLO)
        yield http


def client(running: Server, token: str | None = TOKEN) -> httpx.Client:
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    return httpx.Client(base_url=f"http://{running.http}", headers=headers, timeout=30, trust_env=False)


def deployed(http: httpx.Client, name: str, text: str) -> None:
    answer = http.put(f"/api/v1/workflows/{name}", content=text, headers={"Content-Type": "application/yaml"})
    assert answer.is_success, answer.text


def events_of(http: httpx.Client, id: str, after: int | None = None) -> list[dict[str, Any]]:
    """Read an execution's stream to its end: the history entries with their ids."""
    headers = {} if after is None else {"Last-Event-ID": str(after)}
    text = http.get(f"/api/v1/executions/{id}/stream", headers=headers).text
    blocks = [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in text.split("\n\n")]
    return [{**json.loads(block["data"]), "id": int(block["id"])} for block in blocks if "id" in block]


def test_the_token_is_shown_at_the_first_start_only(tmp_path: Path) -> None:
    with server(tmp_path) as first:
        token = re.findall(r"^token, shown only now: (\S+)$", first.said, re.MULTILINE)
        known = client(first, token[0]).get("/api/v1/workflows").status_code
    with server(tmp_path) as second:
        still_known = client(second, token[0]).get("/api/v1/workflows").status_code
        said = second.said

    assert (len(token), known, still_known) == (1, 200, 200)
    assert len(token[0]) >= 32
    assert "shown only now" not in said
    assert token[0] not in said
    assert token[0] not in (tmp_path / "home" / "flexcore.db").read_bytes().decode("latin-1")


@pytest.mark.parametrize(("method", "path"), OPEN)
def test_health_is_open(running: Server, method: str, path: str) -> None:
    assert client(running, None).request(method, path).status_code == 200


@pytest.mark.parametrize(("method", "path"), GUARDED)
@pytest.mark.parametrize("token", [None, "guessed", TOKEN[:-1]])
def test_everything_else_wants_the_token(running: Server, method: str, path: str, token: str | None) -> None:
    answer = client(running, token).request(method, path)

    assert answer.status_code == 401
    assert answer.headers["content-type"].startswith("application/problem+json")
    assert answer.json()["code"] == "unauthenticated"


@pytest.mark.parametrize("option", ["--http", "--grpc"])
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0"])
def test_addresses_beyond_loopback_are_refused(tmp_path: Path, option: str, address: str) -> None:
    done = Session(tmp_path)("server", option, address)

    assert (done.code, done.out) == (5, "")
    assert address in done.err
    assert "reachable from other machines" in done.err


@pytest.mark.parametrize("option", ["--http", "--grpc"])
def test_a_port_that_is_taken_exits_with_3(tmp_path: Path, option: str) -> None:
    other = {"--http": "--grpc", "--grpc": "--http"}[option]
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        done = Session(tmp_path)("server", option, address, other, "127.0.0.1:0")

    assert done.code == 3
    assert address in done.err


def test_figures_and_readiness_are_told(http: httpx.Client) -> None:
    http.post("/api/v1/workflows/hello/executions", json={}, params={"wait": "20s"})

    ready, metrics = http.get("/readyz").json(), http.get("/metrics").text

    assert ready["status"] in ("ready", "ok")
    assert re.search(r"^flexcore_\w+(\{.*\})? [\d.e+]+$", metrics, re.MULTILINE)


def test_a_start_that_waits_gives_the_document(http: httpx.Client) -> None:
    answer = http.post("/api/v1/workflows/hello/executions", json={"input": {"n": 4}}, params={"wait": "20s"})

    assert answer.status_code == 200
    assert (answer.json()["status"], answer.json()["output"]) == ("succeeded", 5)


def test_a_key_starts_one_execution(http: httpx.Client) -> None:
    def start(n: int) -> httpx.Response:
        key = {"Idempotency-Key": "monday"}
        return http.post("/api/v1/workflows/hello/executions", json={"input": {"n": n}}, headers=key)

    first, again, other = start(1), start(1), start(2)

    assert (first.status_code, other.status_code) == (202, 409)
    assert first.json()["id"] == again.json()["id"]
    assert other.json()["code"]


def test_a_stream_goes_on_where_it_was_left(http: httpx.Client) -> None:
    started = http.post("/api/v1/workflows/hello/executions", json={}, params={"wait": "20s"}).json()

    whole = events_of(http, started["id"])
    middle = whole[len(whole) // 2]["id"]
    rest = events_of(http, started["id"], after=middle)

    assert [each["id"] for each in whole] == list(range(1, len(whole) + 1))
    assert rest == [each for each in whole if each["id"] > middle]
    assert whole[-1]["type"] == "ExecutionSucceeded"


@pytest.mark.parametrize(
    ("send", "status"),
    [
        ({"content": b"{oops", "headers": {"Content-Type": "application/json"}}, 400),
        ({"json": {"inputs": {}}}, 422),
        ({"json": {"input": {"n": "many"}}}, 422),
    ],
)
def test_what_cannot_be_started_is_a_problem_document(http: httpx.Client, send: dict[str, Any], status: int) -> None:
    answer = http.post("/api/v1/workflows/hello/executions", **send)

    assert answer.status_code == status
    assert answer.json()["code"]


def test_a_stopped_server_leaves_work_running_and_the_next_one_finishes_it(tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    with server(tmp_path, FLEXCORE_SERVER__TOKEN=TOKEN) as first, client(first) as http:
        deployed(http, "waits", WAITS)
        body = {"input": {"folder": str(tmp_path)}}
        id = http.post("/api/v1/workflows/waits/executions", json=body).json()["id"]
        until(begun.exists, "the step has begun")
        code = first.terminate()
    with server(tmp_path, FLEXCORE_SERVER__TOKEN=TOKEN) as second, client(second) as http:
        taken_over = until(lambda: document(http, id)["owner_alive"] and document(http, id), "the work is taken over")
        (tmp_path / "go").touch()
        ended = until(lambda: (found := document(http, id))["finished_at"] and found, "the end")

    assert code == 0
    assert taken_over["status"] == "running"
    assert (ended["status"], ended["output"], ended["steps"][0]["attempt"]) == ("succeeded", 7, 1)
    assert begun.read_text() == "begun\n"


def document(http: httpx.Client, id: str) -> Any:
    return http.get(f"/api/v1/executions/{id}").json()
