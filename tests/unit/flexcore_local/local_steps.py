"""A local runtime with its files in a temporary folder, and short ways to run a step on it: for the tests here."""

import asyncio
import itertools
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flexcore_local.config import LocalConfig
from flexcore_local.runtime import LocalRuntime

from flexcore.model.execution import Handle
from flexcore.model.failure import Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupReport,
    ExecutionEvent,
    ExecutionRequest,
    Failed,
    Finished,
    LogChunk,
    LogStream,
    Submitted,
    Succeeded,
)
from flexcore.runtime.plugin import ArtifactStore, RuntimeContext
from flexcore.testing.factories import MemoryArtifacts


@dataclass
class Seen:
    """What an execution reported."""

    events: list[ExecutionEvent] = field(default_factory=list)

    @property
    def output(self) -> Any:
        assert isinstance(self.outcome, Succeeded), self.outcome
        return self.outcome.output

    @property
    def failure(self) -> Failure:
        assert isinstance(self.outcome, Failed), self.outcome
        return self.outcome.failure

    @property
    def outcome(self) -> Succeeded | Failed:
        last = self.events[-1]
        assert isinstance(last, Finished)
        return last.result.outcome

    @property
    def submitted(self) -> Submitted:
        return next(event for event in self.events if isinstance(event, Submitted))

    def log(self, stream: LogStream = LogStream.STDOUT) -> bytes:
        return b"".join(each.data for each in self.events if isinstance(each, LogChunk) and each.stream is stream)


class Local:
    """The runtime under test."""

    def __init__(self, folder: Path, **config: Any) -> None:
        self.folder = folder / "workflow"
        self.folder.mkdir(exist_ok=True)
        self.state = folder / "state"
        self.installation = f"in {folder}"  # external names come from it: two tests at once must not share them
        self.config = config
        self.artifacts: ArtifactStore = MemoryArtifacts()
        self.numbers = itertools.count(1)
        self.runtime = self.another()

    def another(self) -> LocalRuntime:
        """The runtime as a control plane started later sees it."""
        context = RuntimeContext(
            installation=self.installation,
            state_folder=self.state,
            artifacts=self.artifacts,
            now=lambda: datetime.now(UTC),
        )
        return LocalRuntime("local", LocalConfig(**self.config), context)

    def request(self, kind: str, parameters: dict[str, Any], **options: Any) -> ExecutionRequest:
        attempt = AttemptId(ExecutionId("exe_1"), StepPath(f"step{next(self.numbers)}"), 1)
        options = {"id": attempt, "token": 7, "folder": self.folder, "grace": timedelta(seconds=5), **options}
        return ExecutionRequest(kind=StepKind(kind), parameters=parameters, **options)

    async def run(self, kind: str, parameters: dict[str, Any], **options: Any) -> Seen:
        return await self.execute(self.request(kind, parameters, **options))

    async def execute(self, request: ExecutionRequest, runtime: LocalRuntime | None = None) -> Seen:
        return Seen([event async for event in (runtime or self.runtime).execute(request)])

    async def submit(self, request: ExecutionRequest) -> Handle:
        """Start, then detach."""
        events = self.runtime.execute(request)
        async for event in events:
            if isinstance(event, Submitted):
                await events.aclose()
                return event.handle
        raise AssertionError("never submitted")

    async def cancel(self, request: ExecutionRequest, grace_s: float = 5) -> CleanupReport:
        return await self.runtime.cleanup(AttemptScope(id=request.id, grace=timedelta(seconds=grace_s)))


async def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        await asyncio.sleep(0.01)
