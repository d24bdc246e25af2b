"""Serves a hosted runtime over gRPC, with TLS or to this machine only, and drains when told to stop."""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # ships no types

from flexcore.api.addresses import is_loopback, joined, split_address
from flexcore.api.grpc.health import HealthEntrance
from flexcore.api.grpc.interceptors import ErrorInterceptor, TokenInterceptor
from flexcore.api.permissions import Permission, require_declared
from flexcore.api.remote.entrance import RuntimeEntrance
from flexcore.api.remote.hosting import Hosting
from flexcore.api.stopping import drain_grpc, signals
from flexcore.common.errors import METADATA_LIMIT_BYTES
from flexcore.model.errors import InvalidSettings, PermissionDenied, Unavailable
from flexcore.runtime.v1.runtime_pb2_grpc import add_RuntimeServiceServicer_to_server
from flexcore.security.authn import TokenVerifier

SERVICES: Mapping[str, Mapping[str, Permission]] = {
    "flexcore.runtime.v1.RuntimeService": {
        "Execute": Permission.EXECUTION_START,
        "Upload": Permission.EXECUTION_START,
        "FindAttempt": Permission.EXECUTION_READ,
        "GetHealth": Permission.RUNTIME_READ,
        "GetCapabilities": Permission.RUNTIME_READ,
        "Cleanup": Permission.EXECUTION_CONTROL,
    },
    "grpc.health.v1.Health": {"Check": Permission.OPEN, "Watch": Permission.OPEN, "List": Permission.OPEN},
    "grpc.reflection.v1alpha.ServerReflection": {"ServerReflectionInfo": Permission.SERVER_READ},
}
"""What is served, and the permission that each method needs."""

_MOST_BYTES = 128 << 20  # of one message: a file of a workflow, or a step's parameters
_PORTS = range(65536)


@dataclass(frozen=True, slots=True, kw_only=True)
class TlsFiles:
    """PEM files: the server's certificate with its chain, its key, and who signs the clients', if they need one."""

    certificate: Path
    key: Path
    client_ca: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """How to serve. Beyond loopback, `tls` is needed; a token always is."""

    verifier: TokenVerifier
    listen: str = "127.0.0.1:9191"
    tls: TlsFiles | None = None
    drain: timedelta = timedelta(seconds=10)


async def serve(
    hosting: Hosting,
    options: ServeOptions,
    now: Callable[[], datetime],
    started: Callable[[str], None],
    stop: asyncio.Event,
) -> None:
    """Serve until `stop` is set, by the caller or by SIGTERM or SIGINT; a second signal ends at once. Work goes on.

    `started` is told the address. Raises PermissionDenied for an address that others can reach without TLS,
    InvalidSettings for files that cannot be used, and Unavailable for an address that is taken.
    """
    at_once = asyncio.Event()
    server, address = bound_server(hosting, options, now, stop)
    with signals(stop, at_once):
        await server.start()
        try:
            started(address)
            await stop.wait()
        finally:
            stop.set()
            await drain_grpc(server, options.drain, at_once)


def bound_server(
    hosting: Hosting, options: ServeOptions, now: Callable[[], datetime], stopping: asyncio.Event
) -> tuple[grpc.aio.Server, str]:
    """Build the server on its port, not started yet, and say the address. Raises as `serve` does."""
    methods = {f"/{service}/{name}": need for service, names in SERVICES.items() for name, need in names.items()}
    require_declared(_served(), methods)
    server = grpc.aio.server(
        interceptors=[TokenInterceptor(options.verifier, methods), ErrorInterceptor()],
        options=[
            ("grpc.max_receive_message_length", _MOST_BYTES),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
            ("grpc.so_reuseport", 0),  # else a second server on the same port would start and share its calls
            ("grpc.keepalive_time_ms", 20_000),  # a caller that froze or was cut off is let go
            ("grpc.keepalive_timeout_ms", 10_000),
            ("grpc.http2.ping_timeout_ms", 10_000),  # without, gRPC waits a minute for the answer
            ("grpc.http2.min_ping_interval_without_data_ms", 500),  # callers want to notice soon that we froze
            ("grpc.http2.min_recv_ping_interval_without_data_ms", 500),
            ("grpc.http2.max_ping_strikes", 0),
        ],
    )
    add_RuntimeServiceServicer_to_server(RuntimeEntrance(hosting, now, stopping), server)
    ready = HealthEntrance(SERVICES, lambda: (True, "ready"), stopping)
    health_pb2_grpc.add_HealthServicer_to_server(ready, server)
    reflection.enable_server_reflection(list(SERVICES), server)
    return server, _bound(server, options)


def _served() -> Iterator[str]:
    pool = descriptor_pool.Default()
    for service in SERVICES:
        for method in pool.FindServiceByName(service).methods:
            yield f"/{service}/{method.name}"


def _bound(server: grpc.aio.Server, options: ServeOptions) -> str:
    host, port = _address(options)
    credentials = None if options.tls is None else _credentials(options.tls)
    address = joined(host, port)
    try:
        bound = (
            server.add_insecure_port(address) if credentials is None else server.add_secure_port(address, credentials)
        )
    except RuntimeError as error:
        raise _taken(address) from error
    if bound == 0:
        raise _taken(address)
    return joined(host, bound)


def _address(options: ServeOptions) -> tuple[str, int]:
    host, port = split_address(options.listen)
    if not host or not (port.isascii() and port.isdigit()) or int(port) not in _PORTS:
        message = f"not an address to listen on: {options.listen!r}"
        raise InvalidSettings(message, hint="HOST:PORT, such as 127.0.0.1:9191")
    if options.tls is None and not is_loopback(host):
        raise PermissionDenied(
            f"refusing to listen on {options.listen!r} without TLS: it is reachable from other machines, and callers "
            "send secrets",
            hint="give --tls-cert and --tls-key, or listen on 127.0.0.1",
        )
    return ("127.0.0.1" if host == "localhost" else host), int(port)


def _credentials(tls: TlsFiles) -> grpc.ServerCredentials:
    return grpc.ssl_server_credentials(
        [(_read(tls.key), _read(tls.certificate))],
        root_certificates=_read(tls.client_ca) if tls.client_ca else None,
        require_client_auth=tls.client_ca is not None,
    )


def _read(path: Path) -> bytes:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InvalidSettings(f"{path} cannot be read: {error.strerror}", hint="a PEM file is needed") from error
    if b"-----BEGIN " not in content:
        raise InvalidSettings(f"{path} is not a PEM file", hint="it begins with `-----BEGIN`")
    return content


def _taken(address: str) -> Unavailable:
    hint = "is another server running there? does the certificate go with the key? port 0 finds a free port"
    return Unavailable(f"cannot listen on {address}", hint=hint)
