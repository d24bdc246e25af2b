"""One server and the way to it: a connection that notices when it is cut, and the calls, with errors in sentences."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import TypeAlias, TypeVar

import grpc
import grpc.aio

from flexcore.model.errors import FlexCoreError, RuntimeUnavailable
from flexcore.model.ids import AttemptId
from flexcore.runtime.interface import Capabilities, CleanupReport, CleanupScope, HealthStatus
from flexcore.runtime.v1 import runtime_pb2 as pb
from flexcore.runtime.v1.runtime_pb2_grpc import RuntimeServiceStub
from flexcore.runtime.wire.answers import capabilities_of, health_of, report_of
from flexcore.runtime.wire.carried import METADATA_LIMIT_BYTES
from flexcore.runtime.wire.requests import caller_message, cleanup_message
from flexcore.runtime.wire.work import attempt_message
from flexcore_remote.addresses import target_of
from flexcore_remote.config import PRINTABLE, RemoteConfig, ServerAddress, is_token
from flexcore_remote.failed_calls import failed_call

Answer = TypeVar("Answer")
Metadata: TypeAlias = tuple[tuple[str, str]]

_CLEANUP_MARGIN_S = 50.0  # beyond the grace: ending work and looking whether it is gone takes its time
_UPLOAD_S = 120.0


@dataclass(frozen=True, slots=True)
class Introduction:
    """Who a server is, and what its runtime can do."""

    server_id: str
    capabilities: Capabilities


@dataclass(frozen=True, slots=True)
class Standing:
    """How a server's runtime is, and how many attempts it has at work, of all callers."""

    health: HealthStatus
    busy: int


