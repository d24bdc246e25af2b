"""Every capability through both entrances: the same questions reach the control plane, the same answers come back."""

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from conftest import Running
from fake_plane import BROKEN, KNOWN, FakePlane

from flexcore.model.errors import InvalidDefinition, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.requests import (
    AuditQuery,
    Bundle,
    Collectable,
    CollectRequest,
    ExecutionQuery,
    RetryRequest,
    StartRequest,
    TaskRequest,
)

V1 = "/api/v1"
TEXT = "# first\ndescription: {name: not-this}\nname: orders\nsteps: []\n"
BUNDLE = Bundle(text=TEXT, file_name="flow.yaml", files={"lib/a.py": b"\x00\xff"})
UPLOAD = {"text": TEXT, "file_name": "flow.yaml", "files": {"lib/a.py": base64.b64encode(b"\x00\xff").decode()}}

COLLECT = CollectRequest(
    kinds=frozenset({Collectable.AUDIT, Collectable.LOGS}), older_than=timedelta(seconds=90), dry_run=True
)

# (method, arguments of the SDK, HTTP method, path, body, how to find the SDK's answer in the HTTP answer)
SAME = [
    ("deploy", (BUNDLE, "w"), "PUT", f"{V1}/workflows/orders?workspace=w", UPLOAD, lambda body: body),
    ("diff", (BUNDLE, "w"), "POST", f"{V1}/workflows:diff?workspace=w", UPLOAD, lambda body: body),
    ("pin", ("orders", "v", "w"), "POST", f"{V1}/workflows/orders:pin?workspace=w", {"version": "v"},
     lambda body: body),
    ("unpin", ("orders", "w"), "POST", f"{V1}/workflows/orders:unpin?workspace=w", None, lambda body: body),
    ("rollback", ("orders", "v", "w"), "POST", f"{V1}/workflows/orders:rollback?workspace=w", {"version": "v"},
     lambda body: body),
    ("collect", (COLLECT,), "POST", f"{V1}/store:collect",
     {"kinds": ["audit", "logs"], "older_than": "90s", "dry_run": True}, lambda body: body),
    ("plan", ("orders", "v", "local"), "POST", f"{V1}/workflows:plan",
     {"workflow": "orders", "version": "v", "runtime": "local"}, lambda body: body),
    ("workflows", ("w", "local"), "GET", f"{V1}/workflows?workspace=w&runtime=local", None, lambda body: body["items"]),
    ("workflow", ("orders", "v"), "GET", f"{V1}/workflows/orders?version=v", None, lambda body: body),
    ("execution", (KNOWN,), "GET", f"{V1}/executions/{KNOWN}", None, lambda body: body),
    ("explain", (KNOWN, "a", True), "POST", f"{V1}/placements:explain",
     {"execution": KNOWN, "path": "a", "flips": True}, lambda body: body),
    ("runtimes", (), "GET", f"{V1}/runtimes", None, lambda body: body["items"]),
    ("runtime", ("local",), "GET", f"{V1}/runtimes/local", None, lambda body: body),
    ("cleanup_runtime", ("local", True), "POST", f"{V1}/runtimes/local:cleanup", {"dry_run": True}, lambda body: body),
    ("resume", (), "POST", f"{V1}/executions:resume", None, lambda body: body["items"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "verb", "path", "body", "part"), SAME, ids=[each[0] for each in SAME])
async def test_answers_are_equal_through_both_entrances(
    server: Running, name: str, arguments: Any, verb: str, path: str, body: Any, part: Any
) -> None:
    expected = await getattr(FakePlane(), name)(*arguments)

    async with server.sdk() as sdk, server.http() as http:
        through_grpc = await getattr(sdk, name)(*arguments)
        response = await http.request(verb, path, json=body)

    assert response.is_success, response.text
    assert through_grpc == expected
    assert part(response.json()) == expected
    assert server.plane.asked[0] == server.plane.asked[1], "both entrances ask the same"


async def test_start_carries_everything(server: Running) -> None:
    request = StartRequest(
        workflow="orders", version="v", workspace="w", input={"n": 2**60}, labels={"a": "b"}, runtime="local",
        idempotency_key="used", timeout=timedelta(seconds=90),
    )  # fmt: skip
    body = {"version": "v", "input": {"n": 2**60}, "labels": {"a": "b"}, "runtime": "local", "timeout": "1.5m"}

    async with server.sdk() as sdk, server.http() as http:
        started = await sdk.start(request)
        path = f"{V1}/workflows/orders/executions?workspace=w"
        response = await http.post(path, json=body, headers={"Idempotency-Key": "used"})

    assert [asked for _, (asked,) in server.plane.asked] == [request, request]
    assert (started.id, started.existing) == (KNOWN, True)
    assert (response.status_code, response.json()) == (202, {"id": KNOWN, "existing": True})
    assert response.headers["location"] == f"{V1}/executions/{KNOWN}"


async def test_task_carries_everything(server: Running) -> None:
    request = TaskRequest(runtime="local", type="bash", parameters={"script": "true"}, timeout=timedelta(seconds=2))

    async with server.sdk() as sdk, server.http() as http:
        await sdk.execute_task(request)
        body = {"type": "bash", "with": {"script": "true"}, "timeout": "2s"}
        response = await http.post(f"{V1}/runtimes/local:execute", json=body)

    assert response.status_code == 202
    assert [asked for _, (asked,) in server.plane.asked] == [request, request]


async def test_audit_filters_carry_everything(server: Running) -> None:
    query = AuditQuery(
        workspace="w", since=datetime(2026, 1, 2, tzinfo=UTC), actor="ann", subject="orders", limit=7, cursor="41"
    )
    path = f"{V1}/audit?workspace=w&since=2026-01-02T00:00:00Z&actor=ann&subject=orders&limit=7&cursor=41"

    async with server.sdk() as sdk, server.http() as http:
        page = await sdk.audit(query)
        body = (await http.get(path)).json()

    assert [asked for _, (asked,) in server.plane.asked] == [query, query]
    assert (list(page.items), page.next) == (body["items"], body["next"]) == (body["items"], "41")


async def test_list_filters_carry_everything(server: Running) -> None:
    query = ExecutionQuery(
        workspace="w", workflow="orders", status=ExecutionStatus.FAILED, since=datetime(2026, 1, 2, tzinfo=UTC),
        unfinished=True, limit=7, cursor="c",
    )  # fmt: skip
    path = (
        f"{V1}/executions?workspace=w&workflow=orders&status=failed&since=2026-01-02T01:00:00%2B01:00"
        "&unfinished=true&limit=7&cursor=c"
    )

    async with server.sdk() as sdk, server.http() as http:
        page = await sdk.executions(query)
        body = (await http.get(path)).json()

    assert [asked for _, (asked,) in server.plane.asked] == [query, query]
    assert (list(page.items), page.next) == (body["items"], body["next"])
    assert page.next == "more"


async def test_history_logs_cancel_retry_delete(server: Running) -> None:
    async with server.sdk() as sdk, server.http() as http:
        history = await sdk.history(KNOWN, 1, 2)
        logs = await sdk.logs(KNOWN, "fan[3].score", "c")
        await sdk.cancel(KNOWN, "enough")
        results = {"b": [1, None]}
        await sdk.retry(RetryRequest(id=KNOWN, from_step="a", results=results, reason="known", idempotency_key="once"))
        await sdk.delete_workflow("orders", "w")
        first = list(server.plane.asked)
        history_body = (await http.get(f"{V1}/executions/{KNOWN}/events?after=1&limit=2")).json()
        logs_body = (await http.get(f"{V1}/executions/{KNOWN}/steps/fan%5B3%5D.score/logs?cursor=c")).json()
        cancel = await http.post(f"{V1}/executions/{KNOWN}:cancel", json={"reason": "enough"})
        retry = await http.post(
            f"{V1}/executions/{KNOWN}:retry",
            json={"from_step": "a", "results": results, "reason": "known"},
            headers={"Idempotency-Key": "once"},
        )
        delete = await http.delete(f"{V1}/workflows/orders?workspace=w")

    assert server.plane.asked[len(first) :] == first
    assert (list(history.items), history.next) == (history_body["items"], history_body["next"])
    assert (list(logs.pieces), logs.next, logs.ended) == tuple(logs_body.values())
    assert [cancel.status_code, retry.status_code, delete.status_code] == [202, 202, 204]


async def test_logs_of_all_steps(server: Running) -> None:
    async with server.sdk() as sdk, server.http() as http:
        await sdk.logs(KNOWN)
        assert (await http.get(f"{V1}/executions/{KNOWN}/logs")).status_code == 200

    assert server.plane.asked == [("logs", (KNOWN, None, None))] * 2


async def test_validation_names_every_place(server: Running) -> None:
    bad = Bundle(text="name: orders\nwiht: 1\n")

    async with server.sdk() as sdk, server.http() as http:
        assert await sdk.validate(BUNDLE) == []
        assert tuple(await sdk.validate(bad)) == BROKEN
        with pytest.raises(InvalidDefinition) as refused:
            await sdk.deploy(bad)
        checked = await http.post(f"{V1}/workflows:validate", content=bad.text, headers={"content-type": "text/yaml"})
        put = await http.put(f"{V1}/workflows/orders", json={"text": bad.text})

    assert refused.value.diagnostics == BROKEN
    assert str(refused.value) == str(InvalidDefinition(BROKEN))
    assert checked.json()["valid"] is False
    assert put.status_code == 422
    assert put.headers["content-type"] == "application/problem+json"
    problem = put.json()
    assert problem["errors"] == checked.json()["errors"]
    wanted = {"path": "steps[0]", "line": 3, "column": 5, "message": "unknown key 'wiht'"}
    assert wanted.items() <= problem["errors"][0].items()
    assert problem["code"] == "invalid_definition"


async def test_raw_yaml_is_taken_and_its_name_must_be_the_path(server: Running) -> None:
    headers = {"content-type": "application/yaml; charset=utf-8"}
    async with server.http() as http:
        created = await http.put(f"{V1}/workflows/orders", content=TEXT, headers=headers)
        other = await http.put(f"{V1}/workflows/not-this", content=TEXT, headers=headers)

    assert created.status_code == 201
    assert server.plane.asked == [("deploy", (Bundle(text=TEXT), "default"))]
    assert other.status_code == 422
    assert "'orders'" in other.json()["detail"]


async def test_wait_gives_the_document_or_the_id(server: Running) -> None:
    async with server.http() as http:
        ended = await http.post(f"{V1}/workflows/orders/executions?wait=5s")
        running = await http.post(f"{V1}/workflows/open/executions?wait=50ms")
        too_long = await http.post(f"{V1}/workflows/open/executions?wait=3d")

    assert (ended.status_code, ended.json()["output"]) == (200, [1, None, 2.5])
    assert (running.status_code, running.json()["id"]) == (202, "exe_open")
    assert too_long.status_code == 422
    assert [name for name, _ in server.plane.asked].count("start") == 2, "a bad wait starts nothing"


async def test_watching_through_the_sdk_is_watching(server: Running) -> None:
    expected = [event async for event in FakePlane().watch(KNOWN, 1)]

    async with server.sdk() as sdk:
        seen = [event async for event in sdk.watch(KNOWN, 1)]
        with pytest.raises(NotFound, match="no execution"):
            await anext(sdk.watch(ExecutionId("exe_none")))

    assert seen == expected


async def test_operation_routes(server: Running) -> None:
    async with server.http() as http:
        assert (await http.get("/readyz")).json() == {"status": "ready", "detail": "all is well"}
        metrics = await http.get("/metrics")
        described = (await http.get("/openapi.json")).json()
        server.ready[0] = False
        unready = await http.get("/readyz")
        alive = await http.get("/healthz")

    assert metrics.text == "flexcore_up 1\n"
    assert "/api/v1/workflows/{name}/executions" in described["paths"]
    assert (unready.status_code, unready.json()["detail"]) == (503, "the disk is full")
    assert unready.headers["retry-after"] == "1"
    assert alive.status_code == 200
