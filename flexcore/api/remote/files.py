"""The files of workflows that callers bring: kept by their content, and laid out anew for each attempt.

A name that is not a digest, or not a plain path below the folder, never becomes a path. An attempt has a folder of its
own, so that what its work writes there is seen by no other.
"""

import hashlib
import os
import re
import shutil
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from flexcore.model.errors import InvalidRequest, StoreUnavailable
from flexcore.runtime.wire.requests import FileEntry
from flexcore.store.durable import PART, write_whole

_DIGEST = re.compile(r"sha256-[0-9a-f]{64}")
_MOST_FILES = 10_000
_SPACE = "has the disk of the server space left, and may the server write to its home folder?"


class Shelf:
    """Contents by digest, shared by all callers: who knows a digest knows the content."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._naming = threading.Lock()

    def missing(self, files: Sequence[FileEntry]) -> list[str]:
        """Name the contents that are not here. Raises InvalidRequest for names that cannot be right."""
        if len(files) > _MOST_FILES:
            raise InvalidRequest(f"{len(files)} files are too many", hint=f"at most {_MOST_FILES}")
        for each in files:
            _check_path(each.path)
        return sorted({each.digest for each in files if not self._is_here(each.digest)})

    def keep(self, digest: str, data: bytes) -> None:
        """Take a content. Raises InvalidRequest when it is not what the digest says."""
        target = self._path(digest)
        if hashlib.sha256(data).hexdigest() != target.name.removeprefix("sha256-"):
            raise InvalidRequest(f"the content is not that of {digest}")
        try:
            write_whole(target, data)
        except OSError as error:
            raise StoreUnavailable(f"a file cannot be kept: {error.strerror}", hint=_SPACE) from error

    def lay_out(self, files: Sequence[FileEntry], folder: Path) -> None:
        """Make a folder with the files, whole or not at all; one that is there is left as it is."""
        try:
            folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=PART))
            try:
                self._fill(scratch, files)
                with self._naming:  # another call for the attempt may be here too
                    if not folder.exists():
                        scratch.rename(folder)
            finally:
                shutil.rmtree(scratch, ignore_errors=True)
        except OSError as error:
            message = f"the workflow's files cannot be laid out: {error.strerror}"
            raise StoreUnavailable(message, hint=_SPACE) from error

    def _fill(self, folder: Path, files: Sequence[FileEntry]) -> None:
        for each in files:
            target = folder / each.path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(self._path(each.digest), target)
            target.chmod(0o755 if each.executable else 0o644)
        folder.chmod(0o755)

    def forget(self, before: float) -> None:
        """Remove contents that nobody used since a time, in seconds since 1970."""
        for path in self._folder.glob("*/*"):
            with suppress(FileNotFoundError):
                if path.stat().st_mtime < before:
                    path.unlink()

    def _is_here(self, digest: str) -> bool:
        try:
            os.utime(self._path(digest))  # it is in use: see `forget`
        except FileNotFoundError:
            return False
        return True

    def _path(self, digest: str) -> Path:
        if not _DIGEST.fullmatch(digest):
            raise InvalidRequest(f"not a digest: {digest!r}", hint="sha256- and 64 hexadecimal digits")
        return self._folder / digest[7:9] / digest


def _check_path(path: str) -> None:
    parts = path.split("/")
    if PurePosixPath(path).is_absolute() or "\0" in path or any(part in ("", ".", "..") for part in parts):
        raise InvalidRequest(f"not a path below the workflow's folder: {path!r}")
