"""Which attempt of each step may work here: the one with the highest token, and none that was cleaned up.

Kept in files, written through to the disk before anything is started, so that a call that was sent long ago and comes
late (from a frozen control plane, out of a queue of the network) starts nothing beside its successor. One process at a
time uses a folder.
"""

import hashlib
import os
import tempfile
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import msgspec

from flexcore.model.errors import Fenced, StoreUnavailable
from flexcore.model.ids import AttemptId, ExecutionId
from flexcore.runtime.interface import ExecutionRequest

_DIGITS = 32


class Mark(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a step: the newest attempt, its token, whether it was cleaned up, and whom it replaces.

    `before` is the number of the attempt that has to be ended before this one begins; 0 when there is none.
    """

    token: int
    number: int
    ended: bool = False
    before: int = 0


class Fence:
    """The marks of one installation's steps."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def enter(self, request: ExecutionRequest) -> AttemptId | None:
        """Let an attempt in and note its token; give the one before it, which has to be ended first.

        Raises Fenced for an attempt that a newer one has replaced, and for one that was cleaned up, unless it comes
        with its handle: then it starts nothing.
        """
        id, mark = request.id, self._mark(request.id)
        fresh = Mark(token=request.token, number=id.number) if mark is None else _successor(request, mark)
        if fresh != mark:
            self._write(id, fresh)
        return replace(id, number=fresh.before) if fresh.before else None

    def settle(self, id: AttemptId) -> None:
        """Note that the attempt before this one is gone."""
        mark = self._mark(id)
        if mark is not None and mark.number == id.number and mark.before:
            self._write(id, msgspec.structs.replace(mark, before=0))

    def is_current(self, id: AttemptId) -> bool:
        """Say whether the attempt is the newest of its step, and was not cleaned up."""
        mark = self._mark(id)
        return mark is not None and mark.number == id.number and not mark.ended

    def end(self, id: AttemptId) -> None:
        """Note that an attempt is cleaned up: whoever still asks for it without a handle comes too late."""
        mark = self._mark(id)
        if mark is None or id.number >= mark.number:
            self._write(id, Mark(token=mark.token if mark else 0, number=id.number, ended=True))

    def end_all(self, execution: ExecutionId) -> None:
        """Note the same for what is known of an execution."""
        for path in self._steps(execution).glob("*.json"):
            if (mark := _read(path)) is not None and not mark.ended:
                _put(path, msgspec.structs.replace(mark, ended=True))

    def forget(self, before: float) -> None:
        """Remove the marks of what was cleaned up before a time, in seconds since 1970."""
        for path in self._folder.glob("*/*.json"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before and (mark := _read(path)) is not None and mark.ended:
                    path.unlink()

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
        return Mark(token=request.token, number=number, before=0 if mark.ended else mark.number)
    if mark.ended and request.handle is None:
        raise Fenced(f"attempt {request.id} comes too late: it was cleaned up", hint="nothing was started")
    return msgspec.structs.replace(mark, token=request.token)


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
    """Write whole or not at all, and through to the disk."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, fresh = tempfile.mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(msgspec.json.encode(mark))
            file.flush()
            os.fsync(file.fileno())
        Path(fresh).replace(path)
    except OSError as error:
        raise StoreUnavailable(f"the token of a step cannot be kept in {path.parent}: {error}") from error
