"""Starting and stopping: only loopback, only free ports, and an end that lets calls finish."""

import asyncio
import os
import signal
import socket
from datetime import timedelta
from typing import Any

import pytest
from conftest import PATIENCE_S, TOKEN, Running
from fake_plane import KNOWN, FakePlane

from flexcore.api.addresses import loopback_address
from flexcore.api.errors import exit_code
from flexcore.api.server import Addresses, ServerOptions, serve
from flexcore.model.errors import InvalidSettings, PermissionDenied, Unavailable
from flexcore.security.authn import verifier_of


def options(**changes: Any) -> ServerOptions:
    defaults: dict[str, Any] = {
        "verifier": verifier_of(TOKEN), "ready": lambda: (True, ""), "metrics": lambda: b"",
        "http": "127.0.0.1:0", "grpc": "127.0.0.1:0",
    }  # fmt: skip
    return ServerOptions(**(defaults | changes))


def must_not_start(addresses: Addresses) -> None:
    raise AssertionError(f"started at {addresses}")


@pytest.mark.parametrize("where", ["http", "grpc"])
@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "10.1.2.3:0", "example.org:0", "[fe80::1]:0"])
async def test_it_refuses_to_listen_beyond_loopback(where: str, address: str) -> None:
    with pytest.raises(PermissionDenied, match="other machines") as refused:
        await serve(FakePlane(), options(**{where: address}), must_not_start, asyncio.Event())

    assert exit_code(refused.value) == 5
    assert refused.value.hint


@pytest.mark.parametrize(
    "address", ["", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x", "127.0.0.1:70000", ":80", "127.0.0.1:-1"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidSettings):
        loopback_address(address)


def test_loopback_has_several_names() -> None:
    assert loopback_address("localhost:8080") == ("127.0.0.1", 8080)
    assert loopback_address("127.9.9.9:1") == ("127.9.9.9", 1)
    assert loopback_address("[::1]:0") == ("::1", 0)


@pytest.mark.parametrize("where", ["http", "grpc"])
async def test_a_taken_port_is_said_so(where: str) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"cannot listen on {taken}") as refused:
            await serve(FakePlane(), options(**{where: taken}), must_not_start, asyncio.Event())

    assert exit_code(refused.value) == 3


@pytest.mark.parametrize("where", ["http", "grpc"])
async def test_two_servers_never_share_a_port(server: Running, where: str) -> None:
    taken = getattr(server.addresses, where)

    with pytest.raises(Unavailable):
        await serve(FakePlane(), options(**{where: taken}), must_not_start, asyncio.Event())


@pytest.mark.parametrize("which", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it(server: Running, which: signal.Signals) -> None:
    os.kill(os.getpid(), which)

    await asyncio.wait_for(server.done, PATIENCE_S)
    assert server.stop.is_set()


async def test_calls_under_way_are_finished_before_it_ends(server: Running) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def slow(id: str) -> dict[str, Any]:
        arrived.set()
        await go_on.wait()
        return {"id": id, "status": "running"}

    server.plane.execution = slow  # type: ignore[method-assign]
    async with server.http() as http, server.sdk() as sdk:
        through_http = asyncio.create_task(http.get(f"/api/v1/executions/{KNOWN}"))
        await arrived.wait()
        arrived.clear()
        through_grpc = asyncio.create_task(sdk.execution(KNOWN))
        await arrived.wait()
        server.stop.set()
        await asyncio.sleep(0)
        go_on.set()

        assert (await through_http).json()["id"] == KNOWN
        assert (await through_grpc)["id"] == KNOWN
    await asyncio.wait_for(server.done, PATIENCE_S)


async def test_a_second_signal_waits_for_nobody() -> None:
    plane, stop, arrived = FakePlane(), asyncio.Event(), asyncio.Event()

    async def stuck(id: str) -> dict[str, Any]:
        arrived.set()
        await asyncio.Event().wait()
        return {}

    plane.execution = stuck  # type: ignore[method-assign]
    listening: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    long = options(drain=timedelta(minutes=5))
    done = asyncio.create_task(serve(plane, long, listening.set_result, stop))
    running = Running(plane, await listening, stop, done, TOKEN, [True])
    async with running.http() as http, running.sdk() as sdk:
        calls = [asyncio.create_task(http.get(f"/api/v1/executions/{KNOWN}"))]
        await arrived.wait()
        arrived.clear()
        calls.append(asyncio.create_task(sdk.execution(KNOWN)))  # type: ignore[arg-type]
        await arrived.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await stop.wait()
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(done, PATIENCE_S)
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
