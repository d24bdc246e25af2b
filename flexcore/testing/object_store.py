"""An object store on loopback, in a process of its own: what tests use in place of S3.

It keeps everything in memory and takes any credentials.
"""

import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

BUCKET = "flexcore-test"
REGION = "us-east-1"
KEYS = ("test-key", "test-secret")
"""Name of a key, and the key."""

_START_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """One that runs, and has a bucket of that name."""

    endpoint: str
    bucket: str = BUCKET


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run one for the time of a block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    quiet = subprocess.DEVNULL
    process = subprocess.Popen(command, stdin=quiet, stdout=quiet, stderr=quiet)
    try:
        endpoint = f"http://127.0.0.1:{port}"
        _make_bucket(process, f"{endpoint}/{BUCKET}")
        yield ObjectStore(endpoint)
    finally:
        process.terminate()
        process.wait()


def _make_bucket(process: "subprocess.Popen[bytes]", url: str) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with suppress(urllib.error.URLError, ConnectionError):
            request = urllib.request.Request(url, method="PUT")  # noqa: S310 (ours, on loopback)
            with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=10):
                return
        time.sleep(0.02)
    raise RuntimeError("the object store for tests did not start")
