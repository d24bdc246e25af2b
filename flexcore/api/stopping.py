"""How a server comes to its end: signals ask for it, what runs gets time for it, a second signal ends at once."""

import asyncio
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import grpc.aio


async def drain_grpc(server: "grpc.aio.Server", drain: timedelta, at_once: asyncio.Event) -> None:
    """Take no more calls, and let those that run come to their end as long as that may last."""
    stopping = asyncio.create_task(server.stop(drain.total_seconds()))
    await first(at_once, stopping)
    await server.stop(0)
    await stopping


async def first(event: asyncio.Event, task: asyncio.Task[None]) -> None:
    """Wait for either."""
    waiting = asyncio.create_task(event.wait())
    await asyncio.wait({waiting, task}, return_when="FIRST_COMPLETED")
    waiting.cancel()


@contextmanager
def signals(stop: asyncio.Event, at_once: asyncio.Event) -> Iterator[None]:
    """The first signal asks for the end, the second for it now."""

    def on_signal() -> None:
        (at_once if stop.is_set() else stop).set()

    loop = asyncio.get_running_loop()
    wanted = (signal.SIGTERM, signal.SIGINT)
    for each in wanted:
        loop.add_signal_handler(each, on_signal)
    try:
        yield
    finally:
        for each in wanted:
            loop.remove_signal_handler(each)
