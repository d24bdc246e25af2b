"""The facade: every entrance calls these methods. It forwards, and keeps nothing of its own."""

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from datetime import datetime

from flexcore.control.definitions import Definitions
from flexcore.control.launching import Launcher
from flexcore.control.planning import Planner
from flexcore.control.reading import ExecutionReading
from flexcore.control.runtimes import RuntimesView
from flexcore.engine.services.commands import CommandService
from flexcore.engine.services.rescue import RescueService
from flexcore.engine.services.sweep import SweepService
from flexcore.model.errors import Diagnostic
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import (
    Bundle,
    Document,
    ExecutionQuery,
    LogPage,
    Page,
    Started,
    StartRequest,
    TaskRequest,
    WatchEvent,
)
from flexcore.monitor import document as show
from flexcore.store.read import Catalog, Definition
from flexcore.store.write import Commands


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlPlane:
    """Implements `flexcore.model.requests.ControlPlaneApi` in this process."""

    catalog: Catalog
    definitions: Definitions
    launcher: Launcher
    reading: ExecutionReading
    planner: Planner
    runtimes_view: RuntimesView
    commands: Commands
    command_service: CommandService
    rescue: RescueService
    sweep: SweepService
    now: Callable[[], datetime]

    # --- definitions

    async def validate(self, bundle: Bundle) -> Sequence[Diagnostic]:
        return self.definitions.check(bundle)

    async def deploy(self, bundle: Bundle, workspace: str = "default") -> Document:
        definition, created = await self.definitions.deploy(bundle, workspace)
        return {"name": definition.name, "version": definition.version, "created": created}

    async def plan(
        self, workflow: str, version: str | None = None, runtime: str | None = None, workspace: str = "default"
    ) -> Document:
        definition = await self.catalog.get(workspace, workflow, version)
        loaded = await self.definitions.load(workspace, workflow, definition.version)
        await self.planner.refresh()
        steps = self.planner.plan(loaded.graph, runtime)
        return {"workflow": workflow, "version": definition.version, "steps": steps}

    async def workflows(self, workspace: str = "default", runtime: str | None = None) -> Sequence[Document]:
        found = [each for each in await self.catalog.list(workspace) if not each.name.startswith("_")]
        wanted = runtime not in (None, "all")
        return [_summary(each) for each in found if not wanted or runtime in each.runtimes]

    async def workflow(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        definition = await self.catalog.get(workspace, name, version)
        versions = await self.catalog.versions(workspace, name)
        loaded = await self.definitions.load(workspace, name, definition.version)
        return {
            **_summary(definition),
            "text": definition.text,
            "inputs": loaded.graph.workflow.inputs,
            "files": sorted(definition.files),
            "versions": [{"version": each.version, "created_at": show.time(each.created_at)} for each in versions],
        }

    async def delete_workflow(self, name: str, workspace: str = "default") -> None:
        await self.catalog.delete(workspace, name)

    # --- executions

    async def start(self, request: StartRequest) -> Started:
        return await self.launcher.start(request)

    async def execute_task(self, request: TaskRequest) -> Started:
        # A name that no user's workflow can have, so that it never shows among them.
        name = f"_{request.type}"
        step = {"id": "task", "type": request.type, "with": request.parameters}
        text = json.dumps({"name": name[1:], "steps": [step]})
        definition, _ = await self.definitions.deploy(Bundle(text=text), request.workspace, stored_as=name)
        start = StartRequest(
            workflow=name,
            version=definition.version,
            workspace=request.workspace,
            runtime=request.runtime,
            timeout=request.timeout,
        )
        return await self.launcher.start(start)

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
        await self.commands.send(id, "cancel", {"reason": reason}, self.now())
        view = await self.reading.view(id)
        # With its owner dead nobody would ever read the command: this process becomes the owner, and sees it through.
        taken = () if view.owner_alive else await self.rescue.rescue(id)
        await self.command_service.run_once()
        if id in taken:
            await self.launcher.engine.wait(id)

    async def retry(self, id: ExecutionId, from_step: str | None = None) -> Started:
        return await self.launcher.retry((await self.reading.view(id)).state, from_step)

    async def resume(self) -> Sequence[ExecutionId]:
        rescued = await self.rescue.run_once()
        await self.sweep.run_once()  # what the dead left outside may hold secrets
        return rescued

    async def explain(self, id: ExecutionId, path: str) -> Document:
        return await self.reading.explain(id, path)

    # --- runtimes

    async def runtimes(self) -> Sequence[Document]:
        return await self.runtimes_view.all()

    async def runtime(self, name: str) -> Document:
        return await self.runtimes_view.one(name)


def _summary(definition: Definition) -> Document:
    return {
        "name": definition.name,
        "version": definition.version,
        "description": definition.description,
        "runtimes": list(definition.runtimes),
        "created_at": show.time(definition.created_at),
    }
