"""Who gets in: the token on every route and method but health, and nothing that declares no permission."""

import asyncio
from typing import Any

import grpc
import grpc.aio
import pytest
from conftest import TOKEN, Running
from fake_plane import KNOWN, FakePlane
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no types

from flexcore.api.grpc.methods import METHODS
from flexcore.api.http.app import bare_app, build_http_app, served
from flexcore.api.http.routes import ROUTES
from flexcore.api.permissions import Permission, require_declared
from flexcore.common.errors import ERROR_KEY, error_of
from flexcore.common.v1.error_pb2 import Error
from flexcore.model.errors import InternalError, Unauthenticated
from flexcore.security.authn import verifier_of

OPEN = {"GET /healthz", "GET /readyz"}
OPEN_METHODS = {f"/grpc.health.v1.Health/{each}" for each in ("Check", "List", "Watch")}
FILLED = {"{name}": "orders", "{id}": KNOWN, "{path}": "a"}


def filled(path: str) -> str:
    for name, value in FILLED.items():
        path = path.replace(name, value)
    return path


def test_only_health_is_open() -> None:
    assert {each.name for each in ROUTES if each.permission is Permission.OPEN} == OPEN
    assert {name for name, permission in METHODS.items() if permission is Permission.OPEN} == OPEN_METHODS


@pytest.mark.parametrize("token", [None, "wrong-but-also-quite-long", TOKEN[:-1], TOKEN + "x"])
async def test_every_http_route_refuses_without_the_token(server: Running, token: str | None) -> None:
    async with server.http(token) as http:
        for method, path in sorted(each.name.split(" ") for each in ROUTES if each.name not in OPEN):
            response = await http.request(method, filled(path))
            assert response.status_code == 401, path
            assert response.headers["www-authenticate"].startswith("Bearer")
            assert response.json()["code"] == "unauthenticated"
        for name in OPEN:
            assert (await http.get(name.split(" ")[1])).status_code == 200
    assert server.plane.asked == []


async def test_every_http_route_lets_the_token_in(server: Running) -> None:
    async with server.http() as http:
        for route in ROUTES:
            response = await http.request(route.method, filled(route.path))
            assert response.status_code not in (401, 403, 404, 405, 500), (route.name, response.text)


TRICKS = (
    "/ /nothing /docs /redoc /healthz/ /healthz;x //healthz /x/healthz /healthz/../metrics /api/v1/workflows/healthz "
    "/metrics?x=/healthz /HEALTHZ /healthz%2f /static/x"
)


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS", "HEAD", "DELETE", "PATCH"])
async def test_no_trick_opens_another_path(server: Running, method: str) -> None:
    async with server.http(None) as http:
        for path in TRICKS.split():
            response = await http.request(method, path, headers={"X-HTTP-Method-Override": "GET"})
            assert response.status_code == 401, path


async def test_health_is_open_for_reading_only(server: Running) -> None:
    async with server.http(None) as http:
        assert (await http.post("/healthz")).status_code == 401
        assert (await http.get("/%68ealthz")).status_code == 200, "the same path, spelt otherwise"


async def test_only_a_bearer_is_a_bearer(server: Running) -> None:
    async with server.http(None) as http:
        for value in ("Basic x", f"Bearer{TOKEN}", TOKEN, f"Token {TOKEN}", "Bearer", f"x Bearer {TOKEN}"):
            assert (await http.get("/metrics", headers={"Authorization": value})).status_code == 401, value
        assert (await http.get("/metrics", headers={"Authorization": f"bearer {TOKEN}"})).status_code == 200
        twice = [("Authorization", f"Bearer {TOKEN}"), ("Authorization", "Bearer other")]
        assert (await http.get("/metrics", headers=twice)).status_code == 401


async def test_foreign_hosts_are_refused(server: Running) -> None:
    async with server.http() as http:
        for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "10.0.0.1"):
            assert (await http.get("/healthz", headers={"Host": host})).status_code == 403, host
        for host in ("localhost:1", "[::1]:8080", "127.0.0.1", "LOCALHOST"):
            assert (await http.get("/healthz", headers={"Host": host})).status_code == 200, host


