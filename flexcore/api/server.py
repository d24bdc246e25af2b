"""Both entrances in one event loop: bind, say where, serve until told to stop, let what runs come to its end.

Binds loopback addresses only, whatever it is asked for. The control plane is given and stays the caller's.
"""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import grpc.aio
import uvicorn
from starlette.types import ASGIApp

from flexcore.api.addresses import joined, loopback_address
from flexcore.api.grpc.server import build_grpc_server
from flexcore.api.http.app import build_http_app
from flexcore.api.stopping import drain_grpc, first, signals
from flexcore.model.errors import Unavailable
from flexcore.model.requests import ControlPlaneApi
from flexcore.security.authn import TokenVerifier

_MIB = 1024 * 1024
_BACKLOG = 128


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How to serve. `ready` says whether store and engine work, and a sentence; `metrics` gives Prometheus text."""

    verifier: TokenVerifier
    ready: Callable[[], tuple[bool, str]]
    metrics: Callable[[], bytes]
    http: str = "127.0.0.1:8080"
    grpc: str = "127.0.0.1:9090"
    body_limit_bytes: int = 64 * _MIB
    drain: timedelta = timedelta(seconds=10)


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where a server listens: `host:port`, with the port that was really taken."""

    http: str
    grpc: str


async def serve(
    control_plane: ControlPlaneApi,
    options: ServerOptions,
    started: Callable[[Addresses], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set, by the caller or by SIGTERM or SIGINT; a second signal ends at once.

    Raises PermissionDenied for an address beyond loopback and Unavailable for one that is taken.
    """
    http_host, http_port = loopback_address(options.http)
    grpc_host, grpc_port = loopback_address(options.grpc)
    grpc_server = build_grpc_server(control_plane, options.verifier, options.ready, stop, options.body_limit_bytes)
    http_app = build_http_app(
        control_plane, options.verifier, options.ready, options.metrics, stop, options.body_limit_bytes
    )
    at_once = asyncio.Event()
    with _listening(http_host, http_port) as listener, signals(stop, at_once):
        bound = _bind_grpc(grpc_server, grpc_host, grpc_port)
        http_server = _Quiet(_uvicorn_config(http_app, options.drain))
        await grpc_server.start()
        serving = asyncio.create_task(http_server.serve(sockets=[listener]))
        try:
            started(Addresses(joined(http_host, listener.getsockname()[1]), joined(grpc_host, bound)))
            await first(stop, serving)
        finally:
            stop.set()
            await asyncio.gather(
                _drain_http(http_server, serving, at_once), drain_grpc(grpc_server, options.drain, at_once)
            )


class _Quiet(uvicorn.Server):
    """uvicorn without signal handling of its own: two servers share this process."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def _uvicorn_config(app: ASGIApp, drain: timedelta) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        ws="none",
        timeout_graceful_shutdown=max(1, round(drain.total_seconds())),
    )


async def _drain_http(server: uvicorn.Server, serving: asyncio.Task[None], at_once: asyncio.Event) -> None:
    server.should_exit = True
    await first(at_once, serving)
    server.force_exit = True
    await serving


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # With the protocol named, because asyncio turns Nagle's delay off only then: else every answer takes 40 ms.
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(_BACKLOG)
        except OSError as error:
            raise _taken("HTTP", joined(host, port), error.strerror or str(error)) from error
        yield listener


def _bind_grpc(server: grpc.aio.Server, host: str, port: int) -> int:
    try:
        bound = server.add_insecure_port(joined(host, port))
    except RuntimeError as error:
        raise _taken("gRPC", joined(host, port), "address in use or not available") from error
    if bound == 0:
        raise _taken("gRPC", joined(host, port), "address in use or not available")
    return bound


def _taken(what: str, address: str, why: str) -> Unavailable:
    hint = f"is another server running? give another address, or port 0 for a free one, with --{what.lower()}"
    return Unavailable(f"cannot listen on {address} for {what}: {why}", hint=hint)
