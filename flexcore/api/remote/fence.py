"""Which attempt of each step may work here: the one with the highest token, and none that was cleaned up.

Kept in files, written through to the disk before anything is started, so that a call that was sent long ago and comes
late (from a frozen control plane, out of a queue of the network) starts nothing beside its successor. One process at a
time uses a folder; its threads take turns. Blocking: it waits for the disk.
"""

import hashlib
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from flexcore.model.errors import Fenced, StoreUnavailable
from flexcore.model.ids import AttemptId, ExecutionId
from flexcore.runtime.interface import ExecutionRequest
from flexcore.store.durable import PART, write_whole

_DIGITS = 32


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a step: the newest attempt, its token, whether it was cleaned up, and whom it replaces.

    `before` is the lowest number of those that have to be ended before another attempt begins; 0 when there is none.
    `resting`: nothing of it is here, though it may be asked for again.
    """

    token: int
    number: int
    ended: bool = False
    before: int = 0
    resting: bool = False


class Fence:
    """The marks of one installation's steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()

    def enter(self, request: ExecutionRequest) -> tuple[AttemptId, ...]:
        """Let an attempt in and note its token; give those before it, which have to be ended first.

        Raises Fenced for an attempt that a newer one has replaced, and for one that was cleaned up, unless it comes
        with its handle: then it starts nothing.
        """
        id = request.id
        with self._turn:
            mark = self._mark(id)
            fresh = Mark(token=request.token, number=id.number) if mark is None else _successor(request, mark)
            if fresh != mark:
                self._write(id, fresh)
        return tuple(replace(id, number=each) for each in range(fresh.before or id.number, id.number))

    def settle(self, id: AttemptId) -> None:
        """Note that the attempts before this one are gone."""
        with self._turn:
            mark = self._mark(id)
            if mark is not None and mark.number == id.number and mark.before:
                self._write(id, msgspec.structs.replace(mark, before=0))

    def is_current(self, id: AttemptId) -> bool:
        """Say whether the attempt is the newest of its step, and was not cleaned up."""
        mark = self._mark(id)
        return mark is not None and mark.number == id.number and not mark.ended

    def end(self, id: AttemptId) -> None:
        """Note that an attempt is cleaned up: whoever still asks for it without a handle comes too late."""
        with self._turn:
            mark = self._mark(id)
            if mark is None:
                self._write(id, Mark(token=0, number=id.number, ended=True))
            elif id.number >= mark.number:
                self._write(id, _next(mark, mark.token, id.number, ended=True))

    def rest(self, id: AttemptId, unless: Callable[[], bool]) -> None:
        """Note that nothing was begun: who asks again is let in. `unless` says whether somebody is about to enter."""
        with self._turn:
            mark = self._mark(id)
            if mark is not None and mark.number == id.number and not mark.ended and not unless():
                self._write(id, msgspec.structs.replace(mark, resting=True))

    def end_all(self, execution: ExecutionId) -> None:
        """Note the same for what is known of an execution."""
        with self._turn:
            for path in self._steps(execution).glob("*.json"):
                if (mark := _read(path)) is not None and not mark.ended:
                    _put(path, msgspec.structs.replace(mark, ended=True))

    def forget(self, before: float) -> None:
        """Remove the marks of what was cleaned up, or was not begun, before a time, in seconds since 1970.

        What writing left half goes too.
        """
        with self._turn:
            for path in [*self._folder.glob(f"*/{PART}*"), *self._folder.glob("*/*.json")]:
                mark = _read(path) if path.suffix == ".json" else None
                if path.stat().st_mtime < before and (mark is None or mark.ended or mark.resting):
                    path.unlink()
            for folder in self._folder.glob("*"):
                with suppress(OSError):  # most hold marks
                    folder.rmdir()

    def _mark(self, id: AttemptId) -> Mark | None:
        return _read(self._path(id))

    def _write(self, id: AttemptId, mark: Mark) -> None:
        _put(self._path(id), mark)

    def _path(self, id: AttemptId) -> Path:
        return self._steps(id.execution) / f"{_name(id.path)}.json"

    def _steps(self, execution: ExecutionId) -> Path:
        return self._folder / _name(execution)


def _successor(request: ExecutionRequest, mark: Mark) -> Mark:
    number = request.id.number
    if request.token < mark.token or number < mark.number:
        raise Fenced(
            f"attempt {request.id} comes too late: attempt {mark.number} of the step, with a higher token, was here",
            hint="nothing was started; only the newest attempt counts",
        )
    if number > mark.number:
        return _next(mark, request.token, number)
    if mark.ended and request.handle is None:
        raise Fenced(f"attempt {request.id} comes too late: it was cleaned up", hint="nothing was started")
    return msgspec.structs.replace(mark, token=request.token, resting=False)


def _next(mark: Mark, token: int, number: int, *, ended: bool = False) -> Mark:
    """Go on to an attempt. Those before it are ended once more, also if they are marked: it may be under way."""
    before = mark.before or (mark.number if number > mark.number else 0)
    return Mark(token=token, number=number, ended=ended, before=before)


def _name(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:_DIGITS]


def _read(path: Path) -> Mark | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=Mark)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.MsgspecError) as error:
        raise StoreUnavailable(f"the token of a step cannot be read from {path}: {error}") from error


def _put(path: Path, mark: Mark) -> None:
    try:
        write_whole(path, msgspec.json.encode(mark))
    except OSError as error:
        raise StoreUnavailable(f"the token of a step cannot be kept in {path.parent}: {error}") from error
