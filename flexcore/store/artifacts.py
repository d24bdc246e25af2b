"""Artifacts in a local folder: bytes named by their content, written once, durable before anybody refers to them.

Plain files for now; object stores by URL come with fsspec behind the same protocol. A name that is not a digest never
becomes a path. Nothing is ever changed in place: a file appears under its name complete, or not at all.
"""

import asyncio
import hashlib
import os
import re
import tempfile
from dataclasses import replace
from pathlib import Path

from flexcore.model.errors import InternalError, InvalidInput, NotFound, StoreUnavailable
from flexcore.model.values import Ref, reference

_URI = re.compile(r"artifact:(?P<name>sha256-[0-9a-f]{64})")


class LocalArtifacts:
    """Implements `flexcore.runtime.plugin.ArtifactStore`."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        """Store bytes durably and name them by their content. Raises StoreUnavailable when the disk refuses."""
        return await asyncio.to_thread(self._put, data, format)

    async def get(self, ref: Ref) -> bytes:
        """Read bytes back. Raises NotFound, InvalidInput (not one of ours), InternalError (damaged)."""
        return await asyncio.to_thread(self._get, ref)

    def path(self, ref: Ref) -> Path:
        """Say where the bytes of a reference are, or would be. Raises InvalidInput for anything but a digest."""
        match = _URI.fullmatch(ref.uri)
        if match is None:
            raise InvalidInput(f"{ref.uri!r} is not an artifact of this store", hint="artifact:sha256-<64 hex digits>")
        name = match["name"]
        return self._folder / name[7:9] / name

    def _put(self, data: bytes, format: str) -> Ref:
        ref = replace(reference(data), format=format)
        target = self.path(ref)
        try:
            if not (target.exists() and target.stat().st_size == len(data)):
                _write(target, data)
            # Also when it was there: whoever wrote it may not have come as far as this.
            sync_folder(target.parent)
        except OSError as error:
            raise StoreUnavailable(f"an artifact of {len(data)} bytes cannot be stored: {error}") from error
        return ref

    def _get(self, ref: Ref) -> bytes:
        target = self.path(ref)
        try:
            data = target.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"the store has no {ref.uri}", hint="it may have been collected") from error
        except OSError as error:
            raise StoreUnavailable(f"{ref.uri} cannot be read: {error}") from error
        if target.name != f"sha256-{hashlib.sha256(data).hexdigest()}":
            raise InternalError(f"{ref.uri} is damaged: its content has another checksum", hint="restore a backup")
        return data


def _write(target: Path, data: bytes) -> None:
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    sync_folder(target.parent.parent)
    descriptor, name = tempfile.mkstemp(dir=target.parent, prefix=".new-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        Path(name).replace(target)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def sync_folder(folder: Path) -> None:
    """Make durable that files have appeared in a folder: their own fsync does not cover their names."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
