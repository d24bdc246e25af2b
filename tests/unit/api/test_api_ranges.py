"""What is too long, too many, out of range or no text is refused by both entrances before anybody works on it."""

from datetime import timedelta

import grpc
import pytest
from conftest import Running
from fake_plane import KNOWN

from flexcore.api.v1 import operation_pb2, operation_pb2_grpc
from flexcore.model.errors import InvalidRequest
from flexcore.model.requests import AuditQuery, CollectRequest, ExecutionQuery

V1 = "/api/v1"


@pytest.mark.parametrize("time", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-10:00"])
@pytest.mark.parametrize("path", ["audit", "executions"])
async def test_a_time_that_utc_does_not_have_is_refused(server: Running, path: str, time: str) -> None:
    async with server.http() as http:
        answer = await http.get(f"{V1}/{path}", params={"since": time})

    assert (answer.status_code, answer.json()["code"]) == (422, "invalid_input")
    assert server.plane.asked == []


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("store:collect", {"older_than": "999999999d"}),
        ("workflows/orders/executions", {"timeout": "999999999d"}),
    ],
)
async def test_a_span_of_thousands_of_years_is_refused(server: Running, path: str, body: dict[str, str]) -> None:
    async with server.http() as http:
        answer = await http.post(f"{V1}/{path}", json=body)

    assert (answer.status_code, answer.json()["hint"]) == (422, "at most 3650d")
    assert server.plane.asked == []


@pytest.mark.parametrize("age", [timedelta(days=-1), timedelta(days=4000)])
async def test_a_span_out_of_range_is_refused_over_grpc(server: Running, age: timedelta) -> None:
    async with server.sdk() as sdk:
        with pytest.raises(InvalidRequest, match="older_than is out of range"):
            await sdk.collect(CollectRequest(older_than=age))

    assert server.plane.asked == []


@pytest.mark.parametrize("limit", [-1, 1001])
async def test_a_page_has_a_thousand_things_at_most(server: Running, limit: int) -> None:
    async with server.sdk() as sdk:
        for call in (
            sdk.audit(AuditQuery(limit=limit)),
            sdk.executions(ExecutionQuery(limit=limit)),
            sdk.history(KNOWN, 0, limit),
        ):
            with pytest.raises(InvalidRequest, match="limit is out of range"):
                await call

    assert server.plane.asked == []


async def test_no_limit_over_grpc_is_the_usual_one(server: Running) -> None:
    metadata = (("authorization", f"Bearer {server.token}"),)
    async with grpc.aio.insecure_channel(server.addresses.grpc) as channel:
        stub = operation_pb2_grpc.OperationServiceStub(channel)
        await stub.ListAudit(operation_pb2.ListAuditRequest(), metadata=metadata)

    assert server.plane.asked == [("audit", (AuditQuery(limit=50),))]


async def test_half_of_a_character_is_refused(server: Running) -> None:
    async with server.http() as http:
        half = await http.post(f"{V1}/workflows/orders:pin", content=rb'{"version": "v-\ud83d"}')
        whole = await http.post(f"{V1}/workflows/orders:pin", content=rb'{"version": "v-\ud83d\ude00"}')

    assert (half.status_code, half.json()["code"]) == (400, "invalid_request")
    assert whole.status_code == 200
    assert server.plane.asked == [("pin", ("orders", "v-😀", "default"))]
