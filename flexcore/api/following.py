"""Following an execution for a caller who may go away, on a server that may stop. Never holds either of them up."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress
from datetime import timedelta
from typing import Any

from flexcore.model.ids import ExecutionId
from flexcore.model.requests import ControlPlaneApi, WatchEvent

_END = object()


async def follow(
    control_plane: ControlPlaneApi, id: ExecutionId, after: int, stopping: asyncio.Event, idle: timedelta
) -> AsyncGenerator[WatchEvent | None, None]:
    """Give the events of an execution; None whenever nothing came for a while. Ends early when the server stops."""
    stop = asyncio.ensure_future(stopping.wait())
    async with aclosing(control_plane.watch(id, after)) as events:
        upcoming = asyncio.ensure_future(anext(events, _END))
        try:
            while not stop.done():
                await asyncio.wait({upcoming, stop}, timeout=idle.total_seconds(), return_when="FIRST_COMPLETED")
                if not upcoming.done():
                    yield None
                    continue
                event = upcoming.result()
                if not isinstance(event, WatchEvent):
                    return
                yield event
                upcoming = asyncio.ensure_future(anext(events, _END))
        finally:
            await _ended(upcoming, stop)  # first, because a generator that is being read cannot be closed


async def ended_within(
    control_plane: ControlPlaneApi, id: ExecutionId, patience: timedelta, stopping: asyncio.Event
) -> bool:
    """Wait for an execution's end, but not longer than the caller would. A server that stops waits for nothing."""
    with suppress(TimeoutError):
        async with asyncio.timeout(patience.total_seconds()):
            async with aclosing(follow(control_plane, id, 0, stopping, patience)) as events:
                async for _ in events:
                    pass
            return not stopping.is_set()
    return False


async def _ended(*tasks: "asyncio.Task[Any]") -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
