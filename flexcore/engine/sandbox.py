"""One child process that evaluates JavaScript (its program is sandbox_main.py), as its parent sees it.

Requests are answered in the order sent. The child is told nothing but source and values: its environment is empty, its
folder is the root, and it ends when this process does, because its input ends. Whoever owns a `Sandbox` is told of
every reply and of its end; what that means for the requests is the owner's business (child.py, evaluate.py).
"""

import asyncio
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from flexcore.engine.sandbox_main import FAILURE, LARGE, READY, VALUE
from flexcore.model.errors import InternalError


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxLimits:
    """What one evaluation may use: CPU seconds, bytes of memory inside JavaScript, bytes of JSON as a result."""

    seconds: float = 0.5
    memory_bytes: int = 32 << 20
    result_bytes: int = 8 << 20

    @property
    def hang_seconds(self) -> float:
        """Give up on a child after this long by the clock, should its own CPU timers not end it."""
        return max(4 * self.seconds, self.seconds + 1.5)


class ReplyKind(Enum):
    """What a reply's body is."""

    READY = READY
    VALUE = VALUE
    LARGE = LARGE  # a value with integers that JavaScript holds as inexact numbers
    FAILURE = FAILURE


class Sandbox(asyncio.SubprocessProtocol):
    """A running child. `on_reply` gets each reply, `on_end` the return code, once."""

    def __init__(self, on_reply: Callable[[ReplyKind, bytes], None], on_end: Callable[[int], None]) -> None:
        self._on_reply = on_reply
        self._on_end = on_end
        self._received = bytearray()
        self._process: asyncio.SubprocessTransport | None = None
        self._input: asyncio.WriteTransport | None = None
        self.ended = asyncio.Event()

    async def start(self, limits: SandboxLimits) -> None:
        """Start the program; it reports READY when it can take requests."""
        loop = asyncio.get_running_loop()
        await loop.subprocess_exec(
            lambda: self,
            *_command(limits),
            stderr=asyncio.subprocess.DEVNULL,
            cwd="/",
            env={"TZ": "UTC"},  # what a date without a zone means must not depend on the machine
        )

    def send(self, request: bytes) -> None:
        """Queue a request, made by `frame`."""
        if self._input is not None and not self._input.is_closing():
            self._input.write(request)

    def kill(self) -> None:
        """End the child at once; `on_end` follows."""
        if self._process is not None and self._process.get_returncode() is None:
            self._process.kill()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.SubprocessTransport)
        self._process = transport
        stdin = transport.get_pipe_transport(0)
        assert isinstance(stdin, asyncio.WriteTransport)
        self._input = stdin

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        received = self._received
        received += data
        start = 0
        while (body := start + 5) <= len(received):
            end = body + int.from_bytes(received[start : start + 4])
            if end > len(received):
                break
            self._on_reply(ReplyKind(bytes(received[start + 4 : body])), bytes(received[body:end]))
            start = end
        del received[:start]

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell of the end. asyncio calls this when the process is gone and every pipe has been read to its end."""
        assert self._process is not None
        code = self._process.get_returncode()
        self.ended.set()
        self._on_end(-1 if code is None else code)


def frame(source: bytes, names: bytes) -> bytes:
    """Make a request of an expression and the JSON object of the names it may read."""
    return len(source).to_bytes(4) + len(names).to_bytes(4) + source + names


def _command(limits: SandboxLimits) -> list[str]:
    extension = importlib.util.find_spec("_quickjs")
    if extension is None or extension.origin is None:
        raise InternalError("expressions need the package quickjs-ng", hint="install flexcore with its dependencies")
    program = Path(__file__).with_name("sandbox_main.py")
    numbers = [str(limits.seconds), str(limits.memory_bytes), str(limits.result_bytes)]
    return [sys.executable, "-I", "-S", str(program), str(Path(extension.origin).parent), *numbers]
