"""The client when there is no server, or something else, and what it refuses to call an address."""

import asyncio
import socket
import subprocess
import sys

import grpc
import grpc.aio
import pytest

from flexcore.api.errors import exit_code
from flexcore.model.errors import Ambiguous, InternalError, InvalidSettings, LimitExceeded, Unauthenticated, Unavailable
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import ControlPlaneApi
from flexcore.sdk.client import Client
from flexcore.sdk.failed_call import error_of_call, target_of

TOKEN = "a-token-that-is-long-enough"


def client(address: str) -> ControlPlaneApi:
    """Also says to the type checker that the client is a control plane."""
    return Client(address, TOKEN)


async def test_nobody_there_is_said_plainly() -> None:
    with socket.socket() as silent:  # taken, and nobody listens
        silent.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        async with Client(address, TOKEN) as sdk:
            with pytest.raises(Unavailable, match=f"cannot reach server {address}") as refused:
                await asyncio.wait_for(sdk.runtimes(), 10)
            with pytest.raises(Unavailable, match=f"cannot reach server {address}"):
                await asyncio.wait_for(anext(sdk.watch(ExecutionId("exe_1"))), 10)

    assert exit_code(refused.value) == 3
    assert TOKEN not in str(refused.value) + refused.value.hint


async def test_something_else_there_is_no_server_either() -> None:
    async def not_grpc(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(not_grpc, "127.0.0.1", 0)
    async with server, Client(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", TOKEN) as sdk:
        with pytest.raises(Unavailable, match="cannot reach server http://"):
            await asyncio.wait_for(sdk.runtimes(), 10)


async def test_making_a_client_connects_to_nothing_and_closing_may_be_repeated() -> None:
    sdk = Client("127.0.0.1:1", TOKEN)

    await sdk.close()
    await sdk.close()


@pytest.mark.parametrize(
    ("address", "target"),
    [("127.0.0.1:9090", "127.0.0.1:9090"), ("grpc://localhost:1", "localhost:1"), ("http://[::1]:2/", "[::1]:2")],
)
def test_addresses(address: str, target: str) -> None:
    assert target_of(address) == target


@pytest.mark.parametrize(
    "address", ["", "https://127.0.0.1:1", "http://127.0.0.1/api", "ftp://x:1", "http://u:p@x:1", "/tmp/x"]
)
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(InvalidSettings):
        target_of(address)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (grpc.StatusCode.UNAVAILABLE, Unavailable),
        (grpc.StatusCode.UNAUTHENTICATED, Unauthenticated),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, LimitExceeded),
        (grpc.StatusCode.DEADLINE_EXCEEDED, Ambiguous),
        (grpc.StatusCode.UNIMPLEMENTED, Unavailable),
        (grpc.StatusCode.UNKNOWN, InternalError),
    ],
)
def test_statuses_without_an_error_of_ours_have_a_meaning(status: grpc.StatusCode, kind: type[Exception]) -> None:
    nothing = grpc.aio.Metadata()
    error = error_of_call("here:1", grpc.aio.AioRpcError(status, nothing, nothing, "details"))

    assert type(error) is kind
    assert "here:1" in error.message


def test_an_unreadable_error_is_a_bug() -> None:
    trailing = grpc.aio.Metadata(("flexcore-error-bin", b"\xff\xff\xff"))
    failed = grpc.aio.AioRpcError(grpc.StatusCode.NOT_FOUND, grpc.aio.Metadata(), trailing, "")

    assert isinstance(error_of_call("here:1", failed), InternalError)


def test_importing_what_the_command_line_needs_loads_no_network_library() -> None:
    heavy = ("grpc", "fastapi", "uvicorn", "starlette", "google.protobuf")
    code = f"import flexcore, flexcore.api.errors, sys; print([each for each in {heavy} if each in sys.modules])"

    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert ran.stdout.strip() == "[]"
