"""Runs a command the way the shim does, but passes its output on at once instead of keeping it in files."""

from __future__ import annotations

import json
import os
import select
from collections.abc import Mapping, Sequence
from typing import Any

from . import shim_main
from .results import TAIL_BYTES

_CHUNK = 1 << 16
_SIGTERM = 15


class Passed(shim_main.Stream):
    """One output of the command: a pipe in, one of our own outputs out. The last bytes are remembered."""

    def __init__(self, target: int) -> None:
        self.source, self.write_end = shim_main.high_pipe()
        os.set_blocking(self.source, False)
        self.target = target
        self.dropped = 0
        self.tail = b""

    def pump(self) -> bool:
        """Move what is there; False at the end of the stream. Who reads slowly slows the command down."""
        try:
            data = os.read(self.source, _CHUNK)
        except BlockingIOError:
            return True
        pass_on(self.target, data)
        self.tail = (self.tail + data)[-TAIL_BYTES:]
        return bool(data)

    def close(self) -> None:
        """Take what is still in the pipe."""
        super().close()
        os.close(self.source)


def pass_on(target: int, data: bytes) -> None:
    """Write all of it. Once nobody reads any more there is nobody left to tell."""
    while data:
        try:
            data = data[os.write(target, data) :]
        except BlockingIOError:  # somebody else made the terminal or pipe so
            select.select([], [target], [])
        except OSError:
            return


def run(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    cwd: str,
    outputs: Sequence[Passed],
    wake: int,
    grace: float,
    stdin: bytes = b"",
    script: bytes = b"",
    time_limit: float | None = None,
    memory_limit: int | None = None,
) -> dict[str, Any]:
    """Run a command and all that it starts to the end; give the status as the shim would write it. Seconds and bytes.

    `wake` is where our own signals come out: TERM ends the command, with `grace` to finish.
    """
    order = {
        "argv": argv,
        "env": env,
        "cwd": cwd,
        "stdin": stdin,
        "script": script,
        "grace": grace,
        "time_limit": time_limit,
        "memory_limit": memory_limit,
    }
    shim = shim_main.Shim(order, outputs)
    problem = shim.launch()
    shim.supervise(wake)
    status: dict[str, Any] = json.loads(shim_main.status_text(shim, problem))
    return status


def is_told_to_end(wake: int) -> bool:
    """Whether TERM came since somebody looked. Says so only once."""
    signals = b""
    while select.select([wake], [], [], 0)[0]:
        signals += os.read(wake, 512)
    return _SIGTERM in signals
