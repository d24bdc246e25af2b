"""A control plane in the test's process, on a real store and the real local runtime."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from flexcore.bootstrap import Installation, opened
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import Bundle, Document, StartRequest
from flexcore.settings import load

TASKS = """
import os, time
from flexcore import task

@task
def double(n): return 2 * n

@task
def fail(message="no"): raise ValueError(message)

@task
def flaky(path, times):
    with open(path, "a") as file: file.write("x")
    tries = os.path.getsize(path)
    if tries < times: raise RuntimeError(f"try {tries}")
    return tries

@task
def slow(seconds): time.sleep(seconds)

@task
def large(size): return "x" * size

@task
def crash(path):
    first = not os.path.exists(path)
    open(path, "a").close()
    if first: os._exit(3)
    return "second time"
"""


@dataclass
class Plane:
    """The open installation, with short ways to use it."""

    installation: Installation
    folder: Path

    async def deploy(self, text: str, **files: str) -> str:
        """Deploy a workflow with the tasks beside it; give its name."""
        contents = {"tasks.py": TASKS, **{name.replace("__", "."): body for name, body in files.items()}}
        for name, body in contents.items():
            (self.folder / name).write_text(body)
        encoded = {name: body.encode() for name, body in contents.items()}
        bundle = Bundle(text=text, file_name="workflow.yaml", files=encoded, origin=str(self.folder))
        return str((await self.installation.control_plane.deploy(bundle))["name"])

    async def start(self, text: str, input: Any = None, **request: Any) -> ExecutionId:
        """Deploy and start."""
        name = await self.deploy(text)
        started = await self.installation.control_plane.start(StartRequest(workflow=name, input=input, **request))
        return started.id

    async def execute(self, text: str, input: Any = None, **request: Any) -> Document:
        """Deploy, start, wait; give the document."""
        return await self.finish(await self.start(text, input, **request))

    async def finish(self, id: ExecutionId) -> Document:
        """Wait for the end; give the document."""
        await self.installation.engine.wait(id)
        return await self.installation.control_plane.execution(id)


@asynccontextmanager
async def plane(folder: Path, *, tags: frozenset[str] = frozenset(), **limits: Any) -> AsyncIterator[Plane]:
    """Open an installation in a folder; its local runtime has the tags."""
    settings = load(folder, environ={}).settings
    local = replace(settings.runtimes["local"], tags=tags)
    settings = replace(settings, runtimes={**settings.runtimes, "local": local})
    settings = replace(settings, limits=replace(settings.limits, **limits))
    settings = replace(settings, policy=replace(settings.policy, grace=timedelta(seconds=2)))
    async with opened(settings) as installation:
        yield Plane(installation, folder)


def statuses(document: Document) -> Mapping[str, str]:
    """Give each step's status by path."""
    return {step["path"]: step["status"] for step in document["steps"]}


def step_of(document: Document, path: str) -> Document:
    """Give one step."""
    return next(step for step in document["steps"] if step["path"] == path)
