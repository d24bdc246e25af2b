"""Locks of the operating system in the store's folder: held by the living, free when the holder is dead, at once.

`flock` belongs to the open file, not to the process: a child made by `fork` shares it, so the descriptor is closed in
every such child; one made by `exec` never gets it. POSIX record locks are no alternative: closing any descriptor of
the file would drop them.
"""

import errno
import fcntl
import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flexcore.model.errors import StoreUnavailable


class HeldLock:
    """An exclusive lock that this process holds until `release` or death."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._descriptor: int | None = _hold(path)
        reference = weakref.ref(self)
        os.register_at_fork(after_in_child=lambda: _forget(reference))

    def release(self, *, remove: bool) -> None:
        """Let go, and remove the file first when nobody needs it any more. Doing it twice is harmless."""
        if self._descriptor is None:
            return
        if remove:
            self.path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Close the descriptor: in the holder this frees the lock, in a forked child it does not."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def is_free(path: Path) -> bool:
    """Say whether nobody holds the lock. Shared, so that two who look at once do not take each other for the holder."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return True
    try:
        return _locked(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def remove_free(path: Path) -> None:
    """Remove the file of a dead holder, never that of a living one."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return
    try:
        if _locked(descriptor, fcntl.LOCK_EX):
            path.unlink(missing_ok=True)
    finally:
        os.close(descriptor)


@contextmanager
def exclusive(path: Path, timeout_s: float) -> Iterator[None]:
    """Hold a lock for the time of a block. Raises StoreUnavailable when it is not free in time."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        deadline = time.monotonic() + timeout_s
        while not _locked(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise StoreUnavailable(
                    f"another process keeps {path.name} locked", hint="it opens or upgrades the store; try again"
                )
            time.sleep(0.01)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def shared(path: Path) -> Iterator[None]:
    """Keep those out who want the lock for themselves, for the short time of a block; waits for them."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        yield
    finally:
        os.close(descriptor)


def _hold(path: Path) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            hint = "check that the store's folder can be written, and that its disk has space"
            raise StoreUnavailable(f"the lock {path} cannot be made: {error}", hint=hint) from error
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        # Somebody may have removed the file, taking it for a dead one's, between the two lines above.
        if _is_file(path, descriptor):
            return descriptor
        os.close(descriptor)


def _is_file(path: Path, descriptor: int) -> bool:
    try:
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def _locked(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def _forget(reference: "weakref.ref[HeldLock]") -> None:
    held = reference()
    if held is not None:
        held.close()
