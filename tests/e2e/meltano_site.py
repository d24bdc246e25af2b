"""A Meltano project and the adapter, without a control plane: what the adapter's tests on real projects share."""

import itertools
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from flexcore_meltano.plugin import PLUGIN

from flexcore.model.failure import Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.values import Ref
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import ExecutionEvent, ExecutionRequest, ExecutionResult, Failed, Finished, Succeeded
from flexcore.runtime.plugin import RuntimeContext

GRACE = timedelta(seconds=5)
numbers = itertools.count(1)


class NoArtifacts:
    """The adapter moves no artifacts."""

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        raise AssertionError

    async def get(self, ref: Ref) -> bytes:
        raise AssertionError


class MeltanoSite:
    """A folder with a workflow's Meltano project in `project/`, and a runtime for it."""

    def __init__(self, base: Path) -> None:
        self.folder = base / "work"
        self.project = self.folder / "project"
        self.state = base / ".flexcore" / "runtimes" / "meltano"
        self.installation = f"in {base}"  # external names come from it: two tests at once must not share them
        context = RuntimeContext(
            installation=self.installation,
            state_folder=self.state,
            artifacts=NoArtifacts(),
            now=lambda: datetime.now(UTC),
        )
        self.runtime = PLUGIN.create("meltano", PLUGIN.config(), context)

    def request(self, kind: StepKind, env: Mapping[str, str] | None = None, **parameters: Any) -> ExecutionRequest:
        return ExecutionRequest(
            id=AttemptId(ExecutionId(f"exe_{next(numbers)}"), StepPath("step"), 1),
            token=1,
            kind=kind,
            parameters={"project": "./project", **parameters},
            folder=self.folder,
            workflow="any",
            grace=GRACE,
            env=env or {},
        )

    async def events(self, request: ExecutionRequest) -> list[ExecutionEvent]:
        return [event async for event in self.runtime.execute(request)]

    async def result(self, request: ExecutionRequest) -> ExecutionResult:
        last = (await self.events(request))[-1]
        assert isinstance(last, Finished)
        return last.result

    async def output(self, request: ExecutionRequest) -> Any:
        outcome = (await self.result(request)).outcome
        assert isinstance(outcome, Succeeded), outcome
        return outcome.output

    async def failure(self, request: ExecutionRequest) -> Failure:
        return self.failure_in(await self.events(request))

    def failure_in(self, events: Sequence[ExecutionEvent]) -> Failure:
        last = events[-1]
        assert isinstance(last, Finished)
        assert isinstance(last.result.outcome, Failed), last
        return last.result.outcome.failure
