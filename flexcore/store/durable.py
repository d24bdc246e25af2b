"""Files that are there whole or not at all, also after the machine lost its power. Blocking."""

import os
import tempfile
from pathlib import Path

PART = ".new-"
"""How the names of files and folders begin that are not finished: what a dead process left under one is rubbish."""


def write_whole(path: Path, data: bytes) -> None:
    """Write through to the disk, the folder's entry too. Raises OSError, and leaves nothing half."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_folder(path.parent.parent)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=PART)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Make durable that files have appeared in a folder: their own fsync does not cover their names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
