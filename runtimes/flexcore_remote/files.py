"""The files of a workflow as a list of digests, made anew only for what has changed; contents go to servers once."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.wire.requests import FileEntry

_MOST = 10_000
_CACHES = {"__pycache__"}
_NOWHERE = Path()


class WorkflowFiles:
    """Lists folders. Blocking: call it in a thread."""

    def __init__(self, max_file_bytes: int) -> None:
        self._max_bytes = max_file_bytes
        self._digests: dict[Path, tuple[tuple[int, int, int], str]] = {}

    def listed(self, folder: Path) -> tuple[FileEntry, ...] | Failure:
        """List what a request's folder holds; a failure when it is too much to be brought anywhere."""
        if folder == _NOWHERE:
            return ()
        entries: list[FileEntry] = []
        for path in sorted(_below(folder)):
            if path.stat().st_size > self._max_bytes:
                return _too_much(f"{path.relative_to(folder)} is larger than {self._max_bytes >> 20} MiB")
            executable = bool(path.stat().st_mode & 0o100)
            entries.append(FileEntry(path.relative_to(folder).as_posix(), self._digest(path), executable))
            if len(entries) > _MOST:
                return _too_much(f"{folder.name} has more than {_MOST} files")
        return tuple(entries)

    def _digest(self, path: Path) -> str:
        found = path.stat()
        state = (found.st_ino, found.st_mtime_ns, found.st_size)
        known = self._digests.get(path)
        if known is None or known[0] != state:
            known = self._digests[path] = (state, f"sha256-{hashlib.sha256(path.read_bytes()).hexdigest()}")
        return known[1]


def _below(folder: Path) -> Iterator[Path]:
    """Give all regular files; links lead who knows where, and caches are made again."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and not _CACHES & set(path.relative_to(folder).parts):
            yield path


def _too_much(what: str) -> Failure:
    return Failure(
        message=f"the workflow's files cannot be brought to another machine: {what}",
        error_class=ErrorClass.INPUT,
        hint="keep data in the artifact store or an object store, and only code beside the workflow",
    )
