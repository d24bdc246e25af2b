"""What a job begins with on a node of the cluster: opens the sealed order, and runs the step's program with it.

Runs by Ray as the job's entrypoint, in a folder that all jobs with the same files share on that node. Standard
library only, Python 3.8 or newer; imports nothing of ours. It must never write the order to a file that has a name,
and never run a step after the moment from which on nobody waits for it any more.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import stat
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

KEY = "FLEXCORE_RAY_KEY"
SEALED = "flexcore_order.sealed"
TOO_LATE = 75
_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
_OWN = (KEY, "RAY_JOB_STOP_WAIT_TIME_S")
_PACKAGES = "py_modules_files"  # where Ray unpacks what it puts on the path of Python
_NONCE, _MAC = 16, 32
_HEADER = b"Running entrypoint for job "
_HEADER_S, _LOOK_AGAIN_S = 2.0, 0.005


def seal(plain: bytes, key: bytes, nonce: bytes) -> bytes:
    """Encrypt under a key that is used once: a stream of SHAKE-256 over key and nonce, and a MAC over the whole."""
    cipher = _mixed(plain, hashlib.shake_256(b"stream" + key + nonce).digest(len(plain)))
    return nonce + hmac.new(key, nonce + cipher, hashlib.sha256).digest() + cipher


def unseal(sealed: bytes, key: bytes) -> bytes:
    """Decrypt. Raises ValueError when the bytes are not what was sealed."""
    nonce, mac, cipher = sealed[:_NONCE], sealed[_NONCE : _NONCE + _MAC], sealed[_NONCE + _MAC :]
    if not hmac.compare_digest(mac, hmac.new(key, nonce + cipher, hashlib.sha256).digest()):
        raise ValueError("the order of this job cannot be opened: it was changed, or the key is another one")
    return _mixed(cipher, hashlib.shake_256(b"stream" + key + nonce).digest(len(cipher)))


def _mixed(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(len(one), "big")


def main() -> int:
    """Open the order, and become the step's program. Comes back only when it is too late for that."""
    shared = Path.cwd()
    start = json.loads(_order(shared))
    if time.time() > start["not_after"]:
        return TOO_LATE
    _tidy_environment(shared)
    _await_header()
    os.write(1, start["begins"].encode() + b"\n")
    _become(start)
    return 127


def _await_header() -> None:
    """Wait for Ray's own line in the log, which Ray writes before it starts us and may let go of afterwards.

    Behind our first line it would be taken for the step's output. Versions of Ray that write none cost the wait.
    """
    until = time.monotonic() + _HEADER_S
    try:
        if not stat.S_ISREG(os.fstat(1).st_mode):
            return
        with open("/proc/self/fd/1", "rb") as log:  # noqa: PTH123  (a link that only opening follows)
            while _HEADER not in log.read() and time.monotonic() < until:
                time.sleep(_LOOK_AGAIN_S)
                log.seek(0)
    except OSError:
        return


def _become(start: dict[str, Any]) -> None:
    """Give the order on standard input, from a file without a name: it may be larger than a pipe holds."""
    with tempfile.TemporaryFile() as order:
        order.write(start["order"].encode())
        order.seek(0)
        os.dup2(order.fileno(), 0)
    os.execvp(start["command"][0], start["command"])  # noqa: S606  the command is our own


def _order(shared: Path) -> bytes:
    """Read the sealed order, which came as a package of its own, and remove it."""
    key = bytes.fromhex(os.environ[KEY])
    for folder in _paths():
        path = folder / SEALED
        if folder != shared and path.exists():
            sealed = path.read_bytes()
            path.unlink()
            return unseal(sealed, key)
    raise SystemExit("flexcore: the order of this job is not there; it runs once only")


def _tidy_environment(shared: Path) -> None:
    """Take out what brought us here, so that neither the step nor the tasks that it starts have it."""
    others = [str(each) for each in _paths() if each != shared and each.parent.name != _PACKAGES]
    os.environ.pop("PYTHONPATH", None)
    if others:
        os.environ["PYTHONPATH"] = os.pathsep.join(others)
    for name in _OWN:
        os.environ.pop(name, None)
    if _CONFIG in os.environ:
        config = json.loads(os.environ[_CONFIG])
        environment = config.get("runtime_env") or {}
        environment.pop("py_modules", None)
        variables = environment.get("env_vars") or {}
        environment["env_vars"] = {name: value for name, value in variables.items() if name not in _OWN}
        os.environ[_CONFIG] = json.dumps(config)


def _paths() -> list[Path]:
    return [Path(each) for each in os.environ.get("PYTHONPATH", "").split(os.pathsep) if each]


if __name__ == "__main__":
    sys.exit(main())
