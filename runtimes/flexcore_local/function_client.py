"""The server's end of a function host: starts it, sends calls in batches, hands out what comes back.

The hot path of small steps: one encode per loop tick, one decode per frame, one future per call. It must never wait
for a single call. A host that ends fails every call in flight as lost.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Handle
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.runtime.flexcore_far import start
from flexcore.runtime.interface import Failed, LogChunk, LogStream, Succeeded
from flexcore_local.function_host import PRINTED, RAISED, RETURNED, UNSTOPPABLE

FUNCTION = "function"
"""The name in the handles of all calls: they cannot be found again, so no name of their own is worth its cost."""

Outcome: TypeAlias = Succeeded | Failed

CANCELLED = Failed(Failure(message="cancelled", error_class=ErrorClass.CANCELLED))

_OURS = str(Path(__file__).parents[1])  # the folder that this package is in
_LAST_WORDS_BYTES = 4096
_STREAMS = {1: LogStream.STDOUT, 2: LogStream.STDERR}


class Call:
    """One call in flight: what it printed so far, and its outcome once it is there."""

    __slots__ = ("_kept", "_offsets", "_waiters", "host", "number", "outcome", "printed")

    def __init__(self, host: "FunctionHost", number: int) -> None:
        self.host = host
        self.number = number
        self.outcome: Outcome | None = None
        self.printed: list[LogChunk] = []
        self._kept = 0
        self._offsets: dict[LogStream, int] = {}
        self._waiters: list[asyncio.Future[None]] = []

    def news(self) -> asyncio.Future[None]:
        """Be woken by more output or the outcome. Every reader has a future of its own: cancelling it harms nobody."""
        waiter = self.host.loop.create_future()
        self._waiters.append(waiter)
        return waiter

    def settle(self, outcome: Outcome) -> None:
        """Set the outcome; the first one counts."""
        if self.outcome is None:
            self.outcome = outcome
            self._wake()

    def add_output(self, stream: LogStream, data: bytes) -> None:
        """Keep output, up to a limit."""
        data = data[: self.host.max_output_bytes - self._kept]
        if not data:
            return
        self._kept += len(data)
        offset = self._offsets.get(stream, 0)
        self._offsets[stream] = offset + len(data)
        self.printed.append(LogChunk(stream, offset, data))
        self._wake()

    def _wake(self) -> None:
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            if not waiter.done():
                waiter.set_result(None)


class FunctionHost(asyncio.Protocol):
    """One host process and the calls it has."""

    def __init__(self, folder: Path, environment: Mapping[str, str], limit: int, max_output_bytes: int) -> None:
        self.calls: dict[int, Call] = {}
        self.ended = False
        self.loop = asyncio.get_running_loop()
        self.max_output_bytes = max_output_bytes
        self._encode = msgspec.json.Encoder().encode
        self._decode = msgspec.json.Decoder(list[list[Any]]).decode
        self._buffer = bytearray()
        self._outgoing: list[list[Any]] = []
        self._next = 0
        self._transport: asyncio.WriteTransport | None = None
        self._last_words = b""
        self._socket, self._output, self._pid = _spawn(folder, environment, limit)
        self.loop.add_reader(self._output, self._read_output)
        self.handle = Handle(1, FUNCTION, str(self._pid), transient=True)
        self._connecting = self.loop.create_task(self._connect())

    def call(self, name: str, args: Mapping[str, JSON]) -> Call:
        """Call a function; the frame goes out with all others of this tick of the loop."""
        self._next += 1
        call = Call(self, self._next)
        self.calls[self._next] = call
        self._post([self._next, name, args])
        return call

    def cancel(self, call: Call) -> None:
        """Ask for the end of a call. A synchronous function in the middle cannot be asked: the host is killed."""
        if call.number in self.calls:
            self._post([call.number])

    def kill(self, culprit: Call | None = None, outcome: Outcome = CANCELLED) -> None:
        """End the host and all it started. `culprit` gets the outcome; calls beside it are lost."""
        if culprit is not None:
            culprit.settle(outcome)
        self._end("it was ended together with a call that could not be stopped otherwise")

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Send what was posted before."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport
        if self._outgoing:
            self._flush()

    def data_received(self, data: bytes) -> None:
        """Hand out every message of every whole frame."""
        buffer = self._buffer
        buffer += data
        begin = 0
        while len(buffer) - begin >= 4:
            end = begin + 4 + int.from_bytes(buffer[begin : begin + 4], "big")
            if len(buffer) < end:
                break
            for message in self._decode(memoryview(buffer)[begin + 4 : end].tobytes()):
                self._receive(message)
            begin = end
        if begin:
            del buffer[:begin]

    def connection_lost(self, error: Exception | None) -> None:
        """The process is gone."""
        self._read_output()
        words = self._last_words.decode(errors="replace").strip()
        self._end(f"it ended by itself{': ' + words[-500:] if words else ''}")

    async def _connect(self) -> None:
        await self.loop.create_connection(lambda: self, sock=self._socket)

    def _receive(self, message: list[Any]) -> None:
        call = self.calls.get(message[0])
        if call is None:
            return
        kind = message[1]
        if kind == PRINTED:
            call.add_output(_STREAMS[message[2]], message[3].encode())
            return
        if kind == UNSTOPPABLE:
            self.kill(call)
            return
        del self.calls[message[0]]
        if kind == RETURNED:
            call.settle(Succeeded(message[2]))
        elif kind == RAISED:
            failure = Failure(name=message[2], message=message[3], error_class=ErrorClass(message[4]))
            call.settle(Failed(failure))
        else:
            call.settle(CANCELLED)

    def _post(self, message: list[Any]) -> None:
        if not self._outgoing and self._transport is not None:
            self.loop.call_soon(self._flush)
        self._outgoing.append(message)

    def _flush(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if self._transport is not None and not self.ended and outgoing:
            frame = self._frame(outgoing)
            self._transport.write(len(frame).to_bytes(4, "big") + frame)

    def _frame(self, outgoing: list[list[Any]]) -> bytes:
        try:
            return self._encode(outgoing)
        except (TypeError, ValueError):  # one of them, which must not harm the others
            return self._encode([message for message in outgoing if self._can_be_sent(message)])

    def _can_be_sent(self, message: list[Any]) -> bool:
        try:
            self._encode(message)
        except (TypeError, ValueError) as error:
            failure = Failure(message=f"the arguments are not JSON: {error}", error_class=ErrorClass.INPUT)
            self.calls.pop(message[0]).settle(Failed(failure))
            return False
        return True

    def _end(self, why: str) -> None:
        if self.ended:
            return
        self.ended = True
        _kill_group(self._pid)
        self.loop.remove_reader(self._output)
        os.close(self._output)
        if self._transport is not None:
            self._transport.close()
        lost = Failed(Failure(message=f"the function host is gone: {why}", error_class=ErrorClass.LOST))
        calls, self.calls = self.calls, {}
        for call in calls.values():
            call.settle(lost)

    def _read_output(self) -> None:
        """Keep the last of what goes past Python's print: it explains crashes."""
        if self.ended:
            return
        try:
            data = os.read(self._output, 1 << 16)
        except BlockingIOError:
            return
        self._last_words = (self._last_words + data)[-_LAST_WORDS_BYTES:]
        if not data:
            self.loop.remove_reader(self._output)


def _spawn(folder: Path, environment: Mapping[str, str], limit: int) -> tuple[socket.socket, int, int]:
    ours, theirs = socket.socketpair()
    output, output_end = os.pipe()
    nothing = os.open(os.devnull, os.O_RDONLY)
    ours.setblocking(False)
    os.set_blocking(output, False)
    try:
        pid = os.posix_spawn(
            sys.executable,
            [sys.executable, start.__file__, "flexcore_local.function_host", _OURS, str(folder.absolute()), str(limit)],
            dict(environment),
            file_actions=[
                (os.POSIX_SPAWN_DUP2, nothing, 0),
                (os.POSIX_SPAWN_DUP2, output_end, 1),
                (os.POSIX_SPAWN_DUP2, output_end, 2),
                (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP),
        )
    except OSError as error:
        ours.close()
        os.close(output)
        raise RuntimeUnavailable(f"cannot start a function host: {error}") from error
    finally:
        theirs.close()
        os.close(output_end)
        os.close(nothing)
    return ours, output, pid


def _kill_group(pid: int) -> None:
    """Only before its end was collected, so that the number cannot have become another's."""
    try:
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    except (ProcessLookupError, ChildProcessError):
        return
