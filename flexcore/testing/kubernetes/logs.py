"""What containers write, kept by the node as a container runtime keeps it: whole lines with a time each.

A line without its end is held back until it is whole, longer than a piece, or the container has ended.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_PIECE = 16 * 1024
_BLOCK = 256 * 1024
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Wanted:
    """What of a log to give. `since_ns` is a time; `tail` and `limit` count lines and bytes."""

    follow: bool = False
    timestamps: bool = False
    since_ns: int = 0
    tail: int | None = None
    limit: int | None = None


@dataclass(frozen=True, slots=True)
class _Block:
    """Bytes that came together. Their first line has the time `stamp`, each further one a nanosecond more."""

    start: int
    end: int
    stamp: int
    begins_line: bool


class ContainerLog:
    """The log of one run of a container. Beyond `rotate_bytes` a new file begins, and readers start there."""

    def __init__(self, path: Path, rotate_bytes: int) -> None:
        self._path = path
        self._file = path.open("wb")
        self._rotate_bytes = rotate_bytes
        self._newest = 0  # index of the block that the newest file begins with
        self._blocks: list[_Block] = []
        self._pending = b""
        self._stamp = 0
        self._changed = asyncio.Event()
        self.ended = False

    def feed(self, data: bytes) -> None:
        """Take what was written."""
        self._pending += data
        cut = self._pending.rfind(b"\n") + 1
        if len(self._pending) - cut >= _PIECE:
            cut = len(self._pending)
        if cut:
            self._keep(self._pending[:cut])
            self._pending = self._pending[cut:]

    def end(self) -> None:
        """Take the end of the container."""
        if self._pending:
            self._keep(self._pending)
        self._pending = b""
        self.ended = True
        self._file.close()
        self._tell()

    def tail_bytes(self, size: int) -> bytes:
        """Give the last bytes."""
        return self._read(max(0, self._end() - size), self._end())

    async def read(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        """Give the log from the newest file on; with `follow` until the container ends."""
        left = wanted.limit
        async for data in self._pieces(wanted):
            part = data if left is None else data[:left]
            yield part
            if left is not None and (left := left - len(part)) == 0:
                return

    async def _pieces(self, wanted: Wanted) -> AsyncGenerator[bytes, None]:
        index, skipped = self._newest, 0
        if wanted.tail is not None:
            index, skipped = self._tail(wanted.tail)
        while True:
            waiting, ended = self._changed, self.ended
            while index < len(self._blocks):
                block, index = self._blocks[index], index + 1
                for data in self._lines(block, skipped, wanted):
                    yield data
                skipped = 0
                await asyncio.sleep(0)  # a long log must not keep others waiting
            if ended or not wanted.follow:
                return
            if waiting is self._changed:
                await waiting.wait()

    def _lines(self, block: _Block, skipped: int, wanted: Wanted) -> Iterator[bytes]:
        whole = self._read(block.start, block.end)
        if not wanted.timestamps and not wanted.since_ns:
            yield whole[skipped:]
            return
        lines = _split(whole)
        gone = whole[:skipped].count(b"\n")
        first = max(gone, wanted.since_ns - block.stamp)
        shown = lines[first:]
        if not wanted.timestamps:
            yield b"".join(shown)
            return
        stamps = _written(block.stamp + first, len(shown))
        if shown and first == 0 and not block.begins_line:
            yield shown[0]  # the rest of a line that has its time already
            shown, stamps = shown[1:], stamps[1:]
        yield b"".join(part for pair in zip(stamps, shown, strict=True) for part in pair)

    def _tail(self, lines: int) -> tuple[int, int]:
        """Say in which block, and how far inside, the last lines begin."""
        index, left = len(self._blocks), lines
        while index > self._newest and left > 0:
            index -= 1
            block = self._blocks[index]
            parts = _split(self._read(block.start, block.end))
            if len(parts) > left:
                return index, sum(len(each) for each in parts[: len(parts) - left])
            left -= len(parts)
        return index, 0

    def _keep(self, data: bytes) -> None:
        begins = not self._blocks or self._read(self._end() - 1, self._end()) == b"\n"
        start = self._end()
        self._file.write(data)
        self._file.flush()
        stamp = max(int(datetime.now(UTC).timestamp() * _SECOND_NS), self._stamp + 1)
        self._stamp = stamp + data.count(b"\n") + 1
        self._blocks.append(_Block(start, start + len(data), stamp, begins))
        if self._end() - self._blocks[self._newest].start > self._rotate_bytes:
            self._newest = len(self._blocks) - 1
        self._tell()

    def _end(self) -> int:
        return self._blocks[-1].end if self._blocks else 0

    def _read(self, start: int, end: int) -> bytes:
        with self._path.open("rb") as file:
            file.seek(start)
            return file.read(end - start)

    def _tell(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


def since(text: str) -> int:
    """Read `sinceTime` as a kubelet does: only whole seconds count."""
    return int(datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()) * _SECOND_NS


def _split(data: bytes) -> list[bytes]:
    parts = data.split(b"\n")
    return [part + b"\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _written(stamp_ns: int, count: int) -> list[bytes]:
    """Write so many times, each a nanosecond after the one before."""
    written: list[bytes] = []
    while len(written) < count:
        seconds, rest = divmod(stamp_ns + len(written), _SECOND_NS)
        second = f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.".encode()
        last = min(rest + count - len(written), _SECOND_NS)
        written.extend(b"%b%09dZ " % (second, each) for each in range(rest, last))
    return written
