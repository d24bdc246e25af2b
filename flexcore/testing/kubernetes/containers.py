"""A container as a process of this machine, in a box of namespaces where its volumes are where it expects them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from flexcore.testing.kubernetes.logs import ContainerLog

_PROGRAM = Path(__file__).with_name("boxed_main.py")
_ABOVE_PYTHON = tuple(map(str, (Path(sys.base_prefix), *Path(sys.base_prefix).parents)))[:-1]
_LOOK_AT_MEMORY_S = 0.05


class CannotStart(Exception):
    """The container could not be started; the message is the container runtime's."""


@dataclass(frozen=True, slots=True)
class Mount:
    """A file or folder of this machine, and where the container sees it."""

    source: str
    target: str
    read_only: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """What to run, as whom, and in what surroundings. `scratch` is an empty folder for the box.

    In `opened` are folders that everybody may enter inside, whatever they are outside.
    """

    command: tuple[str, ...]
    env: Mapping[str, str]
    folder: str
    mounts: tuple[Mount, ...]
    scratch: str
    host_name: str
    user: int | None = None
    group: int = 0
    more_groups: tuple[int, ...] = ()
    is_root_read_only: bool = False
    opened: tuple[str, ...] = _ABOVE_PYTHON


class Container:
    """One run of a container."""

    def __init__(self, order: Order, log: ContainerLog, memory_bytes: float | None) -> None:
        self._order = order
        self._memory_bytes = memory_bytes
        self._process: asyncio.subprocess.Process | None = None
        self._pid = 0
        self._tasks: list[asyncio.Task[None]] = []
        self.log = log
        self.out_of_memory = False

    async def start(self) -> None:
        """Start it. Raises CannotStart when there is nothing to be run."""
        written, tell = os.pipe(), os.pipe()
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-I", "-S", str(_PROGRAM), str(tell[1])),
            stdin=asyncio.subprocess.PIPE,
            stdout=written[1],
            stderr=written[1],
            pass_fds=(tell[1],),
            start_new_session=True,
            env={},
        )
        os.close(written[1])
        os.close(tell[1])
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(asdict(self._order)).encode())
        self._process.stdin.close()
        self._tasks.append(asyncio.create_task(self._keep_log(written[0])))
        await self._hear(tell[0])
        if self._memory_bytes is not None:
            self._tasks.append(asyncio.create_task(self._watch_memory(self._memory_bytes)))

    async def wait(self) -> int:
        """Wait for its end, and for the last of its log; give the exit code."""
        assert self._process is not None
        code = await self._process.wait()
        await self._tasks[0]
        for task in self._tasks[1:]:
            task.cancel()
        return code if code >= 0 else 128 - code

    def send(self, number: signal.Signals) -> None:
        """Send its first process a signal."""
        if self._process is None or self._process.returncode is not None:
            return
        with suppress(ProcessLookupError):
            if self._pid:
                os.kill(self._pid, number)
            elif number is signal.SIGKILL:  # it is being started: what starts it takes it along
                self._process.kill()

    async def end(self, grace_s: float) -> int:
        """Ask it to end, and kill it after the grace."""
        if self._process is None:
            return 128
        if grace_s > 0:
            self.send(signal.SIGTERM)
            with suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    return await self.wait()
        self.send(signal.SIGKILL)
        return await self.wait()

    async def _hear(self, descriptor: int) -> None:
        reader = await _reader(descriptor)
        text = (await reader.read()).decode(errors="replace")
        told = dict(line.partition(" ")[::2] for line in text.splitlines())
        self._pid = int(told.get("pid", 0))
        if "error" in told:
            assert self._process is not None
            await self._process.wait()
            await self._tasks[0]
            raise CannotStart(told["error"])

    async def _keep_log(self, descriptor: int) -> None:
        reader = await _reader(descriptor)
        while data := await reader.read(256 * 1024):
            self.log.feed(data)
        self.log.end()

    async def _watch_memory(self, limit_bytes: float) -> None:
        while True:
            used = {pid: _resident(pid) for pid in _tree(self._pid)}
            if sum(used.values()) > limit_bytes:
                self.out_of_memory = True
                with suppress(ProcessLookupError):
                    os.kill(max(used, key=lambda pid: used[pid]), signal.SIGKILL)
            await asyncio.sleep(_LOOK_AT_MEMORY_S)


def why_not_boxed() -> str:
    """Say why this machine cannot run containers, or nothing if it can: by trying."""
    with tempfile.TemporaryDirectory() as folder:
        order = Order(command=("true",), env=dict(os.environ), folder="/", mounts=(), scratch=folder, host_name="try")
        hear, tell = os.pipe()
        tried = subprocess.run(
            [sys.executable, "-I", "-S", str(_PROGRAM), str(tell)],
            input=json.dumps(asdict(order)).encode(),
            pass_fds=(tell,),
            capture_output=True,
            check=False,
        )
        os.close(tell)
        with os.fdopen(hear) as told:
            said = told.read()
    return "" if tried.returncode == 0 else f"no container can be made here: {said.strip() or tried.stderr.decode()}"


async def _reader(descriptor: int) -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1024 * 1024)
    pipe = os.fdopen(descriptor, "rb", buffering=0)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


def _tree(pid: int) -> list[int]:
    found, look = [], [pid]
    while look:
        each = look.pop()
        found.append(each)
        with suppress(OSError):
            for children in Path(f"/proc/{each}/task").glob("*/children"):
                look.extend(map(int, children.read_text().split()))
    return found


def _resident(pid: int) -> int:
    try:
        return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0
