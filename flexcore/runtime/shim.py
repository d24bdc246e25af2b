"""Local commands that outlive the control plane: start, find, follow, cancel and remove what runs under a shim.

Every attempt has a folder; its shim (`shim_main.py`) is the only writer there. Nothing is kept in this process, so
finding work again after a restart is the same code as finding it a moment later. The folder's files tell all:
`record` exists before the command does, `status` once all is over, and `lock` is held as long as the shim lives.
A record without a status and without a living shim is lost work; what is left of its tree is ended here.
"""

import asyncio
import fcntl
import marshal
import os
import shutil
import signal
import sys
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from importlib.util import cache_from_source
from pathlib import Path
from typing import TypeAlias

import msgspec

from flexcore.model.errors import InternalError, RuntimeUnavailable
from flexcore.model.values import JSON
from flexcore.runtime.flexcore_far import shim_main
from flexcore.runtime.interface import LogChunk, LogStream
from flexcore.runtime.shim_watch import NAME_VARIABLE as NAME_VARIABLE
from flexcore.runtime.shim_watch import Ending, Tail, end_leftovers, is_alive, signal_shim
from flexcore.runtime.shim_watch import Record as Record
from flexcore.runtime.shim_watch import owned_processes as owned_processes

_REMOVED = ".removed"
_STARTING_S = 10.0
_UNRESPONSIVE_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """What to run. It reaches the shim through a pipe, so secrets in `env`, `stdin` and `script` touch no disk.

    `script`, if not empty, can be read by the command at `/dev/fd/3`. Above `max_output_bytes` per stream the output
    is left out but for its last 64 KiB. `notes` are written to the folder as they are: no secrets there.

    With `prepares`, the command begins with work that is not the step's own, within `prepare_limit`: `time_limit` and
    `memory_limit_bytes` hold from the moment on when it sends its parent SIGUSR1. What it has to say until then it
    may write to the file `system` of the folder, which is followed like the two outputs.
    """

    argv: tuple[str, ...]
    env: Mapping[str, str]
    cwd: Path
    stdin: bytes = b""
    script: bytes = b""
    time_limit: timedelta | None = None
    grace: timedelta = timedelta(seconds=30)
    memory_limit_bytes: int | None = None
    max_output_bytes: int = 64 << 20
    notes: Mapping[str, JSON] = field(default_factory=dict)
    prepares: bool = False
    prepare_limit: timedelta | None = None


class State(StrEnum):
    """What an attempt's folder says. ABSENT also covers a shim that died before it started the command."""

    ABSENT = "absent"
    STARTING = "starting"
    RUNNING = "running"
    ENDED = "ended"
    LOST = "lost"


class Reason(StrEnum):
    """Why a command ended, when it did not end by itself."""

    BY_ITSELF = ""
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"
    OOM = "oom"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """How the command ended: one of `exit_code` and `signal`; `problem` says what could not be started.

    `started` and `finished` are seconds since the epoch, `dropped` counts bytes of output per stream.
    """

    exit_code: int | None
    signal: int | None
    reason: Reason
    problem: str
    errno: int
    started: float
    finished: float
    cpu_s: float
    peak_bytes: int
    dropped: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lost:
    """The shim was killed: how the command ended can never be known. `ended_by_us` if that was our doing."""

    ended_by_us: bool
    detail: str = ""


End: TypeAlias = Status | Lost


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """An attempt's folder, read. `record` is there from RUNNING on, `status` when ENDED."""

    folder: Path
    state: State
    record: Record | None = None
    status: Status | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The outcome of a start; `adopted` when another shim had the folder first."""

    found: Found
    adopted: bool


async def start(folder: Path, command: Command) -> Started:
    """Run a command in the attempt's folder, or find that it runs or ran already. Returns once it is recorded.

    Cancelling the caller does not stop a start under way. Raises RuntimeUnavailable when no process can be started.
    """
    launch = asyncio.ensure_future(asyncio.to_thread(_launch, folder, _order(folder, command)))
    try:
        pid = await asyncio.shield(launch)
    except OSError as error:
        raise RuntimeUnavailable(
            f"cannot start a process for {folder.name}: {error}", hint="see the machine's memory, processes and disk"
        ) from error
    found = await settled(folder)
    if found.record is None:
        raise RuntimeUnavailable(f"the shim of {folder.name} ended before it started: {_crash(folder)}")
    return Started(found, adopted=found.record.pid != pid)


def find(folder: Path) -> Found:
    """Read an attempt's folder. Cheap, changes nothing."""
    record, status = _read_record(folder), _read_status(folder)
    if status is None and record is None:
        held = _lock_held(folder)
        record = _read_record(folder)  # it may have come between the two looks
        if record is None:
            return Found(folder=folder, state=State.STARTING if held else State.ABSENT)
    if status is None and record is not None:
        if is_alive(record) and _lock_held(folder):
            return Found(folder=folder, state=State.RUNNING, record=record)
        status = _read_status(folder)  # it may have ended between the two looks
    state = State.LOST if status is None else State.ENDED
    return Found(folder=folder, state=state, record=record, status=status)


