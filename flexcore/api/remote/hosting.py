"""One runtime, hosted for many installations: each has an instance and folders of its own.

Adds to the runtime what a caller far away needs: the fence by tokens, the files of the workflow, and an id by which
handles are known to be good here. Whatever the work does is the runtime's business alone.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

from flexcore.api.remote.fence import Fence
from flexcore.api.remote.files import Shelf
from flexcore.api.remote.tenant import Tenant, is_used_again
from flexcore.model.errors import Fenced, InvalidRequest, RuntimeUnavailable, StoreUnavailable
from flexcore.model.ids import AttemptId
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionScope,
    Feature,
    Finished,
    Runtime,
    Submitted,
    Survey,
)
from flexcore.runtime.supervised import Closing
from flexcore.runtime.wire.requests import FileEntry
from flexcore.store.durable import write_whole
from flexcore.store.locks import HeldLock, is_free

_INSTALLATION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
_KEEP = timedelta(days=30)
_LOOK = timedelta(seconds=0.2)
_MARGIN = timedelta(seconds=30)  # beyond its grace, until an attempt that is being ended must be gone

Create = Callable[[str, Path], Awaitable[Runtime]]
"""Makes an instance for an installation, which keeps its files in the folder."""


@dataclass(frozen=True, slots=True)
class Missing:
    """Nothing was started: these contents are not here."""

    digests: list[str]


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
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            hint = "the home folder has to be writable"
            raise StoreUnavailable(f"{folder} cannot be made: {error.strerror}", hint=hint) from error
        if not is_free(folder / "lock"):
            raise StoreUnavailable(
                f"another process serves from {folder}", hint="stop it first, or serve another runtime"
            )
        self._lock = HeldLock(folder / "lock")
        self._create = create
        self._folder = folder
        self._now = now
        self._tenants: dict[str, asyncio.Task[Tenant]] = {}
        self.shelf = Shelf(folder / "files")
        self.server_id = _server_id(folder / "server-id", entropy)
        self.busy = 0
        self._data_store = data_store

    async def execute(
        self, installation: str, request: ExecutionRequest, files: Sequence[FileEntry]
    ) -> AsyncGenerator[ExecutionEvent | Missing, None]:
        """Start or adopt an attempt. Raises Fenced for one that comes too late, and what the runtime raises."""
        tenant = await self._tenant(installation)
        heard = tenant.heard(request.id, request.handle, self._let_in(tenant, request, files))
        async with aclosing(heard) as events:
            async for event in events:
                yield event

    async def find(self, installation: str, id: AttemptId) -> bool:
        """Say whether an attempt was started here and not cleaned up."""
        return await asyncio.to_thread((await self._tenant(installation)).fence.is_current, id)

    async def cleanup(self, installation: str, scope: CleanupScope) -> CleanupReport:
        """End work and remove what it left, also here."""
        tenant = await self._tenant(installation)
        match scope:
            case AttemptScope():
                await asyncio.to_thread(tenant.fence.end, scope.id)
                told = {scope.id} & tenant.told.keys()
            case ExecutionScope():
                await asyncio.to_thread(tenant.fence.end_all, scope.execution)
                told = tenant.told_of(scope.execution)
            case Survey():
                return await self._surveyed(tenant, scope)
            case _:
                assert_never(scope)
        report = await tenant.runtime.cleanup(scope)
        # Of what it has told, the runtime itself may know nothing any more.
        gone = report.gone | ({tenant.folder(id).name for id in told} - report.pending - report.unknown.keys())
        for id in told:
            tenant.told.pop(id, None)
        await asyncio.to_thread(tenant.remove, gone)
        return replace(report, gone=gone)

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
            if isinstance(each, Tenant):
                await each.settled()
                if isinstance(each.runtime, Closing):
                    await each.runtime.close()
        self._lock.close()

    async def _tenant(self, installation: str) -> Tenant:
        """Find what belongs to an installation, made once for all who ask at the same time."""
        if not _INSTALLATION.fullmatch(installation):
            raise InvalidRequest(f"not the name of an installation: {installation!r}")
        task = self._tenants.get(installation)
        if task is None or (task.done() and task.exception() is not None):
            task = self._tenants[installation] = asyncio.create_task(self._made(installation))
        return await asyncio.shield(task)

    async def _made(self, installation: str) -> Tenant:
        folder = self._folder / "installations" / installation
        runtime = await self._create(installation, folder / "runtime")
        tenant = Tenant(installation, runtime, Fence(folder / "tokens"), folder / "work")
        await asyncio.to_thread(tenant.remove_halves)
        await asyncio.to_thread(self._tidy, tenant)
        return tenant

    async def _let_in(
        self, tenant: Tenant, request: ExecutionRequest, files: Sequence[FileEntry]
    ) -> AsyncGenerator[ExecutionEvent | Missing, None]:
        """Ask the runtime, once the attempt's files are here and those before it are gone."""
        folder = tenant.folder(request.id)
        older = await asyncio.to_thread(tenant.fence.enter, request)
        if request.handle is None and not await asyncio.to_thread(is_used_again, folder):
            missing = await asyncio.to_thread(self.shelf.missing, files)
            if missing:
                yield Missing(missing)
                return
            await asyncio.to_thread(self.shelf.lay_out, files, folder)
        if older:
            for each in older:
                await _end(tenant, each, request.grace)
            await asyncio.to_thread(tenant.fence.settle, request.id)
        self.busy += 1
        try:
            async with aclosing(_admitted(tenant, replace(request, folder=folder))) as events:
                async for event in events:
                    yield event
        finally:
            self.busy -= 1

    async def _surveyed(self, tenant: Tenant, scope: Survey) -> CleanupReport:
        """List what is there, and remove what nobody can ask for any more."""
        before = await asyncio.to_thread(self._tidy, tenant)
        report = await tenant.runtime.cleanup(scope)
        if scope.installation != tenant.installation:
            return report
        told = tenant.listed()
        can_list = Feature.SURVEY not in (await tenant.runtime.capabilities()).unsupported
        if can_list and not report.unknown:
            await tenant.drop_old(before, {*report.pending, *report.attempts, *report.retained, *told})
        return replace(report, pending=report.pending.union(told), attempts={**report.attempts, **told})

    def _tidy(self, tenant: Tenant) -> float:
        """Remove tokens and contents of long ago; say when that is, in seconds since 1970."""
        before = (self._now() - _KEEP).timestamp()
        tenant.fence.forget(before)
        self.shelf.forget(before)
        return before


