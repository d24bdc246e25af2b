"""The folder of a step far away, with all that it makes, and what is left of others whose program was killed.

A program holds a lock on a file in its folder as long as it lives. Where nobody does, the folder is rubbish: it may be
an environment of hundreds of megabytes, and holds the step's files.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

_PREFIX = "flexcore-step-"
_LOCK, _NOT_YET = ".lives", ".new"


@contextlib.contextmanager
def private_folder(given: str) -> Iterator[Path]:
    """Make the folder, and remove it at the end. Should we be killed, a `given` one is looked after by who gave it."""
    if given:
        folder, lock = Path(given), None
        folder.mkdir(mode=0o700, exist_ok=True)
    else:
        _sweep(Path(tempfile.gettempdir()))
        folder = Path(tempfile.mkdtemp(prefix=_PREFIX))
        lock = _locked(folder)
    try:
        yield folder
    finally:
        shutil.rmtree(str(folder), ignore_errors=True)
        if lock is not None:
            os.close(lock)


def _locked(folder: Path) -> int:
    """Hold the lock before the file has its name: nobody may find it free."""
    lock = os.open(str(folder / _NOT_YET), os.O_CREAT | os.O_WRONLY, 0o600)
    with contextlib.suppress(OSError):  # some networks' disks know no locks: then nobody takes it for rubbish
        fcntl.flock(lock, fcntl.LOCK_EX)
        (folder / _NOT_YET).rename(folder / _LOCK)
    return lock


def _sweep(parent: Path) -> None:
    for folder in parent.glob(f"{_PREFIX}*"):
        with contextlib.suppress(OSError):  # held, just gone, or another user's
            lock = os.open(str(folder / _LOCK), os.O_WRONLY | os.O_NONBLOCK | os.O_NOFOLLOW)  # anybody may make one
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(str(folder), ignore_errors=True)
            finally:
                os.close(lock)
