"""The standard gRPC health service: what it says is what `ready` says at that moment."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import suppress

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc  # type: ignore[import-untyped]  # ships no types

from flexcore.api.grpc.context import Context

_LOOK_AGAIN_S = 5.0


class HealthEntrance(health_pb2_grpc.HealthServicer):  # type: ignore[misc]  # its base ships no types
    """Answers without a token. The empty name is the whole server."""

    def __init__(
        self, services: Collection[str], ready: Callable[[], tuple[bool, str]], stopping: asyncio.Event
    ) -> None:
        self._services = services
        self._ready = ready
        self._stopping = stopping

    async def Check(self, request: health_pb2.HealthCheckRequest, context: Context) -> health_pb2.HealthCheckResponse:
        """Say whether a service may be called now."""
        if request.service and request.service not in self._services:
            await context.abort(grpc.StatusCode.NOT_FOUND, "no such service")
        return health_pb2.HealthCheckResponse(status=self._status())

    async def List(self, request: health_pb2.HealthListRequest, context: Context) -> health_pb2.HealthListResponse:
        """Say it of every service."""
        response = health_pb2.HealthCheckResponse(status=self._status())
        return health_pb2.HealthListResponse(statuses=dict.fromkeys(("", *self._services), response))

    async def Watch(
        self, request: health_pb2.HealthCheckRequest, context: Context
    ) -> AsyncGenerator[health_pb2.HealthCheckResponse, None]:
        """Say it now and whenever it changes; the last word is that the server stops."""
        said = None
        while not self._stopping.is_set():
            if (status := self._status()) != said:
                yield health_pb2.HealthCheckResponse(status=status)
                said = status
            with suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), _LOOK_AGAIN_S)
        yield health_pb2.HealthCheckResponse(status=self._status())

    def _status(self) -> int:
        response = health_pb2.HealthCheckResponse
        serving = self._ready()[0] and not self._stopping.is_set()
        return int(response.SERVING if serving else response.NOT_SERVING)