async def settled(folder: Path) -> Found:
    """Find, but wait until a shim that is just starting has recorded itself."""
    found = find(folder)
    until = asyncio.get_running_loop().time() + _STARTING_S
    while found.state is State.STARTING:
        if asyncio.get_running_loop().time() > until:
            raise RuntimeUnavailable(f"the shim of {folder.name} holds its lock but does not start")
        await asyncio.sleep(0.005)
        found = find(folder)
    return found


async def follow(folder: Path, offsets: Mapping[LogStream, int]) -> AsyncGenerator[LogChunk | End, None]:
    """Report output from the offsets on, live, and at last how it ended. Closing it changes nothing.

    Raises InternalError for a folder in which nothing was ever started.
    """
    found = await settled(folder)
    if found.record is None and found.status is None:
        raise InternalError(f"nothing was started in {folder.name}")
    tails = [Tail(folder, stream, offsets.get(stream, 0)) for stream in LogStream]
    ending = Ending(found.record if found.state is State.RUNNING else None)
    try:
        quiet = 0.0
        while True:
            over = ending.over()
            for tail in tails:
                while (chunk := tail.read()) is not None:
                    quiet = 0.0
                    yield chunk
            if over:
                break
            await ending.wait(min(0.25, 0.05 + quiet / 20))
            quiet += 0.05
    finally:
        ending.close()
        for tail in tails:
            tail.close()
    yield await _end_of(folder)


async def cancel(folder: Path, grace: timedelta) -> Found:
    """End an attempt: TERM to its whole tree, KILL after `grace`; returns when nothing of it runs any more.

    May be called again with a shorter grace. Giving up waiting does not undo it: the shim goes on by itself.
    """
    found = await settled(folder)
    if found.state is State.RUNNING and found.record is not None:
        _write(folder / shim_main.CANCEL, str(grace.total_seconds()))
        signal_shim(found.record, signal.SIGTERM)
        ending = Ending(found.record if found.state is State.RUNNING else None)
        try:
            await ending.wait_until_over(grace.total_seconds() + _UNRESPONSIVE_S)
        finally:
            ending.close()
        signal_shim(found.record, signal.SIGKILL)
        found = find(folder)
    if found.state is State.LOST and found.record is not None:
        await asyncio.to_thread(end_leftovers, folder.name, found.record)
    return found


def survey(root: Path) -> dict[str, Found]:
    """Read all attempts below a folder, by name. Finishes removals that a crash has interrupted."""
    if not root.is_dir():
        return {}
    folders = sorted(each for each in root.iterdir() if each.is_dir())
    for half_gone in (each for each in folders if each.suffix == _REMOVED):
        shutil.rmtree(half_gone, ignore_errors=True)
    return {each.name: find(each) for each in folders if each.suffix != _REMOVED}


async def remove(folder: Path) -> bool:
    """Forget an attempt that does not run. False when it runs; it must be cancelled first."""
    return await asyncio.to_thread(_remove, folder)


def _order(folder: Path, command: Command) -> bytes:
    order = {
        "folder": str(folder.absolute()),
        "argv": list(command.argv),
        "env": {**command.env, NAME_VARIABLE: folder.name},
        "cwd": str(command.cwd.absolute()),
        "stdin": command.stdin,
        "script": command.script,
        "time_limit": _seconds(command.time_limit),
        "prepares": command.prepares,
        "prepare_limit": _seconds(command.prepare_limit),
        "grace": command.grace.total_seconds(),
        "memory_limit": command.memory_limit_bytes,
        "max_output": command.max_output_bytes,
        "notes": msgspec.json.encode(command.notes).decode(),
    }
    return marshal.dumps(order)


def _seconds(limit: timedelta | None) -> float | None:
    return None if limit is None else max(0.0, limit.total_seconds())