async def _admitted(tenant: Tenant, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
    """Run an attempt that was let in. Until it is submitted, it may have been cleaned up or replaced."""
    known = tenant.told.get(request.id)
    if known is not None and request.handle in (None, known[0].handle):
        yield replace(known[0], adopted=True)
        yield known[1]
        return
    submitted, transient = request.handle is not None, None
    async with aclosing(tenant.runtime.execute(request)) as events:
        async for event in events:
            begins = not submitted and not isinstance(event, Finished)
            if begins and not await asyncio.to_thread(tenant.fence.is_current, request.id):
                break
            if isinstance(event, Submitted):
                submitted, transient = True, event if event.handle.transient else None
            elif isinstance(event, Finished) and transient is not None:
                tenant.told[request.id] = (transient, event)  # first: the stream may break before the caller has it
            yield event
        else:
            return
    await _end(tenant, request.id, timedelta(0))
    raise Fenced(f"attempt {request.id} was cleaned up, or replaced by a newer one, while it was starting")


async def _end(tenant: Tenant, id: AttemptId, grace: timedelta) -> None:
    """End an attempt and wait until it is gone: two of a step never run here. Raises RuntimeUnavailable."""
    tenant.told.pop(id, None)
    scope = AttemptScope(id=id, grace=grace)
    try:
        async with asyncio.timeout((grace + _MARGIN).total_seconds()):
            while (report := await tenant.runtime.cleanup(scope)).pending:  # noqa: ASYNC110  the runtime sets no event
                await asyncio.sleep(_LOOK.total_seconds())
    except TimeoutError as error:
        raise RuntimeUnavailable(f"attempt {id} was told to end for a newer one, and does not") from error
    if report.unknown:
        reasons = "; ".join(sorted(set(report.unknown.values())))
        raise RuntimeUnavailable(f"whether attempt {id} has ended for a newer one is not known: {reasons}")
    await asyncio.to_thread(tenant.remove, report.gone)


def _server_id(path: Path, entropy: Callable[[], bytes]) -> str:
    try:
        if not path.exists():
            write_whole(path, f"srv_{entropy().hex()}".encode())
        return path.read_text().strip()
    except OSError as error:
        raise StoreUnavailable(f"{path} cannot be used: {error.strerror}") from error
