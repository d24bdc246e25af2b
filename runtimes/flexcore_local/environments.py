"""The folder of environments that steps with `packages` share: one per digest, built once, removed when unused.

Whoever uses an environment holds its lock, shared with other users; its builder holds another lock, alone; who removes
it holds both. The kernel lets go of a dead one's locks. An environment appears by a rename, so what is there is
complete, and what a killed builder left lies under another name until the next one, or a sweep, takes it away.
Standard library only: the first process of an attempt runs this without any packages.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LEFT_S = 60.0  # the age at which what is no complete environment is nobody's
BEGUN = "begun"  # in the folder of an attempt that prepared itself: when its own program began, in epoch seconds
FORMAT = 1  # of the digest: another one makes every environment anew
SHOWN = "environment.json"
_USE, _BUILD = ".use", ".build"  # the locks
_BUILDING, _REMOVED = ".building", ".removed"
OPTIONS = frozenset(
    f"UV_{name}"
    for name in (
        *("BUILD_CONSTRAINT", "CONFIG_FILE", "CONSTRAINT", "DEFAULT_INDEX", "EXCLUDE_NEWER", "EXTRA_INDEX_URL"),
        *("EXCLUDE", "FIND_LINKS", "FORK_STRATEGY", "INDEX", "INDEX_STRATEGY", "INDEX_URL", "NO_BINARY"),
        *("NO_BINARY_PACKAGE", "NO_BUILD", "NO_BUILD_ISOLATION", "NO_BUILD_PACKAGE", "NO_CONFIG", "NO_INDEX"),
        *("NO_SOURCES", "ONLY_BINARY", "OVERRIDE", "PRERELEASE", "RESOLUTION", "TORCH_BACKEND"),
    )
)
"""Variables of the installer that say what is installed, and so are part of the digest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """One that is there. `used` is in seconds since the epoch: when a step last began with it."""

    name: str
    requirements: tuple[str, ...]
    size_bytes: int
    used: float


def digest(requirements: Sequence[str], interpreter: Sequence[str], options: Mapping[str, str]) -> str:
    """Name the environment that these make: requirements in normal form, what the interpreter is, and the options."""
    told = {name: value for name, value in options.items() if name in OPTIONS}
    text = json.dumps([FORMAT, sorted(requirements), list(interpreter), told], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:32]


class Environments:
    """The folder. Several processes use it at the same time; nothing is remembered between calls."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def folder(self, name: str) -> Path:
        """Where an environment is, when it is there."""
        return self.root / name

    def acquire(self, name: str, build: Callable[[Path, int], None], waiting: Callable[[], None]) -> tuple[int, bool]:
        """Give a descriptor that keeps the environment from being removed, and whether it was built for this.

        `build` makes it in the folder it is given; whoever it starts should keep the descriptor it is given, so that
        no second builder begins while anything of the first one lives. What it raises goes through.
        """
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        built = False
        while True:
            use = self._locked(name, _USE, fcntl.LOCK_SH, waiting)
            if self._is_there(name):
                os.utime(use)
                return use, built
            os.close(use)
            lock = self._locked(name, _BUILD, fcntl.LOCK_EX, waiting)
            try:
                if not self._is_there(name):
                    self._build(name, build, lock)
                    built = True
            finally:
                os.close(lock)

    def present(self) -> list[Environment]:
        """List the complete ones, the longest unused first."""
        found = [self._read(folder.name) for folder in self._folders() if not folder.suffix]
        return sorted((each for each in found if each is not None), key=lambda each: each.used)

    def sweep(self, *, keep_s: float, max_bytes: int, now: float) -> list[str]:
        """Remove what nobody has used for so long, then the longest unused while all are too big; name them.

        One in use stays. What a build left that failed or was killed goes too.
        """
        present = self.present()
        total = sum(each.size_bytes for each in present)
        gone = []
        for each in present:
            if (each.used + keep_s < now or total > max_bytes) and self._remove(each.name, each.used):
                total -= each.size_bytes
                gone.append(each.name)
        for name in {entry.stem for entry in self._entries()} - {each.name for each in present}:
            self._remove(name, now - min(keep_s, _LEFT_S))
        return gone

    def _is_there(self, name: str) -> bool:
        return (self.folder(name) / "bin" / "python").exists()  # it is a link: the interpreter may be gone

    def _locked(self, name: str, suffix: str, kind: int, waiting: Callable[[], None]) -> int:
        """Open and lock the file that has the name now: a removal takes the file away with the environment."""
        path = self.root / f"{name}{suffix}"
        while True:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(lock, kind | fcntl.LOCK_NB)
            except BlockingIOError:
                waiting()
                fcntl.flock(lock, kind)
            if _is_at(lock, path):
                return lock
            os.close(lock)

    def _build(self, name: str, build: Callable[[Path, int], None], lock: int) -> None:
        made, place = self.root / f"{name}{_BUILDING}", self.folder(name)
        _delete(made)
        try:
            build(made, lock)
            _flush(self.root)
            _delete(place)  # one whose interpreter is gone
            made.rename(place)
            _flush(self.root)
        except Exception:
            _delete(made)
            raise

    def _remove(self, name: str, used: float) -> bool:
        """Remove one if nobody uses or builds it, and nobody did since it was looked at."""
        try:
            with self._alone(name, _BUILD), self._alone(name, _USE) as use:
                if os.fstat(use).st_mtime > used:
                    return False
                gone = self.root / f"{name}{_REMOVED}"
                _delete(gone)
                if self.folder(name).exists():
                    self.folder(name).rename(gone)  # in one moment: nobody ever sees half of one
                _delete(gone)
                _delete(self.root / f"{name}{_BUILDING}")
                for suffix in (_USE, _BUILD):
                    (self.root / f"{name}{suffix}").unlink()
        except OSError:
            return False  # in use, or not ours to change
        return True

    @contextlib.contextmanager
    def _alone(self, name: str, suffix: str) -> Iterator[int]:
        path = self.root / f"{name}{suffix}"
        lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_at(lock, path):
                raise BlockingIOError(f"{name} was just removed")
            yield lock
        finally:
            os.close(lock)

    def _read(self, name: str) -> Environment | None:
        try:
            shown = json.loads((self.folder(name) / SHOWN).read_text())
            used = (self.root / f"{name}{_USE}").stat().st_mtime
            wanted, size_bytes = tuple(map(str, shown["requirements"])), int(shown["size_bytes"])
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return Environment(name=name, requirements=wanted, size_bytes=size_bytes, used=used)

    def _folders(self) -> Iterator[Path]:
        return (each for each in self._entries() if each.is_dir())

    def _entries(self) -> list[Path]:
        return sorted(self.root.iterdir()) if self.root.is_dir() else []


def describe(folder: Path, requirements: Sequence[str]) -> None:
    """Write into an environment what it was made from and how big it is."""
    size_bytes = sum((here / name).lstat().st_size for here, _, names in _walk(folder) for name in names)
    (folder / SHOWN).write_text(json.dumps({"requirements": list(requirements), "size_bytes": size_bytes}))


def _walk(folder: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    return ((Path(here), folders, files) for here, folders, files in os.walk(folder))


def _is_at(descriptor: int, path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return path.stat().st_ino == os.fstat(descriptor).st_ino
    return False


def _delete(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)


def _flush(folder: Path) -> None:
    """Bring what was written on this file system to the disk: a rename must not come before what it shows."""
    import ctypes  # here, because only a builder needs its 3 ms

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        ctypes.CDLL(None).syncfs(descriptor)
    finally:
        os.close(descriptor)
