"""The gRPC entrance of a served runtime: translate, one call, translate."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from datetime import datetime

from flexcore.api.grpc.context import Context
from flexcore.api.remote.hosting import Hosting, Missing
from flexcore.model.errors import RuntimeUnavailable, Unavailable
from flexcore.runtime.interface import INTERFACE_VERSION, ExecutionEvent
from flexcore.runtime.v1 import runtime_pb2 as pb
from flexcore.runtime.v1.runtime_pb2_grpc import RuntimeServiceServicer
from flexcore.runtime.wire.answers import capabilities_message, health_message, report_message
from flexcore.runtime.wire.events import event_message, missing_message
from flexcore.runtime.wire.requests import execution_request_of, files_of, scope_of
from flexcore.runtime.wire.work import attempt_of

_END = object()


class RuntimeEntrance(RuntimeServiceServicer):
    """Every method asks first whether the caller speaks our interface. `stopping` ends the streams, never the work."""

    def __init__(self, hosting: Hosting, now: Callable[[], datetime], stopping: asyncio.Event) -> None:
        self._hosting = hosting
        self._now = now
        self._stopping = stopping

    async def Execute(self, request: pb.ExecuteRequest, context: Context) -> AsyncGenerator[pb.ExecuteResponse, None]:
        """Start or adopt an attempt; ending the call detaches."""
        installation, now = _caller(request.caller), self._now()
        attempt = execution_request_of(request, now)
        if self._stopping.is_set():
            raise _stops()
        events = self._hosting.execute(installation, attempt, files_of(request))
        async with aclosing(_until(self._stopping, events)) as until:
            async for event in until:
                yield missing_message(event.digests) if isinstance(event, Missing) else event_message(event)

    async def Upload(self, request: pb.UploadRequest, context: Context) -> pb.UploadResponse:
        """Take a file."""
        _caller(request.caller)
        await asyncio.to_thread(self._hosting.shelf.keep, request.digest, request.data)
        return pb.UploadResponse()

    async def FindAttempt(self, request: pb.FindAttemptRequest, context: Context) -> pb.FindAttemptResponse:
        """Say whether an attempt belongs here."""
        found = await self._hosting.find(_caller(request.caller), attempt_of(request.attempt))
        return pb.FindAttemptResponse(found=found)

    async def GetHealth(self, request: pb.GetHealthRequest, context: Context) -> pb.GetHealthResponse:
        """Say how the runtime is."""
        runtime = await self._hosting.runtime(_caller(request.caller))
        return health_message(await runtime.health(), self._hosting.busy)

    async def GetCapabilities(self, request: pb.GetCapabilitiesRequest, context: Context) -> pb.GetCapabilitiesResponse:
        """Say what the runtime can do."""
        found = await self._hosting.capabilities(_caller(request.caller))
        return pb.GetCapabilitiesResponse(
            server_id=self._hosting.server_id,
            interface=INTERFACE_VERSION,
            capabilities=capabilities_message(found),
        )

    async def Cleanup(self, request: pb.CleanupRequest, context: Context) -> pb.CleanupResponse:
        """End work, or list it."""
        report = await self._hosting.cleanup(_caller(request.caller), scope_of(request))
        return report_message(report)


def _caller(caller: pb.Caller) -> str:
    """Give the caller's installation. Raises RuntimeUnavailable when it speaks none of our interfaces."""
    if INTERFACE_VERSION not in caller.interfaces:
        theirs = ", ".join(map(str, caller.interfaces)) or "none"
        raise RuntimeUnavailable(
            f"the server speaks version {INTERFACE_VERSION} of the runtime interface, the caller speaks {theirs}",
            hint="install versions of FlexCore on both machines that go together",
        )
    return caller.installation


def _stops() -> Unavailable:
    return Unavailable("the server is stopping; work goes on", hint="ask again once it is back")


async def _until(
    stopping: asyncio.Event, events: AsyncGenerator[ExecutionEvent | Missing, None]
) -> AsyncGenerator[ExecutionEvent | Missing, None]:
    """Give the events until they end. Raises Unavailable when the server stops before."""
    stop = asyncio.ensure_future(stopping.wait())
    upcoming = asyncio.ensure_future(anext(events, _END))
    try:
        while True:
            await asyncio.wait({upcoming, stop}, return_when="FIRST_COMPLETED")
            if not upcoming.done():
                raise _stops()
            event = upcoming.result()
            if event is _END:
                return
            yield event  # type: ignore[misc]  # all but the mark of the end, which no type tells apart
            upcoming = asyncio.ensure_future(anext(events, _END))
    finally:
        for task in (upcoming, stop):
            task.cancel()
        await asyncio.gather(upcoming, stop, return_exceptions=True)  # a generator that is read cannot be closed
        await events.aclose()
