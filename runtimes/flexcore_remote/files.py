"""The files of a workflow as a list of digests, made anew only for what has changed; contents go to servers once."""

import hashlib
import os
from collections.abc import Collection, Iterator
from pathlib import Path

from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.wire.requests import FileEntry

_MOST = 10_000
_REMEMBERED = 100_000
_CACHES = {"__pycache__"}
_NOWHERE = Path()


class WorkflowFiles:
    """Lists folders. Blocking: call it in a thread."""

    def __init__(self, max_file_bytes: int) -> None:
        self._max_bytes = max_file_bytes
        self._digests: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def listed(self, folder: Path, names: Collection[str] | None) -> tuple[FileEntry, ...] | Failure:
        """List files of a request's folder by name, or all; a failure when they cannot be brought anywhere.

        An author's own folder holds more than the version: the store of executions, secrets, what runs write.
        """
        if folder == _NOWHERE:
            return ()
        paths = sorted(_below(folder) if names is None else (folder / each for each in names))
        if len(paths) > _MOST:
            return _failure(f"there are more than {_MOST}")
        try:
            entries = []
            for path in paths:
                found = path.stat()
                if found.st_size > self._max_bytes:
                    return _failure(f"{path.relative_to(folder)} is larger than {self._max_bytes >> 20} MiB")
                name = path.relative_to(folder).as_posix()
                entries.append(FileEntry(name, self._digest(path, found), bool(found.st_mode & 0o100)))
            return tuple(entries)
        except OSError as error:
            return _failure(f"{error.filename} cannot be read: {error.strerror}")

    def _digest(self, path: Path, found: os.stat_result) -> str:
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._digests.get(path)
        if known is None or known[0] != state:
            if len(self._digests) >= _REMEMBERED:
                self._digests.clear()
            known = self._digests[path] = (state, digest_of(path.read_bytes()))
        return known[1]


def digest_of(content: bytes) -> str:
    """Name a content."""
    return f"sha256-{hashlib.sha256(content).hexdigest()}"


def _below(folder: Path) -> Iterator[Path]:
    """Give all regular files; links lead who knows where, and caches are made again."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not _CACHES & set(path.relative_to(folder).parts):
            yield path


def _failure(what: str) -> Failure:
    return Failure(
        message=f"the workflow's files cannot be brought to another machine: {what}",
        error_class=ErrorClass.INPUT,
        hint="keep data in the artifact store or an object store, and only code beside the workflow",
    )
