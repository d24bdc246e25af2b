"""Stores files that a step left on this machine: for runtimes whose work is no program of ours.

A file is read twice and never held in memory as a whole. Whoever stores again after a crash stores the same place.
"""

import asyncio
import contextlib
import hashlib
import os
import shutil
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.ids import AttemptId
from flexcore.model.values import Ref
from flexcore.runtime.flexcore_far.transfer import ROWS_ARE_LINES
from flexcore.runtime.interface import Failed, Succeeded
from flexcore.runtime.plugin import ArtifactStore, Link
from flexcore.runtime.portable.data import DeclaredOutput, Stored, offers, with_references

_CHUNK = 1 << 20
_PART = ".new-"  # what the store takes for half-written
_SILENCE_S = 60.0


async def store_outputs(
    outcome: Succeeded,
    outputs: Mapping[str, DeclaredOutput],
    folder: Path,
    artifacts: ArtifactStore,
    id: AttemptId,
) -> tuple[Succeeded | Failed, tuple[Ref, ...]]:
    """Store each output that is there, and put references into the result; one that is not there fails the step.

    `folder` is where the outputs' paths start. Raises RuntimeUnavailable when the artifact store cannot be reached.
    """
    data = await offers(outputs, artifacts, id)
    stored: dict[str, Stored] = {}
    for name, each in data.outputs.items():
        file = folder / each.path
        if await asyncio.to_thread(file.is_file):
            try:
                stored[name] = await asyncio.to_thread(_store, file, each.format, each.offer.link)
            except OSError as error:
                why = _told(error)
                raise RuntimeUnavailable(f"output '{name}' cannot be stored: {why}") from error
    return with_references(outcome, data, stored, id)


def _told(error: OSError) -> str:
    """Say why, without the link: it is a secret, and some of these errors quote it."""
    match error:
        case urllib.error.HTTPError():
            return f"the store answered {error.code} {error.reason}"
        case urllib.error.URLError():
            return str(getattr(error.reason, "strerror", None) or type(error).__name__)
        case _:
            return error.strerror or type(error).__name__


def _store(file: Path, format: str, link: Link) -> Stored:
    found = _described(file, format)
    if link.url.startswith("file:"):
        _copy(file, Path(urllib.parse.unquote(urllib.parse.urlsplit(link.url).path)))
    else:
        _send(file, link, found.bytes)
    return found


def _described(file: Path, format: str) -> Stored:
    digest, size, lines, last = hashlib.sha256(), 0, 0, b"\n"
    with file.open("rb") as source:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            size, lines, last = size + len(chunk), lines + chunk.count(b"\n"), chunk[-1:]
    rows = lines + (last != b"\n") if format in ROWS_ARE_LINES else None
    return Stored(bytes=size, checksum=f"sha256-{digest.hexdigest()}", rows=rows)


def _copy(file: Path, target: Path) -> None:
    descriptor, part = tempfile.mkstemp(dir=target.parent, prefix=_PART)
    try:
        with file.open("rb") as source, os.fdopen(descriptor, "wb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            copy.flush()
            os.fsync(copy.fileno())
        Path(part).replace(target)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            Path(part).unlink()
        raise
    folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _send(file: Path, link: Link, size: int) -> None:
    with file.open("rb") as source:
        headers = {**link.headers, "Content-Length": str(size)}
        request = urllib.request.Request(link.url, data=source, headers=headers, method="PUT")  # noqa: S310 (the store's own link)
        with urllib.request.urlopen(request, timeout=_SILENCE_S):  # noqa: S310 (the store's own link)
            pass
