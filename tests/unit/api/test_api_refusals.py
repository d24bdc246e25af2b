"""What is refused, and how each entrance says so."""

import json
from typing import Any

import httpx
import pytest
from conftest import LIMIT_BYTES, Running
from fake_plane import BROKEN, KNOWN, raised

from flexcore.api.errors import STATUSES, exit_code, http_status, statuses
from flexcore.common.errors import error_message, error_of
from flexcore.model.errors import (
    Diagnostic,
    FlexCoreError,
    IllegalTransition,
    InternalError,
    InvalidDefinition,
    InvalidInput,
    InvalidRequest,
    LimitExceeded,
    NoFeasibleRuntime,
    NotFound,
    StoreUnavailable,
)
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import Bundle

V1 = "/api/v1"


def tree(kind: type[FlexCoreError] = FlexCoreError) -> list[type[FlexCoreError]]:
    ours = [each for each in kind.__subclasses__() if each.__module__ == FlexCoreError.__module__]
    return [kind, *(below for each in ours for below in tree(each))]


def example(kind: type[FlexCoreError]) -> FlexCoreError:
    match kind:
        case _ if kind is InvalidDefinition:
            return InvalidDefinition(BROKEN)
        case _ if kind is InvalidInput:
            return InvalidInput("bad", hint="mend", diagnostics=BROKEN)
        case _ if kind is IllegalTransition:
            return IllegalTransition("ended", allowed=("running", "failed"))
        case _ if kind is NoFeasibleRuntime:
            return NoFeasibleRuntime("nobody can", reasons={"local": "too small"}, hint="more memory")
        case _ if kind is LimitExceeded:
            return LimitExceeded("too many", limit=3, actual=2**40, retry_after=1.5)
        case _:
            return kind("what and which", hint="what to do")


def particulars(error: FlexCoreError) -> dict[str, Any]:
    return {"code": error.code, **vars(error)}


def test_the_map_has_every_class_and_nothing_else() -> None:
    assert set(STATUSES) == set(tree())


def test_exit_codes_are_the_contracts() -> None:
    expected = {
        1: {"error", "internal"},
        2: {"invalid_request", "invalid_definition", "invalid_input", "invalid_settings", "not_found", "conflict",
            "already_exists", "illegal_transition", "fenced", "pool_full", "limit_exceeded", "no_feasible_runtime"},
        3: {"unavailable", "store_unavailable", "runtime_unavailable", "ambiguous"},
        5: {"unauthenticated", "permission_denied"},
    }  # fmt: skip
    found: dict[int, set[str]] = {}
    for kind in tree():
        found.setdefault(exit_code(example(kind)), set()).add(kind.code)
    assert found == expected


def test_a_class_below_a_known_one_is_mapped_like_it() -> None:
    class Foreign(NotFound): ...

    assert statuses(Foreign("x")) == STATUSES[NotFound]


def test_a_size_is_not_a_rate() -> None:
    assert http_status(LimitExceeded("long")) == 413
    assert http_status(LimitExceeded("many", retry_after=2)) == 429


@pytest.mark.parametrize("kind", tree(), ids=lambda kind: kind.__name__)
def test_errors_survive_the_wire(kind: type[FlexCoreError]) -> None:
    error = example(kind)

    again = error_of(error_message(error, "req_1"))

    assert raised(again) == raised(error)
    assert particulars(again) == particulars(error)


async def test_every_error_reaches_both_callers(server: Running) -> None:
    async with server.sdk() as sdk, server.http() as http:
        for kind in tree():
            server.plane.raising = error = example(kind)
            with pytest.raises(FlexCoreError) as refused:
                await sdk.execution(KNOWN)
            with pytest.raises(FlexCoreError) as while_watching:
                await anext(sdk.watch(KNOWN))
            assert raised(refused.value) == raised(while_watching.value) == raised(error)
            assert particulars(refused.value) == particulars(error)
            check_problem(await http.get(f"{V1}/executions/{KNOWN}"), error)


def check_problem(response: httpx.Response, error: FlexCoreError) -> None:
    problem = response.json()
    assert response.status_code == problem["status"] == http_status(error)
    assert response.headers["content-type"] == "application/problem+json"
    assert (problem["code"], problem["detail"], problem["hint"]) == (error.code, error.message, error.hint)
    assert ("www-authenticate" in response.headers) == (response.status_code == 401)
    assert ("retry-after" in response.headers) == (response.status_code in (429, 503))
    assert ("errors" in problem) == isinstance(error, InvalidDefinition | InvalidInput)


async def test_a_bug_is_told_without_its_text(server: Running) -> None:
    server.plane.raising = RuntimeError("password=hunter2")

    async with server.sdk() as sdk, server.http() as http:
        with pytest.raises(InternalError, match="an internal error") as refused:
            await sdk.execution(KNOWN)
        response = await http.get(f"{V1}/executions/{KNOWN}")

    assert response.status_code == 500
    assert response.json()["code"] == "internal"
    assert "hunter2" not in response.text + str(refused.value)


async def test_a_thousand_problems_arrive_in_full(server: Running) -> None:
    many = [Diagnostic("f.yaml", line, 1, f"problem {line} of them", hint="mend") for line in range(1000)]
    server.plane.raising = InvalidDefinition(many)

    async with server.sdk() as sdk:
        with pytest.raises(InvalidDefinition) as refused:
            await sdk.deploy(Bundle(text="x"))

    assert list(refused.value.diagnostics) == many


