"""The front of the API server: passes bytes on, and can be killed and started anew while the cluster goes on."""

import asyncio
import sys
from contextlib import suppress


async def serve(port: int, socket: str) -> None:
    """Listen on loopback, for ever; the port is told on standard output."""

    async def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            back_reader, back_writer = await asyncio.open_unix_connection(socket)
            ways = [
                asyncio.create_task(_pass_on(reader, back_writer)),
                asyncio.create_task(_pass_on(back_reader, writer)),
            ]
            # Either side's end is the end of both: neither keeps a connection half open.
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
            back_writer.close()
            for way in ways:
                way.cancel()
        writer.close()

    server = await asyncio.start_server(meet, "127.0.0.1", port)
    asyncio.get_running_loop().add_reader(0, sys.exit)  # who started this is gone, and with it standard input
    sys.stdout.write(f"{server.sockets[0].getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve_forever()


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(256 * 1024):
            writer.write(data)
            await writer.drain()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(serve(int(sys.argv[1]), sys.argv[2]))