class RemoteServer:
    """Connects with the first call. All calls raise RuntimeUnavailable when the outcome cannot be known."""

    def __init__(
        self, where: ServerAddress, config: RemoteConfig, installation: str, now: Callable[[], datetime]
    ) -> None:
        self.address = where.address
        self.tags = where.tags
        self.known: Introduction | None = None
        self._target = target_of(where.address)
        self._config = config
        self._installation = installation
        self._caller = caller_message(installation)
        self._now = now
        self._authorization: Metadata | None = None  # read with the first call: a file may come and go
        self._open: grpc.aio.Channel | None = None

    async def introduced(self, *, patient: bool = False) -> Introduction:
        """Ask who it is. With `patient`, wait for a broken connection to be made again, as long as the settings say."""
        request = pb.GetCapabilitiesRequest(caller=self._caller)
        limit = self._config.connect_timeout if patient else self._config.answer_timeout
        stub, metadata = await self._entrance()
        call = stub.GetCapabilities(request, metadata=metadata, timeout=limit, wait_for_ready=patient)
        answer = await self._answer(call)
        found = capabilities_of(answer.capabilities)
        self.known = Introduction(answer.server_id, found)
        return self.known

    async def connected(self) -> Introduction:
        """Say who it is, from memory while the connection stands."""
        standing = self._open is not None and self._open.get_state() is grpc.ChannelConnectivity.READY
        return self.known if standing and self.known else await self.introduced()

    async def standing(self) -> Standing:
        """Ask how it is."""
        request = pb.GetHealthRequest(caller=self._caller)
        stub, metadata = await self._entrance()
        limit = self._config.answer_timeout
        answer = await self._answer(stub.GetHealth(request, metadata=metadata, timeout=limit))
        return Standing(health_of(answer, self._now()), answer.busy)

    async def has(self, id: AttemptId) -> bool:
        """Ask whether an attempt was started there."""
        request = pb.FindAttemptRequest(caller=self._caller, attempt=attempt_message(id))
        stub, metadata = await self._entrance()
        limit = self._config.answer_timeout
        answer = await self._answer(stub.FindAttempt(request, metadata=metadata, timeout=limit))
        return bool(answer.found)

    async def cleanup(self, scope: CleanupScope, grace: timedelta) -> CleanupReport:
        """End work there, or list it."""
        limit = grace.total_seconds() + _CLEANUP_MARGIN_S
        request = cleanup_message(scope, self._installation)
        stub, metadata = await self._entrance()
        return report_of(await self._answer(stub.Cleanup(request, metadata=metadata, timeout=limit)))

    async def upload(self, digest: str, data: bytes) -> None:
        """Bring a file."""
        request = pb.UploadRequest(caller=self._caller, digest=digest, data=data)
        stub, metadata = await self._entrance()
        await self._answer(stub.Upload(request, metadata=metadata, timeout=_UPLOAD_S))

    async def execute(self, request: pb.ExecuteRequest) -> AsyncGenerator[pb.ExecuteResponse, None]:
        """Read one stream of events; closing it ends the call, and never the work."""
        stub, metadata = await self._entrance()
        call = stub.Execute(request, metadata=metadata)
        try:
            async for each in call:
                yield each
        except grpc.aio.AioRpcError as error:
            raise await self._failed(error) from error
        finally:
            call.cancel()

    async def close(self) -> None:
        """Drop the connection. Work goes on."""
        channel, self._open = self._open, None
        if channel is not None:
            await channel.close()

    async def _entrance(self) -> tuple[RuntimeServiceStub, Metadata]:
        """Give the calls and what proves who we are. Files are read when they are needed first, and may hang."""
        try:
            if self._authorization is None:
                self._authorization = await asyncio.to_thread(_metadata, self._config)
            if self._open is None:
                credentials = await asyncio.to_thread(_credentials, self._config)
                self._open = self._open or self._channel(credentials)  # others may have come here at the same time
        except RuntimeUnavailable as error:
            raise RuntimeUnavailable(f"server {self.address}: {error.message}", hint=error.hint) from error
        return RuntimeServiceStub(self._open), self._authorization

    def _channel(self, credentials: grpc.ChannelCredentials | None) -> grpc.aio.Channel:
        options: list[tuple[str, str | int]] = [
            ("grpc.max_receive_message_length", -1),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
            ("grpc.absolute_max_metadata_size", METADATA_LIMIT_BYTES),
            ("grpc.enable_http_proxy", 0),
            ("grpc.enable_retries", 0),  # what may be repeated is decided here
            ("grpc.use_local_subchannel_pool", 1),
            ("grpc.keepalive_time_ms", _milliseconds(self._config.keepalive)),
            ("grpc.keepalive_timeout_ms", _milliseconds(self._config.keepalive_timeout)),
            # Without this, gRPC waits a minute for the answer to its ping, whatever the line above says.
            ("grpc.http2.ping_timeout_ms", _milliseconds(self._config.keepalive_timeout)),
            ("grpc.http2.max_pings_without_data", 0),
            ("grpc.initial_reconnect_backoff_ms", 100),
            ("grpc.min_reconnect_backoff_ms", _milliseconds(self._config.connect_timeout)),
            ("grpc.max_reconnect_backoff_ms", 2_000),
        ]
        if self._config.server_name:
            options.append(("grpc.ssl_target_name_override", self._config.server_name))
        if credentials is None:
            return grpc.aio.insecure_channel(self._target, options=options)
        return grpc.aio.secure_channel(self._target, credentials, options=options)

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        try:
            return await call
        except grpc.aio.AioRpcError as error:
            raise await self._failed(error) from error

    async def _failed(self, error: grpc.aio.AioRpcError) -> FlexCoreError:
        """Say what a failed call came to. A token may have been replaced: the next call has the one of now."""
        if error.code() is grpc.StatusCode.UNAUTHENTICATED and self._config.token_file is not None:
            with suppress(RuntimeUnavailable, OSError):  # it is just being written: the next refusal reads it again
                self._authorization = await asyncio.to_thread(_metadata, self._config)
        return failed_call(self.address, error)


def _metadata(config: RemoteConfig) -> Metadata:
    return (("authorization", f"Bearer {_token(config)}"),)


def _token(config: RemoteConfig) -> str:
    if config.token is not None:
        return config.token.get_secret_value()
    token = _read("token_file", config.token_file).decode(errors="replace").strip()
    if not is_token(token):
        raise RuntimeUnavailable(f"its token_file {config.token_file} holds no token", hint=PRINTABLE)
    return token


def _credentials(config: RemoteConfig) -> grpc.ChannelCredentials | None:
    if not config.is_encrypted:
        return None
    return grpc.ssl_channel_credentials(
        root_certificates=_read("ca_file", config.ca_file) if config.ca_file else None,
        private_key=_read("key_file", config.key_file) if config.key_file else None,
        certificate_chain=_read("cert_file", config.cert_file) if config.cert_file else None,
    )


def _read(key: str, path: Path | None) -> bytes:
    try:
        return path.expanduser().read_bytes() if path is not None else b""
    except OSError as error:
        hint = f"`{key}` of this runtime is the path of a file on this machine"
        raise RuntimeUnavailable(f"its {key} {path} cannot be read: {error.strerror}", hint=hint) from error


def _milliseconds(seconds: float) -> int:
    return max(1, round(seconds * 1000))
