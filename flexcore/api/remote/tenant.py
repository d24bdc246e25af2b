"""What belongs to one installation at a server: its runtime, its tokens, and a working folder for each attempt.

A folder stays as long as the work may need it: until the attempt is cleaned up, or, when nothing was begun, until the
last call for it has ended. Then nobody has a handle to clean up with. Lives in one event loop.
"""

import asyncio
import itertools
import os
import shutil
from collections.abc import AsyncGenerator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from flexcore.api.remote.fence import Fence
from flexcore.model.errors import InvalidRequest
from flexcore.model.execution import Handle
from flexcore.model.ids import AttemptId, ExecutionId, external_name
from flexcore.runtime.interface import Finished, Runtime, Submitted
from flexcore.store.durable import PART

Event = TypeVar("Event")


@dataclass(slots=True)
class _Calls:
    """The calls for one attempt, and whether one that has ended was not refused, so that something of it may exist."""

    open: int = 0
    uncertain: bool = False


class Tenant:
    """`told` keeps the ends that the runtime itself forgets once it has told them."""

    def __init__(self, installation: str, runtime: Runtime, fence: Fence, work: Path) -> None:
        self.installation = installation
        self.runtime = runtime
        self.fence = fence
        self.told: dict[AttemptId, tuple[Submitted, Finished]] = {}
        self._work = work
        self._calls: dict[str, _Calls] = {}  # by the folder's name
        self._dropped = itertools.count()
        self._dropping: set[asyncio.Task[None]] = set()

    def folder(self, id: AttemptId) -> Path:
        """Say where an attempt works."""
        return self._work / external_name(self.installation, id)

    async def heard(
        self, id: AttemptId, handle: Handle | None, events: AsyncGenerator[Event, None]
    ) -> AsyncGenerator[Event, None]:
        """Pass on what a call for an attempt is told. When the last one ends and nothing was begun, nothing is left."""
        name = self.folder(id).name
        calls = self._calls.setdefault(name, _Calls())
        calls.open += 1
        begun, refused = handle is not None, False
        try:
            async with aclosing(events):
                async for event in events:
                    begun = begun or isinstance(event, Submitted)
                    refused = isinstance(event, Finished) and not begun
                    yield event
        except InvalidRequest:
            refused = not begun
            raise
        finally:
            calls.open -= 1
            calls.uncertain |= not refused
            if not calls.open:
                del self._calls[name]
                if not calls.uncertain:
                    await self._drop(name, lambda: self.fence.rest(id, unless=lambda: name in self._calls))

    def listed(self) -> Mapping[str, AttemptId]:
        """Name the attempts whose ends are kept here."""
        return {self.folder(id).name: id for id in self.told}

    def told_of(self, execution: ExecutionId) -> set[AttemptId]:
        """Name those of an execution."""
        return {id for id in self.told if id.execution == execution}

    async def drop_old(self, before: float, listed: Collection[str]) -> None:
        """Remove folders made before a time, in seconds since 1970, that are not listed and that no call is about."""
        for path in await asyncio.to_thread(lambda: [each for each in self._folders() if _is_older(each, before)]):
            # Asked again: removing the last one took its time.
            if path.name not in listed and path.name not in self._calls and _is_older(path, before):
                await self._drop(path.name)

    def remove(self, names: Iterable[str]) -> None:
        """Remove the folders of attempts that no call can begin any more. Blocking."""
        for name in names:
            shutil.rmtree(self._work / name, ignore_errors=True)

    def remove_halves(self) -> None:
        """Remove what a process that died left half made, or half removed. Blocking."""
        self.remove(path.name for path in list(self._work.glob(f"{PART}*")))

    async def settled(self) -> None:
        """Wait until what is being removed has gone."""
        await asyncio.gather(*self._dropping, return_exceptions=True)

    async def _drop(self, name: str, then: Callable[[], None] = lambda: None) -> None:
        """Take a folder away at once, so that the next call makes its own, and remove it even if nobody waits."""
        aside = self._work / f"{PART}gone-{next(self._dropped)}"
        with suppress(OSError):  # it was never made, or cannot be removed
            (self._work / name).rename(aside)

        def remove() -> None:
            shutil.rmtree(aside, ignore_errors=True)
            then()

        task = asyncio.create_task(asyncio.to_thread(remove))
        self._dropping.add(task)
        task.add_done_callback(self._dropping.discard)
        await asyncio.shield(task)

    def _folders(self) -> Sequence[Path]:
        return [path for path in self._work.glob("*") if not path.name.startswith(PART)]


def is_used_again(folder: Path) -> bool:
    """Say whether a folder is there; if so, it counts as just made."""
    try:
        os.utime(folder)
    except OSError:  # what it is, whoever makes the folder says
        return False
    return True


def _is_older(path: Path, before: float) -> bool:
    try:
        return path.stat().st_mtime < before
    except FileNotFoundError:
        return False
