"""One runtime, hosted for many installations: each has an instance and folders of its own.

Adds to the runtime what a caller far away needs: the fence by tokens, the files of the workflow, and an id by which
handles are known to be good here. Whatever the work does is the runtime's business alone.
"""

import asyncio
import re
import shutil
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

from flexcore.api.remote.fence import Fence
from flexcore.api.remote.files import Shelf
from flexcore.model.errors import Fenced, InvalidRequest, StoreUnavailable
from flexcore.model.ids import AttemptId, external_name
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionScope,
    Runtime,
    Survey,
)
from flexcore.runtime.supervised import Closing
from flexcore.runtime.wire.requests import FileEntry
from flexcore.store.locks import HeldLock, is_free

_INSTALLATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_KEEP = timedelta(days=30)
_LOOK = timedelta(seconds=0.2)

Create = Callable[[str, Path], Awaitable[Runtime]]
"""Makes an instance for an installation, which keeps its files in the folder."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing was started: these contents are not here."""

    digests: list[str]


@dataclass(frozen=True, slots=True)
class _Tenant:
    """What belongs to one installation."""

    installation: str
    runtime: Runtime
    fence: Fence
    work: Path

    def folder(self, id: AttemptId) -> Path:
        return self.work / external_name(self.installation, id)


class Hosting:
    """A served runtime. `entropy` names the server the first time; `data_store` is the kind of the
    artifact store here; the folder is this process's alone until `close`.

    Raises StoreUnavailable when another process serves from the folder, or it cannot be used.
    """

    def __init__(
        self,
        create: Create,
        folder: Path,
        *,
        now: Callable[[], datetime],
        entropy: Callable[[], bytes],
        data_store: str = "file",
    ) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not is_free(folder / "lock"):
            raise StoreUnavailable(
                f"another process serves from {folder}", hint="stop it first, or serve another runtime"
            )
        self._lock = HeldLock(folder / "lock")
        self._create = create
        self._folder = folder
        self._now = now
        self._tenants: dict[str, asyncio.Task[_Tenant]] = {}
        self.shelf = Shelf(folder / "files")
        self.server_id = _server_id(folder / "server-id", entropy)
        self.busy = 0
        self._data_store = data_store

    async def execute(
        self, installation: str, request: ExecutionRequest, files: Sequence[FileEntry]
    ) -> AsyncGenerator[ExecutionEvent | Missing, None]:
        """Start or adopt an attempt. Raises Fenced for one that comes too late, and what the runtime raises."""
        tenant = await self._tenant(installation)
        folder = tenant.folder(request.id)
        if not folder.exists():
            missing = await asyncio.to_thread(self.shelf.missing, files)
            if missing:
                yield Missing(missing)
                return
            await asyncio.to_thread(self.shelf.lay_out, files, folder)
        older = tenant.fence.enter(request)
        if older is not None:
            await self._end_before(tenant, older, request)
        self.busy += 1
        try:
            async with aclosing(_admitted(tenant, replace(request, folder=folder))) as events:
                async for event in events:
                    yield event
        finally:
            self.busy -= 1

    async def find(self, installation: str, id: AttemptId) -> bool:
        """Say whether an attempt was started here and not cleaned up."""
        return (await self._tenant(installation)).fence.is_current(id)

    async def cleanup(self, installation: str, scope: CleanupScope) -> CleanupReport:
        """End work and remove what it left, also here."""
        tenant = await self._tenant(installation)
        match scope:
            case AttemptScope():
                tenant.fence.end(scope.id)
            case ExecutionScope():
                tenant.fence.end_all(scope.execution)
            case Survey():
                await asyncio.to_thread(self._tidy, tenant)
            case _:
                assert_never(scope)
        report = await tenant.runtime.cleanup(scope)
        await asyncio.to_thread(_remove, [tenant.work / name for name in report.gone])
        return report

    async def runtime(self, installation: str) -> Runtime:
        """Give the instance of an installation."""
        return (await self._tenant(installation)).runtime

    async def capabilities(self, installation: str) -> Capabilities:
        """Say what the runtime can do. It reaches data only by the artifact store that is configured here."""
        found = await (await self._tenant(installation)).runtime.capabilities()
        return replace(found, data_stores=found.data_stores & {self._data_store})

    async def close(self) -> None:
        """Let go of clients and of the folder. Work goes on."""
        tenants = await asyncio.gather(*self._tenants.values(), return_exceptions=True)
        self._tenants.clear()
        for each in tenants:
            if isinstance(each, _Tenant) and isinstance(each.runtime, Closing):
                await each.runtime.close()
        self._lock.close()

    async def _tenant(self, installation: str) -> _Tenant:
        """Find what belongs to an installation, made once for all who ask at the same time."""
        if not _INSTALLATION.fullmatch(installation):
            raise InvalidRequest(f"not the name of an installation: {installation!r}")
        task = self._tenants.get(installation)
        if task is None or (task.done() and task.exception() is not None):
            task = self._tenants[installation] = asyncio.create_task(self._made(installation))
        return await asyncio.shield(task)

    async def _made(self, installation: str) -> _Tenant:
        folder = self._folder / "installations" / installation
        runtime = await self._create(installation, folder / "runtime")
        tenant = _Tenant(installation, runtime, Fence(folder / "tokens"), folder / "work")
        await asyncio.to_thread(self._tidy, tenant)
        return tenant

    def _tidy(self, tenant: _Tenant) -> None:
        before = (self._now() - _KEEP).timestamp()
        tenant.fence.forget(before)
        self.shelf.forget(before)

    async def _end_before(self, tenant: _Tenant, older: AttemptId, request: ExecutionRequest) -> None:
        """End the attempt that a newer one replaces, and wait until it is gone: two of a step never run here."""
        scope = AttemptScope(id=older, grace=request.grace)
        while (report := await tenant.runtime.cleanup(scope)).pending:  # noqa: ASYNC110  the runtime sets no event
            await asyncio.sleep(_LOOK.total_seconds())
        tenant.fence.settle(request.id)
        await asyncio.to_thread(_remove, [tenant.work / name for name in report.gone])


async def _admitted(tenant: _Tenant, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
    """Run an attempt that was let in. While it was starting, it may have been cleaned up or replaced."""
    looked = request.handle is not None
    async with aclosing(tenant.runtime.execute(request)) as events:
        async for event in events:
            if not looked and not tenant.fence.is_current(request.id):
                break
            looked = True
            yield event
        else:
            return
    await tenant.runtime.cleanup(AttemptScope(id=request.id, grace=timedelta(0)))
    raise Fenced(f"attempt {request.id} was cleaned up, or replaced by a newer one, while it was starting")


def _remove(folders: Sequence[Path]) -> None:
    for each in folders:
        shutil.rmtree(each, ignore_errors=True)


def _server_id(path: Path, entropy: Callable[[], bytes]) -> str:
    if not path.exists():
        fresh = path.with_suffix(".new")
        fresh.write_text(f"srv_{entropy().hex()}")
        fresh.replace(path)
    return path.read_text().strip()
