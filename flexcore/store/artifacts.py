"""Artifacts in a local folder: bytes named by their content, written once, durable before anybody refers to them.

A name that is not a digest never becomes a path. Nothing is ever changed in place: a file appears under its name
complete, or not at all. What a step makes elsewhere is named before its content exists (`made-<hash of the offer>`):
there the reference says the checksum.

A file's time says when it was last stored or taken over: whoever collects what nobody refers to leaves young files
alone, because the reference may be about to be written. Looking at that time and removing the file is one step.
"""

import asyncio
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path

from flexcore.model.errors import InternalError, InvalidInput, NotFound, StoreUnavailable
from flexcore.model.values import Ref, digest, reference
from flexcore.runtime.plugin import Link, Offer
from flexcore.store.durable import PART, sync_folder, write_whole
from flexcore.store.locks import exclusive, shared

_LOCK_SECONDS = 30.0
_REMOVED_AT_ONCE = 100
_URI = re.compile(r"artifact:(?P<name>(?:sha256|made)-[0-9a-f]{64})")


class LocalArtifacts:
    """Implements `flexcore.runtime.plugin.ArtifactStore`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    @property
    def store(self) -> str:
        """Say what a link needs: the files of this machine."""
        return "file"

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        """Store bytes durably and name them by their content. Raises StoreUnavailable when the disk refuses."""
        return await asyncio.to_thread(self._put, data, format)

    async def get(self, ref: Ref) -> bytes:
        """Read bytes back. Raises NotFound, InvalidInput (not one of ours), InternalError (damaged)."""
        return await asyncio.to_thread(self._get, ref)

    async def link(self, ref: Ref, valid: timedelta) -> Link:
        """Say where the bytes of a reference are. Raises NotFound, InvalidInput (not one of ours)."""
        path = self.path(ref)
        if not await asyncio.to_thread(path.is_file):
            raise NotFound(f"the store has no {ref.uri}", hint="it may have been collected")
        return Link(path.absolute().as_uri())

    async def offer(self, name: str, valid: timedelta) -> Offer:
        """Offer a file to write: beside it under a name that starts with `.new-`, and then renamed to it."""
        uri = offered(name)
        path = self.path(Ref(uri=uri, bytes=0))
        try:
            await asyncio.to_thread(path.parent.mkdir, mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StoreUnavailable(f"no place for data can be made in {path.parent}: {error}") from error
        return Offer(uri, Link(path.absolute().as_uri()))

    async def keep(self, refs: Iterable[Ref]) -> None:
        """Make content count as just stored, because it is about to be referred to again.

        Raises NotFound when some of it has been collected; what is not in this store is nobody's to keep.
        """
        ours = [ref for ref in refs if own_name(ref)]
        if ours:
            await asyncio.to_thread(self._keep, ours)

    async def old(self, before: datetime) -> Mapping[str, int]:
        """Name what was last stored before, each with its size in bytes; also what a crash left half-written."""
        return await asyncio.to_thread(lambda: dict(self._old(before.timestamp())))

    async def remove(self, names: Sequence[str], before: datetime) -> Mapping[str, int]:
        """Remove files unless they have been stored again meanwhile; name those that went, with their sizes."""
        removed: dict[str, int] = {}
        for start in range(0, len(names), _REMOVED_AT_ONCE):
            batch = names[start : start + _REMOVED_AT_ONCE]
            removed |= await asyncio.to_thread(self._remove, batch, before.timestamp())
        return removed

    def path(self, ref: Ref) -> Path:
        """Say where the bytes of a reference are, or would be. Raises InvalidInput for anything but a digest."""
        name = own_name(ref)
        if name is None:
            raise InvalidInput(f"{ref.uri!r} is not an artifact of this store", hint="artifact:sha256-<64 hex digits>")
        return self._place(name)

    def _place(self, name: str) -> Path:
        return self._folder / shelf(name) / name

    def _put(self, data: bytes, format: str) -> Ref:
        ref = replace(reference(data), format=format)
        target = self.path(ref)
        try:
            if self._take_over(target, len(data)):
                sync_folder(target.parent)  # whoever wrote it may not have come as far as this
            else:
                write_whole(target, data)
        except OSError as error:
            raise StoreUnavailable(f"an artifact of {len(data)} bytes cannot be stored: {error}") from error
        return ref

    def _take_over(self, target: Path, size: int) -> bool:
        """Use what is there already, whole: from now on it is as young as if it had been written now."""
        if not target.exists():
            return False
        with shared(self._lock):
            try:
                whole = target.stat().st_size == size
                if whole:
                    os.utime(target)
            except FileNotFoundError:
                return False
        return whole

    def _keep(self, refs: Sequence[Ref]) -> None:
        with shared(self._lock):
            for ref in refs:
                try:
                    os.utime(self.path(ref))
                except FileNotFoundError as error:
                    raise NotFound(f"the store has no {ref.uri}", hint="it has been collected") from error

    @property
    def _lock(self) -> Path:
        return self._folder / ".lock"

    def _old(self, before: float) -> Iterator[tuple[str, int]]:
        for shelf in sorted(self._folder.glob("??")):
            for file in os.scandir(shelf):
                try:
                    found = file.stat()
                except FileNotFoundError:
                    continue  # half-written a moment ago, and complete now
                if found.st_mtime < before:
                    name = f"{shelf.name}/{file.name}" if file.name.startswith(PART) else file.name
                    yield name, found.st_size

    def _remove(self, names: Sequence[str], before: float) -> Mapping[str, int]:
        removed: dict[str, int] = {}
        with exclusive(self._lock, _LOCK_SECONDS):
            for name in names:
                file = self._folder / name if PART in name else self._place(name)
                try:
                    found = file.stat()
                    if found.st_mtime < before:
                        file.unlink()
                        removed[name] = found.st_size
                except FileNotFoundError:
                    continue
        return removed

    def _get(self, ref: Ref) -> bytes:
        target = self.path(ref)
        try:
            data = target.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"the store has no {ref.uri}", hint="it may have been collected") from error
        except OSError as error:
            raise StoreUnavailable(f"{ref.uri} cannot be read: {error}") from error
        check(ref, data)
        return data


def offered(name: str) -> str:
    """Name data that is yet to be made, by what it will be: the same offer has the same URI, however often made."""
    return f"artifact:made-{hashlib.sha256(name.encode()).hexdigest()}"


def own_name(ref: Ref) -> str | None:
    """Give the name that a reference has in an artifact store; None for a reference to anywhere else."""
    match = _URI.fullmatch(ref.uri)
    return match["name"] if match else None


def shelf(name: str) -> str:
    """Spread names over 256 folders by the first digits of their digest."""
    return name.partition("-")[2][:2]


def check(ref: Ref, data: bytes) -> None:
    """Raise InternalError unless bytes are those that a reference promises. What promises nothing cannot break it."""
    name = own_name(ref) or ""
    wanted = name if name.startswith("sha256-") else ref.checksum
    if wanted and wanted != digest(data):
        raise InternalError(f"{ref.uri} is damaged: its content has another checksum", hint="restore a backup")
