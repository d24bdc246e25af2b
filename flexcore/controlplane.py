"""The facade: every entrance calls these methods. It forwards, and keeps nothing of its own."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from flexcore.control.auditing import Auditing
from flexcore.control.collecting import collection_document
from flexcore.control.definitions import Definitions
from flexcore.control.explaining import Explaining
from flexcore.control.launching import Launcher
from flexcore.control.library import Library, summary
from flexcore.control.planning import Planner
from flexcore.control.reading import ExecutionReading
from flexcore.control.runtimes import RuntimesView
from flexcore.control.sweeping import sweep_document
from flexcore.engine.services.commands import CommandService
from flexcore.engine.services.rescue import RescueService
from flexcore.engine.services.retention import RetentionService
from flexcore.engine.services.sweep import SweepService
from flexcore.model.errors import Diagnostic
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import (
    AuditQuery,
    Bundle,
    CollectRequest,
    Document,
    ExecutionQuery,
    LogPage,
    Page,
    RetryRequest,
    Started,
    StartRequest,
    TaskRequest,
    WatchEvent,
)
from flexcore.store.read import Catalog
from flexcore.store.write import Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Implements `flexcore.model.requests.ControlPlaneApi` in this process."""

    catalog: Catalog
    definitions: Definitions
    launcher: Launcher
    reading: ExecutionReading
    explaining: Explaining
    planner: Planner
    runtimes_view: RuntimesView
    commands: Commands
    command_service: CommandService
    rescue: RescueService
    sweep: SweepService
    retention: RetentionService
    library: Library
    auditing: Auditing
    now: Callable[[], datetime]

    # --- definitions

    async def validate(self, bundle: Bundle) -> Sequence[Diagnostic]:
        return self.definitions.check(bundle)

    async def deploy(self, bundle: Bundle, workspace: str = "default") -> Document:
        return await self.library.deploy(bundle, workspace)

    async def diff(self, bundle: Bundle, workspace: str = "default") -> Document:
        return await self.library.diff(bundle, workspace)

    async def plan(
        self, workflow: str, version: str | None = None, runtime: str | None = None, workspace: str = "default"
    ) -> Document:
        definition = await self.catalog.get(workspace, workflow, version)
        loaded = await self.definitions.load(workspace, workflow, definition.version)
        await self.planner.refresh(in_full=True)
        return {"workflow": workflow, "version": definition.version, **self.planner.plan(loaded, runtime)}

    async def workflows(self, workspace: str = "default", runtime: str | None = None) -> Sequence[Document]:
        found = [each for each in await self.catalog.list(workspace) if not each.name.startswith("_")]
        wanted = runtime not in (None, "all")
        return [summary(each) for each in found if not wanted or runtime in each.runtimes]

    async def workflow(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        return await self.library.document(name, version, workspace)

    async def pin(self, name: str, version: str, workspace: str = "default") -> Document:
        return await self.library.pin(name, version, workspace)

    async def unpin(self, name: str, workspace: str = "default") -> Document:
        return await self.library.pin(name, None, workspace)

    async def rollback(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        return await self.library.rollback(name, version, workspace)

    async def delete_workflow(self, name: str, workspace: str = "default") -> None:
        await self.library.delete(name, workspace)

    # --- executions

    async def start(self, request: StartRequest) -> Started:
        name, workspace = request.workflow, request.workspace
        async with self.auditing.call("start", name, workspace, soon=True, workflow=name) as call:
            started = await self.launcher.start(request)
            call.tell(started.id, **_existing(started))
            return started

    async def execute_task(self, request: TaskRequest) -> Started:
        # A name that no user's workflow can have, so that it never shows among them.
        name = f"_{request.type}"
        step = {"id": "task", "type": request.type, "with": request.parameters}
        text = json.dumps({"name": name[1:], "steps": [step]})
        async with self.auditing.call("execute", request.type, request.workspace, soon=True, type=request.type) as call:
            definition, _ = await self.definitions.deploy(Bundle(text=text), request.workspace, stored_as=name)
            start = StartRequest(
                workflow=name,
                version=definition.version,
                workspace=request.workspace,
                runtime=request.runtime,
                timeout=request.timeout,
            )
            started = await self.launcher.start(start)
            call.tell(started.id)
            return started

    async def execution(self, id: ExecutionId) -> Document:
        return await self.reading.document(id)

    async def executions(self, query: ExecutionQuery) -> Page[Document]:
        return await self.reading.summaries(query)

    async def history(self, id: ExecutionId, after: int = 0, limit: int = 1000) -> Page[Document]:
        return await self.reading.history(id, after, limit)

    def watch(self, id: ExecutionId, after: int = 0) -> AsyncGenerator[WatchEvent, None]:
        return self.reading.watch(id, after)

    async def logs(self, id: ExecutionId, path: str | None = None, cursor: str | None = None) -> LogPage:
        return await self.reading.logs(id, path, cursor)

    async def cancel(self, id: ExecutionId, reason: str = "") -> None:
        async with self.auditing.call("cancel", id):
            await self.commands.send(id, "cancel", {"reason": reason}, self.now())
        view = await self.reading.view(id)
        # With its owner dead nobody would ever read the command: this process becomes the owner, and sees it through.
        taken = () if view.owner_alive else await self.rescue.rescue(id)
        await self.command_service.run_once()
        if id in taken:
            await self.launcher.engine.wait(id)

    async def retry(self, request: RetryRequest) -> Started:
        asked = {
            "from_step": request.from_step,
            "everything": request.everything or None,
            "newest": request.newest or None,
            "results_given_for": sorted(request.results) or None,
            "reason": request.reason or None,
        }
        # A result given by hand is known to the trail before anything goes on with it.
        async with self.auditing.call("retry", request.id, soon=not request.results, **asked) as call:
            state = (await self.reading.view(request.id)).state
            started = await self.launcher.retry(state, request, self.auditing.actor)
            call.tell(started=started.id, workflow=state.header.workflow, **_existing(started))
            return started

    async def resume(self) -> Sequence[ExecutionId]:
        async with self.auditing.call("resume", "store") as call:
            rescued = await self.rescue.run_once()
            call.tell(count=len(rescued))
        await self.sweep.run_once()  # what the dead left outside may hold secrets
        return rescued

    async def explain(self, id: ExecutionId, path: str, flips: bool = False) -> Document:
        return await self.explaining.explain(id, path, flips=flips)

    # --- runtimes

    async def runtimes(self) -> Sequence[Document]:
        return await self.runtimes_view.all()

    async def runtime(self, name: str) -> Document:
        return await self.runtimes_view.one(name)

    async def cleanup_runtime(self, name: str, dry_run: bool = False) -> Document:
        if dry_run:
            return sweep_document(name, await self.sweep.sweep(name, dry_run=True), dry_run=True)
        async with self.auditing.call("cleanup", name) as call:
            swept = await self.sweep.sweep(name)
            call.tell(gone=len(swept.gone), left=len(swept.orphans) - len(swept.gone))
        return sweep_document(name, swept, dry_run=False)

    # --- operation

    async def collect(self, request: CollectRequest) -> Document:
        if request.dry_run:
            return collection_document(await self.retention.collect(request), request)
        async with self.auditing.call("collect", "store", kinds=sorted(request.kinds) or None) as call:
            outcomes = await self.retention.collect(request)
            call.tell(**{each.kind.value: each.collected.count for each in outcomes})
        return collection_document(outcomes, request)

    async def audit(self, query: AuditQuery) -> Page[Document]:
        return await self.auditing.entries(query)


def _existing(started: Started) -> dict[str, bool]:
    return {"existing": True} if started.existing else {}
