"""Where a version runs: in its author's folder while that holds the very files of the version, else in a copy of them.

Looked at anew whenever a version is loaded. Nothing in an author's folder is ever written; the copies are the store's
own, and what somebody damaged in one is put right from the artifacts. Projects change as they run (installs,
bookmarks, output): of their files it is enough that they are there.
"""

import asyncio
import os
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp, mkstemp
from typing import TypeAlias

from flexcore.model.values import Ref, digest
from flexcore.runtime.plugin import ArtifactStore
from flexcore.store.read import Definition

_REMEMBERED = 100_000

Stamp: TypeAlias = tuple[int, int, int, int]  # changes when a file is written or replaced


@dataclass(slots=True)
class Places:
    """Finds the folder of a version. `folder` is where copies are unpacked."""

    artifacts: ArtifactStore
    folder: Path
    _digests: dict[Path, tuple[Stamp, str]] = field(default_factory=dict)

    async def find(self, definition: Definition, projects: Collection[str]) -> Path:
        """Give a folder that has the version's files now. Raises NotFound, InternalError for a lost artifact."""
        files, changing = definition.files, _prefixes(projects)
        origin = Path(definition.origin)
        if definition.origin and not await asyncio.to_thread(self._differing, origin, files, changing):
            return origin
        target = self.folder / definition.version
        if await asyncio.to_thread(target.is_dir):
            wrong = await asyncio.to_thread(self._differing, target, files, changing)
            await asyncio.to_thread(_restore, target, await self._contents(files, wrong))
        else:
            await asyncio.to_thread(_unpack, target, await self._contents(files, files))
        return target

    async def _contents(self, files: Mapping[str, str], names: Collection[str]) -> dict[str, bytes]:
        contents = {}
        for name in names:
            ref = Ref(uri=f"artifact:{files[name]}", bytes=0, checksum=files[name])
            contents[name] = await self.artifacts.get(ref)
        return contents

    def _differing(self, folder: Path, files: Mapping[str, str], changing: tuple[str, ...]) -> list[str]:
        """Name the files of a version that a folder does not hold as they were deployed."""
        found = []
        for name, content in files.items():
            path = folder / name
            if not path.is_file() or (not name.startswith(changing) and self._digest(path) != content):
                found.append(name)
        return found

    def _digest(self, path: Path) -> str | None:
        """Hash a file, once for as long as it is left alone. None when it cannot be read."""
        try:
            stamp = _stamp(path)
            known = self._digests.get(path)
            if known is not None and known[0] == stamp:
                return known[1]
            content = digest(path.read_bytes())
        except OSError:
            return None
        if len(self._digests) >= _REMEMBERED:
            self._digests.clear()
        self._digests[path] = (stamp, content)
        return content


def _stamp(path: Path) -> Stamp:
    found = path.stat()
    # The time of change too: unlike the time of writing, nobody can set it back.
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _prefixes(projects: Collection[str]) -> tuple[str, ...]:
    """Say how the names of files in projects begin. A project that is the workflow's own folder has all of them."""
    return tuple("" if Path(each) == Path() else f"{Path(each)}/" for each in projects)


def _unpack(target: Path, contents: Mapping[str, bytes]) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(mkdtemp(dir=target.parent))
    for name, data in contents.items():
        (fresh / name).parent.mkdir(parents=True, exist_ok=True)
        (fresh / name).write_bytes(data)
    try:
        fresh.rename(target)
    except OSError:  # somebody else was faster; the content is the same
        shutil.rmtree(fresh, ignore_errors=True)


def _restore(target: Path, contents: Mapping[str, bytes]) -> None:
    """Put files in place one by one, each whole or not at all: steps may be running beside them."""
    for name, data in contents.items():
        path = target / name
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, fresh = mkstemp(dir=path.parent, prefix=".new-")
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        Path(fresh).replace(path)
