"""A network that loses what goes through it, without a word: between a client and a server, for tests."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field


@dataclass
class Proxy:
    """A way to a server that can swallow what goes either way, as a firewall that drops packets does."""

    target: str
    swallows_requests: bool = False
    swallows_answers: bool = False
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Join a connection to one to the server."""
        host, _, port = self.target.rpartition(":")
        there, back = await asyncio.open_connection(host, int(port))
        ways = [(reader, back, lambda: self.swallows_requests), (there, writer, lambda: self.swallows_answers)]
        for source, sink, swallows in ways:
            self.tasks.add(asyncio.create_task(_pass_on(source, sink, swallows)))


async def _pass_on(source: asyncio.StreamReader, sink: asyncio.StreamWriter, swallows: Callable[[], bool]) -> None:
    try:
        while data := await source.read(1 << 16):
            if not swallows():
                sink.write(data)
                await sink.drain()
    except ConnectionError:
        pass
    finally:
        sink.close()


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Listen on a free port; gives the way, and the address to dial instead of the server's."""
    between = Proxy(target)
    server = await asyncio.start_server(between.connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield between, f"{host}:{port}"
    finally:
        server.close()
        for task in between.tasks:
            task.cancel()
        await asyncio.gather(*between.tasks, return_exceptions=True)
