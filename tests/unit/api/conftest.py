"""Real servers on loopback, on ports of their own, in front of the control plane in memory."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta

import httpx
import pytest
from fake_plane import FakePlane

from flexcore.api.server import Addresses, ServerOptions, serve
from flexcore.sdk.client import Client
from flexcore.security.authn import verifier_of

TOKEN = "a-token-that-is-long-enough"
LIMIT_BYTES = 200_000
PATIENCE_S = 30  # much less than the drain of the servers here: one that waits for that is noticed


@dataclass
class Running:
    """A server under test and ways to reach it."""

    plane: FakePlane
    addresses: Addresses
    stop: asyncio.Event
    done: asyncio.Task[None]
    token: str
    ready: list[bool]

    def http(self, token: str | None = TOKEN) -> httpx.AsyncClient:
        """A client of the HTTP entrance; proxies of the environment are not for loopback."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        url = f"http://{self.addresses.http}"
        return httpx.AsyncClient(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False)

    def sdk(self, token: str = TOKEN) -> Client:
        """A client of the gRPC entrance."""
        return Client(self.addresses.grpc, token)


@pytest.fixture
async def server() -> AsyncIterator[Running]:
    """A server that listens."""
    plane, stop, ready = FakePlane(), asyncio.Event(), [True]
    listening: asyncio.Future[Addresses] = asyncio.get_running_loop().create_future()
    options = ServerOptions(
        verifier=verifier_of(TOKEN),
        ready=lambda: (ready[0], "all is well" if ready[0] else "the disk is full"),
        metrics=lambda: b"flexcore_up 1\n",
        http="127.0.0.1:0",
        grpc="localhost:0",
        body_limit_bytes=LIMIT_BYTES,
        drain=timedelta(minutes=5),
    )
    done = asyncio.create_task(serve(plane, options, listening.set_result, stop))
    done.add_done_callback(lambda ended: None if listening.done() else listening.cancel())
    yield Running(plane, await listening, stop, done, TOKEN, ready)
    stop.set()
    await asyncio.wait_for(done, PATIENCE_S)
