"""A gRPC server with one unary method that runs a script with bash: what a served runtime costs at the least.

Prints its address, and serves until it is ended.
"""

import asyncio
from typing import Any

import grpc
import grpc.aio


async def run(script: bytes, context: object) -> bytes:
    """Run the script and give what it wrote."""
    process = await asyncio.create_subprocess_exec("bash", "-c", script.decode(), stdout=-1)
    return (await process.communicate())[0]


async def main() -> None:
    """Listen on a free port of this machine."""
    server = grpc.aio.server()
    methods: dict[str, Any] = {"Run": grpc.unary_unary_rpc_method_handler(run)}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("Raw", methods),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    print(f"on 127.0.0.1:{port},", flush=True)
    await server.wait_for_termination()


if __name__ == "__main__":
    asyncio.run(main())
