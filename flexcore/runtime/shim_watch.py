"""Looking at the processes of an attempt from outside: is its shim alive, what is left of it, has it ended.

Used by `shim.py` alone. A pid means nothing without the start time beside it: numbers are given out again.
"""

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from flexcore.model.values import JSON
from flexcore.runtime.flexcore_far import shim_main
from flexcore.runtime.interface import LogChunk, LogStream

NAME_VARIABLE = "FLEXCORE_NAME"
"""In the environment of every command: the attempt's external name, by which leftovers are known as ours."""

_READ = 1 << 18
_CLEAN_LOOKS, _LOOK_APART_S = 4, 0.005  # one look can miss a process that is just forking or replacing its program


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """Who runs the attempt: the shim and its command, each by pid and start time (clock ticks since boot)."""

    pid: int
    start: int
    command: int = 0
    command_start: int = 0
    notes: Mapping[str, JSON] = field(default_factory=dict)

    @property
    def identity(self) -> str:
        """What no other process ever had at the same time: pid and start time of the shim."""
        return f"{self.pid}:{self.start}"


class Tail:
    """Reads a growing file from an offset on."""

    def __init__(self, folder: Path, stream: LogStream, offset: int) -> None:
        self._path = folder / stream.value
        self._stream = stream
        self._offset = offset
        self._file: int | None = None

    def read(self) -> LogChunk | None:
        """Read the next piece, or None if there is none now."""
        if self._file is None:
            try:
                self._file = os.open(self._path, os.O_RDONLY)
            except FileNotFoundError:
                return None
        data = os.pread(self._file, _READ, self._offset)
        if not data:
            return None
        chunk = LogChunk(self._stream, self._offset, data)
        self._offset += len(data)
        return chunk

    def close(self) -> None:
        """Close the file, if it was ever there."""
        if self._file is not None:
            os.close(self._file)


class Ending:
    """Waits for the end of a shim, ours or adopted: woken by the kernel where it can, else by looking."""

    def __init__(self, record: Record | None) -> None:
        self._record = record
        self._over = record is None
        self._woken = asyncio.Event()
        self._reference: int | None = None
        if record is not None:
            try:
                self._reference = os.pidfd_open(record.pid)
            except OSError:
                return
            asyncio.get_running_loop().add_reader(self._reference, self._wake)

    def over(self) -> bool:
        """Whether the shim is gone."""
        if not self._over and self._record is not None:
            self._over = not is_alive(self._record)
        return self._over

    async def wait(self, seconds: float) -> None:
        """Wait for the end, at most so long."""
        if self.over():
            return
        alarm = asyncio.get_running_loop().call_later(seconds, self._woken.set)
        await self._woken.wait()
        alarm.cancel()
        self._woken.clear()

    async def wait_until_over(self, seconds: float) -> None:
        """Wait until the end was seen, or the time is up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + seconds
        while not self.over() and loop.time() < until:
            await self.wait(min(0.25, max(0.0, until - loop.time())))

    def close(self) -> None:
        """Stop watching."""
        if self._reference is not None:
            asyncio.get_running_loop().remove_reader(self._reference)
            os.close(self._reference)
            self._reference = None

    def _wake(self) -> None:
        self._woken.set()
        if self._reference is not None:  # readable for ever from now on
            asyncio.get_running_loop().remove_reader(self._reference)


def owned_processes(name: str) -> set[int]:
    """All processes that carry an attempt's name in their environment, or descend from one that does."""
    table = shim_main.processes()
    marker = f"{NAME_VARIABLE}={name}".encode()
    marked = {pid for pid in table if marker in _environment(pid)}
    return marked | shim_main.descendants(marked, table)


def is_alive(record: Record) -> bool:
    """Whether exactly this shim runs; collects it if it was our child and has ended."""
    stat = shim_main.process_stat(record.pid)
    if stat is None or stat[3] != record.start:
        return False
    if stat[0] == "Z" and stat[1] == os.getpid():
        _reap(record.pid)
    return stat[0] not in "ZX"


def _reap(pid: int) -> None:
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return


def signal_shim(record: Record, number: signal.Signals) -> None:
    """Signal exactly this process, never one that got its number later."""
    try:
        reference = os.pidfd_open(record.pid)
    except OSError:
        return
    try:
        if is_alive(record):
            signal.pidfd_send_signal(reference, number)
    except ProcessLookupError:
        return
    finally:
        os.close(reference)


def _leftovers(name: str, record: Record) -> set[int]:
    """What still runs of a tree without its shim: by the name in the environment, by session, and by descent."""
    table = shim_main.processes()
    leader = table.get(record.command)
    ours = owned_processes(name)
    if record.command and (leader is None or leader[3] == record.command_start):
        # A session's number is not given to another process as long as a member of the session lives.
        members = {pid for pid, stat in table.items() if stat[2] == record.command and stat[3] >= record.command_start}
        ours |= members | shim_main.descendants(members, table)
    return {pid for pid in ours if pid in table and table[pid][0] not in "ZX" and pid != os.getpid()}


def end_leftovers(name: str, record: Record) -> None:
    """Kill what still runs of a tree whose shim is gone."""
    clean = 0
    while clean < _CLEAN_LOOKS:
        left = _leftovers(name, record)
        clean = 0 if left else clean + 1
        for pid in left:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
            except PermissionError:
                return  # a program of another user; nobody without privileges can end it
        time.sleep(_LOOK_APART_S)


def _environment(pid: int) -> list[bytes]:
    try:
        return Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return []
