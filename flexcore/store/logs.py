"""Logs of attempts: appended by stream offset, idempotent, fenced by token, bounded; read by a cursor that follows.

Logs are not state: nothing is decided from them, and they are not fsynced. An attempt without output has no file.
`logs/<execution>/<path>/` holds segments `<attempt>-<token>-<start>`; what is in them is log_frames.py's business.
The first segment keeps the head of the output; later ones are a window over its end, and what falls out between the
two is told by one line when it is read.
"""

import asyncio
import hashlib
import os
import re
import shutil
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import TypeVar

from flexcore.model.errors import Fenced, InvalidInput, StoreUnavailable
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.runtime.interface import LogStream
from flexcore.store.log_frames import (
    FRAME_BYTES,
    LogPiece,
    Position,
    Tail,
    after,
    pieces_in,
    position_frame,
    position_in,
    stream_frame,
    tail_in,
)
from flexcore.store.rows import microseconds

Result = TypeVar("Result")

_EXECUTION = re.compile(r"[a-z]{1,8}_[0-9a-z]{1,64}")
_PATH = re.compile(r"[A-Za-z0-9_\-.\[\]]{1,4096}")
_SEGMENT = re.compile(r"(?P<attempt>\d{6})-(?P<token>\d{10})-(?P<start>\d{16})\.log")
_LONGEST_NAME = 150
_REMEMBERED = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class LogLimits:
    """Bytes kept per attempt: the head, and after it `tail_segments` files of `segment` bytes over the end."""

    head: int = 8 * 2**20
    segment: int = 2**20
    tail_segments: int = 8


@dataclass(frozen=True, slots=True, order=True)
class Segment:
    """One file of an attempt's log; `start` is where it begins in the whole."""

    attempt: int
    token: int
    start: int

    @property
    def name(self) -> str:
        """Name the file so that names sort as segments do."""
        return f"{self.attempt:06d}-{self.token:010d}-{self.start:016d}.log"


class LogStore:
    """Every method may be called from any task; appends of one store happen one after the other."""

    def __init__(self, folder: Path, *, now: Callable[[], datetime], limits: LogLimits | None = None) -> None:
        self._folder = folder
        self._now = now
        self._limits = limits or LogLimits()
        self._tails: OrderedDict[Path, Tail] = OrderedDict()
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="flexcore-logs")

    async def append(
        self,
        execution: ExecutionId,
        path: StepPath,
        attempt: int,
        token: int,
        stream: LogStream,
        offset: int,
        data: bytes,
    ) -> None:
        """Add bytes of a stream; `offset` is where they begin in it. What is already there is not written again.

        Raises Fenced when a later attempt has written, InvalidInput, StoreUnavailable.
        """
        folder = self._step(execution, path)
        if not data:
            return
        segment = Segment(attempt, token, 0)
        await self._run(lambda: self._append(folder, segment, stream, offset, data))

    async def offsets(self, execution: ExecutionId, path: StepPath, attempt: int) -> Mapping[LogStream, int]:
        """Say up to where each stream of an attempt is there: a runtime that adopts goes on from these."""
        folder = self._step(execution, path)
        return await self._run(lambda: self._offsets(folder, attempt))

    async def read(
        self,
        execution: ExecutionId,
        path: StepPath,
        attempt: int | None = None,
        stream: LogStream | None = None,
        offset: int = 0,
        limit: int = 2**18,
    ) -> tuple[Sequence[LogPiece], int]:
        """Give pieces in the order they came, from cursor `offset`, about `limit` bytes, and the next cursor.

        Without `attempt` the last one. To follow, ask again with the cursor given back; no pieces means no news yet.
        """
        folder = self._step(execution, path)
        return await self._run(lambda: self._read(folder, attempt, stream, offset, limit))

    async def attempts(self, execution: ExecutionId, path: StepPath) -> Sequence[int]:
        """Name the attempts that wrote something."""
        folder = self._step(execution, path)
        return await self._run(lambda: sorted({segment.attempt for segment in _segments(folder)}))

    async def delete(self, execution: ExecutionId) -> None:
        """Remove every log of an execution."""
        folder = self._execution(execution)
        await self._run(lambda: shutil.rmtree(folder, ignore_errors=True))

    def close(self) -> None:
        """Finish what is queued."""
        self._thread.shutdown(wait=True)

    async def _run(self, work: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, work)
        except OSError as error:
            raise StoreUnavailable(f"logs cannot be used now: {error}", hint="look at the disk") from error

    def _append(self, folder: Path, first: Segment, stream: LogStream, offset: int, data: bytes) -> None:
        segments = _segments(folder)
        if any(segment.token > first.token for segment in segments):
            raise Fenced(f"output of attempt {first.attempt} of {folder.name} is late: a newer attempt has written")
        own = [segment for segment in segments if (segment.attempt, segment.token) == (first.attempt, first.token)]
        for piece in self._pieces(folder, own, LogPiece(stream, offset, data, microseconds(self._now()))):
            own = self._roll(folder, own, first)
            self._write(folder / own[-1].name, piece)

    def _pieces(self, folder: Path, own: Sequence[Segment], piece: LogPiece) -> Sequence[LogPiece]:
        """Cut off what is there already, and cut the rest into frames."""
        known = self._tail(folder / own[-1].name).position.offsets.get(piece.stream, 0) if own else 0
        begin = max(known - piece.offset, 0)
        return [
            LogPiece(piece.stream, piece.offset + start, piece.data[start : start + FRAME_BYTES], piece.at)
            for start in range(begin, len(piece.data), FRAME_BYTES)
        ]

    def _roll(self, folder: Path, own: Sequence[Segment], first: Segment) -> list[Segment]:
        """Give the segments with the one to write to last: begin the first or the next, drop what is too much."""
        if not own:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._begin(folder / first.name, Position())
            return [first]
        last = own[-1]
        tail = self._tail(folder / last.name)
        if tail.size < (self._limits.segment if last.start else self._limits.head):
            return list(own)
        following = Segment(last.attempt, last.token, last.start + tail.size)
        self._begin(folder / following.name, tail.position)
        head, *window = [*own, following]
        for dropped in window[: -self._limits.tail_segments]:
            (folder / dropped.name).unlink(missing_ok=True)
            self._tails.pop(folder / dropped.name, None)
        return [head, *window[-self._limits.tail_segments :]]

    def _begin(self, file: Path, position: Position) -> None:
        frame = position_frame(position)
        file.write_bytes(frame)
        self._remember(file, Tail(len(frame), position))

    def _write(self, file: Path, piece: LogPiece) -> None:
        frame, tail = stream_frame(piece), self._tail(file)
        self._tails.pop(file)  # known again only when all of it is written
        with file.open("ab") as target:
            target.write(frame)
        self._remember(file, Tail(tail.size + len(frame), after(tail.position, piece)))

    def _tail(self, file: Path) -> Tail:
        """Find the end of a segment: remembered, or read from the file, of which a torn end is cut off."""
        tail = self._tails.get(file)
        size = file.stat().st_size
        if tail is None or tail.size != size:
            tail = tail_in(file.read_bytes())
            if tail.size < size:
                os.truncate(file, tail.size)
            self._remember(file, tail)
        return tail

    def _remember(self, file: Path, tail: Tail) -> None:
        self._tails[file] = tail
        self._tails.move_to_end(file)
        if len(self._tails) > _REMEMBERED:
            self._tails.popitem(last=False)

    def _offsets(self, folder: Path, attempt: int) -> Mapping[LogStream, int]:
        own = _of_attempt(_segments(folder), attempt)
        return self._tail(folder / own[-1].name).position.offsets if own else {}

    def _read(
        self, folder: Path, attempt: int | None, stream: LogStream | None, cursor: int, limit: int
    ) -> tuple[Sequence[LogPiece], int]:
        own = _of_attempt(_segments(folder), attempt)
        pieces: list[LogPiece] = []
        while sum(len(piece.data) for piece in pieces) < limit:
            found, following = _read_once(folder, own, cursor, limit)
            pieces += [piece for piece in found if stream in (None, piece.stream) or piece.at == 0]
            if following == cursor:
                break
            cursor = following
        return pieces, cursor

    def _execution(self, execution: ExecutionId) -> Path:
        if not _EXECUTION.fullmatch(execution):
            raise InvalidInput(f"{execution!r} is not the id of an execution")
        return self._folder / execution

    def _step(self, execution: ExecutionId, path: StepPath) -> Path:
        if not _PATH.fullmatch(path) or path.startswith("."):
            raise InvalidInput(f"{path!r} is not the path of a step")
        # A deep path is longer than a file name may be; its beginning stays readable, its hash makes it unique.
        short = path if len(path) <= _LONGEST_NAME else f"{path[:100]}~{hashlib.sha256(path.encode()).hexdigest()[:32]}"
        return self._execution(execution) / short