async def test_problems_without_end_are_cut_and_counted(server: Running) -> None:
    server.plane.raising = InvalidDefinition([Diagnostic("f", 1, 1, "x" * 1000)] * 2000)

    async with server.sdk() as sdk:
        with pytest.raises(InvalidDefinition) as refused:
            await sdk.deploy(Bundle(text="x"))

    left = len(refused.value.diagnostics)
    assert 0 < left < 2000
    assert f"{2000 - left} more problems" in refused.value.hint


START = f"{V1}/workflows/orders/executions"
BAD_BODIES = [
    (b"{", 400), (b"nonsense", 400), (b"\xff\xfe", 400), (b'{"input": NaN}', 400), (b'{"input": -Infinity}', 400),
    (b'{"input": 1, "input": 2}', 400), (b'{"input": {"a": 1, "a": 2}}', 400), (b"[" * 100_000, 400),
    (b'{"input": ' + b"9" * 5000 + b"}", 400), (b'{"inptu": 1}', 422), (b"[]", 422), (b'"text"', 422), (b"null", 422),
    (b'{"labels": {"a": 1}}', 422), (b'{"timeout": "soon"}', 422), (b'{"timeout": 5}', 422),
]  # fmt: skip


async def test_bad_bodies_are_refused(server: Running) -> None:
    async with server.http() as http:
        for body, status in BAD_BODIES:
            response = await http.post(START, content=body, headers={"content-type": "application/json"})
            assert response.status_code == status, (body[:30], response.text)
            assert response.json()["status"] == status
    assert server.plane.asked == []


async def test_bad_parameters_are_refused(server: Running) -> None:
    times = ["since=yesterday", "since=2026-01-01T00:00:00"]
    async with server.http() as http:
        for query in ["stauts=failed", "limit=0", "limit=100000", "limit=x", "status=odd", *times]:
            response = await http.get(f"{V1}/executions?{query}")
            assert (response.status_code, response.json()["code"]) == (422, "invalid_input"), query
    assert server.plane.asked == []


OUTSIDE = [
    "../x",
    "/etc/passwd",
    "a/../b",
    "..",
    "",
    ".",
    "./a",
    "a//b",
    "a/",
    "a\\b",
    "C:/x",
    "C:x",
    "a\x00b",
    "a" * 2000,
]


async def test_bundles_stay_inside_themselves(server: Running) -> None:
    async with server.sdk() as sdk, server.http() as http:
        for path in OUTSIDE:
            with pytest.raises(InvalidRequest):
                await sdk.validate(Bundle(text="name: orders", files={path: b""}))
            response = await http.post(f"{V1}/workflows:validate", json={"text": "name: orders", "files": {path: ""}})
            assert response.status_code == 400, path
        with pytest.raises(InvalidRequest):
            await sdk.validate(Bundle(text="name: orders", file_name="lib/flow.yaml"))
    assert server.plane.asked == []


async def test_files_must_be_base64(server: Running) -> None:
    async with server.http() as http:
        response = await http.post(f"{V1}/workflows:validate", json={"text": "name: orders", "files": {"a": "*"}})

    assert response.status_code == 422


async def test_what_is_too_long_is_refused_whether_it_says_so_or_not(server: Running) -> None:
    async def dripping() -> Any:
        for _ in range(LIMIT_BYTES // 1000 + 2):
            yield b" " * 1000

    async with server.sdk() as sdk, server.http() as http:
        fitting = await http.post(START, content=b" " * LIMIT_BYTES)
        declared = await http.post(START, content=b" " * (LIMIT_BYTES + 1))
        chunked = await http.post(START, content=dripping())
        with pytest.raises(LimitExceeded):
            await sdk.validate(Bundle(text=" " * LIMIT_BYTES))

    assert [fitting.status_code, declared.status_code, chunked.status_code] == [202, 413, 413]
    assert declared.json()["code"] == chunked.json()["code"] == "limit_exceeded"


async def test_unknown_paths_and_methods_are_problems_too(server: Running) -> None:
    async with server.http() as http:
        missing = await http.get("/nothing")
        wrong = await http.patch(f"{V1}/workflows/orders")

    assert (missing.status_code, missing.json()["code"]) == (404, "not_found")
    assert (wrong.status_code, wrong.json()["code"]) == (405, "method_not_allowed")
    assert "allow" in wrong.headers


async def test_an_unavailable_store_says_when_to_come_again(server: Running) -> None:
    server.plane.raising = StoreUnavailable("the disk is full", hint="free some space")

    async with server.http() as http:
        response = await http.get(f"{V1}/executions")

    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


async def test_unknown_executions_are_404_also_when_followed(server: Running) -> None:
    async with server.sdk() as sdk, server.http() as http:
        responses: list[httpx.Response] = [
            await http.get(f"{V1}/executions/exe_none{tail}") for tail in ("", "/events", "/stream")
        ]
        with pytest.raises(NotFound, match="'exe_none'"):
            await sdk.execution(ExecutionId("exe_none"))

    assert [each.status_code for each in responses] == [404, 404, 404]
    assert json.loads(responses[0].text)["hint"] == "flexcore execution list"