async def test_every_answer_has_the_security_headers_and_none_invites_other_origins(server: Running) -> None:
    async with server.http() as http:
        for path in ("/healthz", "/nothing", "/api/v1/runtimes"):
            headers = (await http.get(path, headers={"Origin": "http://evil.example"})).headers
            assert headers["x-content-type-options"] == "nosniff"
            assert "default-src 'none'" in headers["content-security-policy"]
            assert headers["cache-control"] == "no-store"
            assert not [each for each in headers if each.startswith("access-control")]
            assert "server" not in headers


async def calls(address: str, metadata: list[tuple[str, str]]) -> dict[str, grpc.aio.AioRpcError | None]:
    """Call every declared method with an empty message, whatever its kind, and give what each came to."""
    found: dict[str, grpc.aio.AioRpcError | None] = {}
    async with grpc.aio.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        for method in METHODS:
            opened: Any = channel.stream_stream(method)  # without types, as bytes
            call = opened(iter([b""]), metadata=metadata)
            try:
                await asyncio.wait_for(call.read(), 30)
                found[method] = None
            except grpc.aio.AioRpcError as error:
                found[method] = error
            call.cancel()
    return found


@pytest.mark.parametrize(
    "metadata",
    [[], [("authorization", "Bearer wrong-but-also-long")], [("authorization", TOKEN)],
     [("authorization", f"Bearer {TOKEN}"), ("authorization", "Bearer x")]],
)  # fmt: skip
async def test_every_grpc_method_refuses_without_the_token(server: Running, metadata: list[tuple[str, str]]) -> None:
    for method, error in (await calls(server.addresses.grpc, metadata)).items():
        if method in OPEN_METHODS:
            assert error is None, method
            continue
        assert error is not None, method
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED, method
        carried = dict(error.trailing_metadata() or ())[ERROR_KEY]
        assert isinstance(error_of(Error.FromString(carried)), Unauthenticated)
    assert server.plane.asked == []


async def test_every_grpc_method_lets_the_token_in(server: Running) -> None:
    refused = {grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.UNIMPLEMENTED, grpc.StatusCode.INTERNAL}
    for method, error in (await calls(server.addresses.grpc, [("authorization", f"Bearer {TOKEN}")])).items():
        assert error is None or error.code() not in refused, (method, error)


async def test_unknown_grpc_methods_are_refused_before_they_are_looked_up(server: Running) -> None:
    async with grpc.aio.insecure_channel(server.addresses.grpc) as channel:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            opened: Any = channel.unary_unary("/flexcore.api.v1.Nothing/Here")
            await opened(b"")

    assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED


async def test_grpc_health_follows_readiness(server: Running) -> None:
    async with grpc.aio.insecure_channel(server.addresses.grpc) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == 1
        server.ready[0] = False
        assert (await stub.Check(health_pb2.HealthCheckRequest())).status == 2
        with pytest.raises(grpc.aio.AioRpcError, match="no such service"):
            await stub.Check(health_pb2.HealthCheckRequest(service="other"))


def test_an_undeclared_route_keeps_the_server_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    async def extra() -> None: ...

    app = bare_app()
    app.add_api_route("/extra", extra)
    monkeypatch.setattr("flexcore.api.http.app.bare_app", lambda: app)

    with pytest.raises(InternalError, match="GET /extra"):
        build_http_app(FakePlane(), verifier_of(TOKEN), lambda: (True, ""), lambda: b"", asyncio.Event(), 1)


def test_whatever_is_no_plain_route_counts_as_undeclared() -> None:
    app = bare_app()
    app.mount("/static", bare_app())
    app.add_api_websocket_route("/socket", lambda: None)

    with pytest.raises(InternalError, match="ANY /socket, ANY /static"):
        require_declared(served(app.routes), [each.name for each in ROUTES])