def _segments(folder: Path) -> list[Segment]:
    try:
        names = os.listdir(folder)  # noqa: PTH208 on the path of every append: ten times cheaper than Path.iterdir
    except FileNotFoundError:
        return []
    matches = [match for name in names if (match := _SEGMENT.fullmatch(name))]
    return sorted(Segment(int(match["attempt"]), int(match["token"]), int(match["start"])) for match in matches)


def _of_attempt(segments: Sequence[Segment], attempt: int | None) -> Sequence[Segment]:
    """Choose one attempt's segments, the last attempt's without a number; of two tokens the newer counts."""
    number = attempt if attempt is not None else max((segment.attempt for segment in segments), default=0)
    candidates = [segment for segment in segments if segment.attempt == number]
    newest = max((segment.token for segment in candidates), default=0)
    return [segment for segment in candidates if segment.token == newest]


def _read_once(folder: Path, own: Sequence[Segment], cursor: int, limit: int) -> tuple[Sequence[LogPiece], int]:
    """Read from the segment that the cursor is in; at its end, go to the next, telling what is missing between."""
    place = max((index for index, segment in enumerate(own) if segment.start <= cursor), default=None)
    if place is None:
        return [], cursor
    with (folder / own[place].name).open("rb") as file:
        file.seek(cursor - own[place].start)
        data = file.read(limit + FRAME_BYTES)
    pieces, length = pieces_in(data, limit)
    if length or place + 1 == len(own):
        return pieces, cursor + length
    return _gap(folder, own[place], own[place + 1]), own[place + 1].start


def _gap(folder: Path, before: Segment, following: Segment) -> Sequence[LogPiece]:
    head = (folder / before.name).read_bytes()
    if before.start + len(head) == following.start:
        return []
    dropped = position_in((folder / following.name).read_bytes()).total - tail_in(head).position.total
    line = f"... {dropped} bytes of output were dropped here: more than is kept of one attempt ...\n"
    return [LogPiece(LogStream.SYSTEM, 0, line.encode())]
