"""Runs a stand-in cluster until interrupted: `python -m flexcore.testing.kubernetes --port 8001 --scale 0.1`."""

import argparse
import asyncio
import json
import signal
import sys

from flexcore.testing.kubernetes.standin import StandIn


async def _serve(options: argparse.Namespace) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    async with StandIn(scale=options.scale, port=options.port, watch_s=options.watch_seconds) as cluster:
        told = {"url": cluster.url, "token": cluster.token, "kubeconfig": str(cluster.kubeconfig)}
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()
        await ended.wait()


def main() -> None:
    """Read the options and serve; where to find it is told as one line of JSON."""
    parser = argparse.ArgumentParser(prog="python -m flexcore.testing.kubernetes", description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="where the API server listens on loopback; 0 chooses")
    parser.add_argument("--scale", type=float, default=1.0, help="what the cluster's own delays are multiplied by")
    parser.add_argument("--watch-seconds", type=float, default=1800.0, help="how long a watch lasts that does not say")
    asyncio.run(_serve(parser.parse_args()))


if __name__ == "__main__":
    main()
