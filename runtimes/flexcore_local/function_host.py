"""The function host: a warm process that calls functions marked with `flexcore.task` for one server process.

Frames on the socket are a four-byte length and a JSON list; each frame carries as many messages as were ready.
In:  `[id, name, args]` calls, `[id]` cancels. Out: `[id, outcome, …]`, see the constants.
Synchronous functions run on worker threads that grow while calls wait; asynchronous ones on one event loop. It never
outlives its server: the end of the socket ends it and everything it started, whatever user code does meanwhile.
"""

import contextlib
import importlib
import json
import os
import select
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from queue import Empty, SimpleQueue
from typing import Any

import msgspec

RETURNED, RAISED, PRINTED, UNSTOPPABLE, DROPPED = range(5)
MARK = "__flexcore_task__"

_SOCKET_FD = 3
_STALE_S = 0.005  # a call that waited this long gets another thread
_MOST_OUT = 10_000  # messages that may wait to be sent before printing blocks

_CO_COROUTINE = 0x80  # `inspect` costs 10 ms to import

_call_id: ContextVar[int] = ContextVar("call", default=0)


class NotCallable(Exception):
    """A step names what is no function that it may call."""


class Host:
    """Everything of the process: who waits, who runs, what goes out."""

    def __init__(self, connection: socket.socket, limit: int) -> None:
        self.connection = connection
        self.limit = limit
        self.functions: dict[str, tuple[Callable[..., Any], bool]] = {}
        self.calls: SimpleQueue[tuple[int, str, dict[str, Any], float]] = SimpleQueue()
        self.out: SimpleQueue[list[Any]] = SimpleQueue()
        self.workers = 0
        self.done = 0
        self.oldest = 0.0
        self.pressure = threading.Event()
        self.loop_lock = threading.Lock()
        self.waiting: set[int] = set()  # accepted and not begun; leaving the set is what begins a call
        self.loop: Any = None  # asyncio is imported when the first async function is called
        self.tasks: dict[int, Any] = {}

    def run(self) -> None:
        """Read frames until the server is gone."""
        for target in (self.send, self.watch, self.grow):
            threading.Thread(target=target, daemon=True).start()
        self.add_worker()
        decode = msgspec.json.Decoder(list[list[Any]]).decode
        buffer = bytearray()
        while data := self.connection.recv(1 << 18):
            buffer += data
            while len(buffer) >= 4 and len(buffer) >= (end := 4 + int.from_bytes(buffer[:4], "big")):
                frame = decode(bytes(buffer[4:end]))
                del buffer[:end]
                self.accept(frame)

    def accept(self, frame: list[list[Any]]) -> None:
        """Queue the calls of a frame; asynchronous ones known as such go to the loop in one go."""
        now = time.monotonic()
        asynchronous = []
        for message in frame:
            if len(message) == 1:
                self.cancel(message[0])
                continue
            number, name, args = message
            known = self.functions.get(name)
            self.waiting.add(number)
            if known is not None and known[1]:
                asynchronous.append((number, known[0], args))
            else:
                self.calls.put((number, name, args, now))
        if asynchronous:
            self.loop.call_soon_threadsafe(self.begin, asynchronous)
        self.pressure.set()

    def cancel(self, number: int) -> None:
        """Drop a call that waits, cancel one on the loop; say so when it can only be killed."""
        if self.claim(number):
            self.out.put([number, DROPPED])
        elif self.loop is not None:
            self.loop.call_soon_threadsafe(self.cancel_task, number)
        else:
            self.out.put([number, UNSTOPPABLE])

    def claim(self, number: int) -> bool:
        """Take a call out of those that wait. Exactly one caller gets it: the one that runs it, or that drops it."""
        try:
            self.waiting.remove(number)
        except KeyError:
            return False
        return True

    def work(self) -> None:
        """Call synchronous functions, one at a time, for ever."""
        while True:
            number, name, args, self.oldest = self.calls.get()
            _call_id.set(number)
            try:
                function, is_async = self.functions.get(name) or self.resolve(name)
                if is_async:
                    self.loop.call_soon_threadsafe(self.begin, [(number, function, args)])
                elif self.claim(number):
                    self.out.put([number, RETURNED, function(**args)])
            except BaseException as error:  # noqa: BLE001, RUF100 (whatever the function raised is its outcome)
                self.waiting.discard(number)
                self.out.put(failure(number, error))
            self.done += 1

    def resolve(self, name: str) -> tuple[Callable[..., Any], bool]:
        """Import a function. Raises NotCallable for what is not there or not marked."""
        module_name, _, path = name.partition(":")
        try:
            found: Any = importlib.import_module(module_name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
                raise
            raise NotCallable(f"module {module_name!r} is not in the workflow's folder nor installed") from error
        for part in path.split("."):
            found = getattr(found, part, None)
        if not callable(found):
            raise NotCallable(f"module {module_name!r} has no function {path!r}")
        if getattr(found, MARK, None) is not True:
            raise NotCallable(f"{name} is not marked with @flexcore.task, so it cannot be called")
        is_async = bool(getattr(getattr(found, "__code__", None), "co_flags", 0) & _CO_COROUTINE)
        if is_async:
            self.start_loop()
        self.functions[name] = (found, is_async)
        return self.functions[name]

    def start_loop(self) -> None:
        """Bring up the event loop for asynchronous functions, once."""
        with self.loop_lock:
            if self.loop is None:
                import asyncio  # 30 ms that hosts of plain functions need not pay

                loop = asyncio.new_event_loop()
                threading.Thread(target=loop.run_forever, daemon=True).start()
                self.loop = loop

    def begin(self, calls: list[tuple[int, Callable[..., Any], dict[str, Any]]]) -> None:
        """On the loop: make a task of each call that nobody cancelled."""
        for number, function, args in calls:
            if self.claim(number):
                _call_id.set(number)
                self.tasks[number] = self.loop.create_task(self.await_call(number, function, args))
        _call_id.set(0)

    def cancel_task(self, number: int) -> None:
        """On the loop: cancel a task, or say that the call is none."""
        task = self.tasks.get(number)
        if task is None:
            self.out.put([number, UNSTOPPABLE])
        else:
            task.cancel()

    async def await_call(self, number: int, function: Callable[..., Any], args: dict[str, Any]) -> None:
        """Await one call and report it."""
        try:
            self.out.put([number, RETURNED, await function(**args)])
        except BaseException as error:  # noqa: BLE001, RUF100 (as for synchronous ones; a cancelled one is reported too)
            self.out.put(failure(number, error))
        finally:
            del self.tasks[number]

    def send(self) -> None:
        """Send what is ready, in frames as large as the moment gives."""
        while True:
            batch = [self.out.get()]
            try:
                while len(batch) < 1000:
                    message = self.out.get_nowait()
                    last = batch[-1]
                    if (
                        message[1] == PRINTED
                        and last[1] == PRINTED
                        and last[:3] == message[:3]
                        and len(last[3]) < 65536
                    ):
                        last[3] += message[3]
                    else:
                        batch.append(message)
            except Empty:
                pass
            frame = encode(batch)
            self.connection.sendall(len(frame).to_bytes(4, "big") + frame)

    def grow(self) -> None:
        """Add threads while calls wait and more would help: all are stuck, or block and leave the processor idle."""
        while True:
            self.pressure.wait()
            done, cpu = self.done, time.process_time()
            time.sleep(_STALE_S)
            waiting = self.calls.qsize()
            if not waiting:
                self.pressure.clear()
            elif time.monotonic() - self.oldest > _STALE_S:
                idle = time.process_time() - cpu < _STALE_S / 2
                wanted = self.workers if idle else int(self.done == done)
                for _ in range(min(waiting, wanted, self.limit - self.workers)):
                    self.add_worker()

    def add_worker(self) -> None:
        """Start one more thread."""
        self.workers += 1
        threading.Thread(target=self.work, daemon=True).start()

    def watch(self) -> None:
        """End at once when the server is gone, even if every other thread is stuck in user code."""
        poller = select.poll()
        poller.register(self.connection, select.POLLRDHUP)
        poller.poll()
        os.killpg(0, signal.SIGKILL)


class Printed:
    """Stands for stdout or stderr: what a call prints goes to its log."""

    encoding = "utf-8"
    errors = "replace"

    def __init__(self, host: Host, stream: int) -> None:
        self.host = host
        self.stream = stream

    def write(self, text: str) -> int:
        """Pass text on; what nobody's call prints goes to the process's own output."""
        number = _call_id.get()
        if not number:
            os.write(self.stream, text.encode(errors="replace"))
            return len(text)
        while self.host.out.qsize() > _MOST_OUT:
            time.sleep(0.001)
        self.host.out.put([number, PRINTED, self.stream, text.encode(errors="replace").decode()])
        return len(text)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """A log is no terminal."""
        return False

    def fileno(self) -> int:
        """The process's own output, for whoever goes below Python."""
        return self.stream


def encode(batch: list[list[Any]]) -> bytes:
    """Encode a batch; if a result in it is not JSON, that call alone fails."""
    try:
        frame = _encoder.encode(batch)
    except Exception:  # noqa: BLE001, RUF100 (values of users raise what they like while they are encoded)
        return _encoder.encode([_encodable(message) for message in batch])
    # NaN and infinity come out as null, so only a frame with a null can hold one.
    return _encoder.encode([_encodable(message) for message in batch]) if b"null" in frame else frame


_encoder = msgspec.json.Encoder(decimal_format="string")


def _encodable(message: list[Any]) -> list[Any]:
    if message[1] != RETURNED or message[2] is None:
        return message
    try:
        if b"null" in _encoder.encode(message):
            json.dumps(message[2], allow_nan=False, default=lambda value: None)
    except Exception as error:  # noqa: BLE001, RUF100 (as above)
        return [message[0], RAISED, "InvalidResult", f"the result is not JSON: {error}", "user"]
    return message


def failure(number: int, error: BaseException) -> list[Any]:
    """Describe what a call raised; the traceback, without our frames, goes to its log."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename == __file__:
        frames = frames.tb_next
    name = type(error).__name__
    message = name
    with contextlib.suppress(Exception):  # an exception of users may fail to describe itself
        message = str(error).encode(errors="replace").decode() or name
        if frames is not None:
            traceback.print_exception(type(error), error, frames)
    error_class = {"MemoryError": "oom", "NotCallable": "input", "CancelledError": "cancelled"}.get(name, "user")
    return [number, RAISED, name, message, error_class]


def main() -> int:
    """Serve until the server is gone. The arguments after ours are the folder and the limit of calls."""
    folder, limit = sys.argv[3], int(sys.argv[4])
    os.chdir(folder)
    sys.path[0] = folder
    os.closerange(_SOCKET_FD + 1, 1 << 20)  # whatever else the server had open is not ours
    connection = socket.socket(fileno=os.dup(_SOCKET_FD))
    os.close(_SOCKET_FD)
    host = Host(connection, limit)
    sys.stdout, sys.stderr = Printed(host, 1), Printed(host, 2)
    with contextlib.suppress(OSError):  # reset instead of closed: the server is gone all the same
        host.run()
    os.killpg(0, signal.SIGKILL)
    return 0
