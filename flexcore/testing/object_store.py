"""An object store on loopback, in a process of its own: what tests use in place of S3.

It keeps everything in memory and takes any credentials.
"""

import select
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

BUCKET = "flexcore-test"
REGION = "us-east-1"
KEYS = ("test-key", "test-secret")
"""Name of a key, and the key."""

_START_SECONDS = 30.0
_PROGRAM = """if True:
    import sys
    from moto.server import ThreadedMotoServer
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)  # a port chosen by us could be taken by then
    server.start()
    print(server.get_host_and_port()[1], flush=True)
    sys.stdin.read()
"""


@dataclass(frozen=True, slots=True)
class ObjectStore:
    """One that runs, and has a bucket of that name."""

    endpoint: str
    bucket: str = BUCKET


@contextmanager
def object_store() -> Iterator[ObjectStore]:
    """Run one for the time of a block."""
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
    with subprocess.Popen([sys.executable, "-c", _PROGRAM], stdin=pipe, stdout=pipe, stderr=nothing) as process:
        try:
            endpoint = f"http://127.0.0.1:{_port(process)}"
            _make_bucket(f"{endpoint}/{BUCKET}")
            yield ObjectStore(endpoint)
        finally:
            process.terminate()


def _port(process: "subprocess.Popen[bytes]") -> int:
    assert process.stdout is not None
    told, _, _ = select.select([process.stdout], [], [], _START_SECONDS)
    line = process.stdout.readline() if told else b""
    if not line:
        raise RuntimeError("the object store for tests did not start")
    return int(line)


def _make_bucket(url: str) -> None:
    request = urllib.request.Request(url, method="PUT")  # noqa: S310 (ours, on loopback)
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request, timeout=_START_SECONDS):
        pass