def _launch(folder: Path, order: bytes) -> int:
    """Start the shim, hand it the order, and wait for its byte (or its end). Blocks for about 15 ms."""
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)
    order_read, order_write = os.pipe()
    told, tell = os.pipe()
    try:
        pid = _spawn_shim(order_read, tell)
    finally:
        os.close(order_read)
        os.close(tell)
    _hand_over(order_write, order)
    try:
        os.read(told, 1)
    finally:
        os.close(told)
    return pid


def _hand_over(pipe: int, order: bytes) -> None:
    remaining = memoryview(order)
    try:
        while remaining:
            remaining = remaining[os.write(pipe, remaining) :]
    except BrokenPipeError:
        return  # it gave up; the folder tells why
    finally:
        os.close(pipe)


def _spawn_shim(order: int, tell: int) -> int:
    # posix_spawn: no thread of ours is forked, and the shim is nobody's Popen that warns when it is forgotten.
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        return os.posix_spawn(
            sys.executable,
            [sys.executable, "-I", "-S", _program()],
            {name: os.environ[name] for name in ("LD_LIBRARY_PATH",) if name in os.environ},  # some Pythons need it
            file_actions=[
                (os.POSIX_SPAWN_DUP2, order, 0),
                (os.POSIX_SPAWN_DUP2, tell, 1),
                (os.POSIX_SPAWN_DUP2, nothing, 2),
            ],
            setsid=True,
            setsigmask=(),
            setsigdef=(signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD),
        )
    finally:
        os.close(nothing)


def _program() -> str:
    """The compiled shim if there is one: Python does not cache the script it runs, and compiling takes 10 ms.

    It runs a compiled file without comparing it with its source, so that is done here: size and time are in its head.
    """
    compiled = cache_from_source(shim_main.__file__)
    try:
        with Path(compiled).open("rb") as file:
            head = file.read(16)
        source = Path(shim_main.__file__).stat()
    except OSError:
        return shim_main.__file__
    wanted = ((number & 0xFFFFFFFF).to_bytes(4, "little") for number in (0, int(source.st_mtime), source.st_size))
    return compiled if head[4:] == b"".join(wanted) else shim_main.__file__


def _read_record(folder: Path) -> Record | None:
    try:
        return msgspec.json.decode((folder / shim_main.RECORD).read_bytes(), type=Record)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _read_status(folder: Path) -> Status | None:
    try:
        return msgspec.json.decode((folder / shim_main.STATUS).read_bytes(), type=Status)
    except (FileNotFoundError, NotADirectoryError):
        return None


def _lock_held(folder: Path) -> bool:
    try:
        lock = os.open(folder / shim_main.LOCK, os.O_RDWR)
    except (FileNotFoundError, NotADirectoryError):
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(lock)
    return False


def _write(path: Path, text: str) -> None:
    new = path.with_name(f"{path.name}.{os.getpid()}")
    new.touch(mode=0o600)
    new.write_text(text)
    new.replace(path)


def _crash(folder: Path) -> str:
    try:
        lines = (folder / shim_main.CRASH).read_text(errors="replace").strip().splitlines()
    except FileNotFoundError:
        return "it left no word"
    return lines[-1] if lines else "it left no word"


async def _end_of(folder: Path) -> End:
    found = find(folder)
    if found.status is not None:
        return found.status
    if found.record is not None:
        await asyncio.to_thread(end_leftovers, folder.name, found.record)
    return _lost(folder)


def _lost(folder: Path) -> Lost:
    ended_by_us = not folder.exists() or (folder / shim_main.CANCEL).exists()
    return Lost(ended_by_us=ended_by_us, detail=_crash(folder))


def _remove(folder: Path) -> bool:
    if not folder.is_dir():
        return True
    try:
        lock = os.open(folder / shim_main.LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    except FileNotFoundError:  # somebody else has removed it in this moment
        return True
    try:
        if not _taken(folder, lock):
            return not folder.is_dir()
        gone = folder.with_name(f"{folder.name}{_REMOVED}")
        shutil.rmtree(gone, ignore_errors=True)
        folder.rename(gone)  # a shim that starts now finds its lock file gone
        shutil.rmtree(gone, ignore_errors=True)
    except FileNotFoundError:
        return not folder.is_dir()
    finally:
        os.close(lock)
    return True


def _taken(folder: Path, lock: int) -> bool:
    """Take the lock. A shim that has written its status exits in an instant, and who looks holds it no longer."""
    for _ in range(200):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if find(folder).state is State.RUNNING:
                return False
            time.sleep(0.005)
        else:
            return True
    return False
