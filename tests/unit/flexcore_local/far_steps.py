"""Runs the program of a step far away as a plain process, as any runtime would: for the tests here."""

import asyncio
import itertools
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from flexcore.model.failure import Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import ExecutionRequest, ExecutionResult, Failed, Succeeded
from flexcore.runtime.plugin import ArtifactStore
from flexcore.runtime.portable.data import NO_DATA, DataLinks, step_data
from flexcore.runtime.portable.delivery import Delivery, mark_of, to_log
from flexcore.runtime.portable.ending import Ending, EndingInLog, decode
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters
from flexcore.runtime.portable.program import Limits, Program, program
from flexcore.testing.factories import MemoryArtifacts

ENDED_FROM_OUTSIDE = Failed(Failure(message="ended from outside"))


@dataclass
class Ended:
    """What came back from the far side."""

    code: int
    log: bytes
    raw: bytes
    errors: bytes
    ending: Ending | None
    result: ExecutionResult

    @property
    def output(self) -> Any:
        assert isinstance(self.result.outcome, Succeeded), self.result.outcome
        return self.result.outcome.output

    @property
    def failure(self) -> Failure:
        assert isinstance(self.result.outcome, Failed), self.result.outcome
        return self.result.outcome.failure


class Far:
    """A place far away: a folder that the program is brought to, and an environment."""

    def __init__(self, folder: Path, artifacts: ArtifactStore | None = None) -> None:
        self.workflow = folder / "far-workflow"
        self.workflow.mkdir()
        self.place = folder / "place"
        self.artifacts = artifacts or MemoryArtifacts()
        self.python = sys.executable
        self.env: Mapping[str, str] = {"PATH": "/usr/local/bin:/usr/bin:/bin", "TMPDIR": str(folder)}
        self.limits = Limits()
        self.installer: Mapping[str, str] = {}
        self.delivery: Delivery | None = None
        self.grace = timedelta(seconds=5)
        self.data: DataLinks | Failure = NO_DATA
        self.numbers = itertools.count(1)

    async def start(self, kind: str, parameters: dict[str, Any], **options: Any) -> "Running":
        """Bring the program there and start it. The order goes by standard input."""
        attempt = AttemptId(ExecutionId("exe_1"), StepPath(f"far{next(self.numbers)}"), 1)
        request = ExecutionRequest(
            id=attempt,
            token=7,
            kind=StepKind(kind),
            parameters=parameters,
            folder=self.workflow,
            grace=self.grace,
            **options,
        )
        model = (PythonParameters if kind == "python" else BashParameters).model_validate(parameters)
        self.data = await step_data(model, self.artifacts, attempt)
        assert not isinstance(self.data, Failure), self.data
        mark = mark_of("installation", attempt, 7)
        made = program(
            request,
            model,
            data=self.data,
            delivery=self.delivery or to_log(mark),
            installer=self.installer,
            limits=self.limits,
            python=self.python,
        )
        assert isinstance(made, Program), made
        place = self.place / attempt.path
        for name, content in made.files.items():
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            (place / name).write_bytes(content)
        process = await asyncio.create_subprocess_exec(
            *made.command,
            cwd=place,
            env=dict(self.env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return Running(self, request, process, made, mark)

    async def run(self, kind: str, parameters: dict[str, Any], **options: Any) -> Ended:
        """Run a step to its end."""
        return await (await self.start(kind, parameters, **options)).ended()


@dataclass
class Running:
    """A program under way."""

    far: Far
    request: ExecutionRequest
    process: asyncio.subprocess.Process
    program: Program
    mark: str

    async def order(self) -> None:
        """Hand the order over, and let it begin."""
        assert self.process.stdin is not None
        self.process.stdin.write(self.program.order)
        await self.process.stdin.drain()
        self.process.stdin.close()

    async def ended(self) -> Ended:
        """Wait for the end and read all of it."""
        assert self.process.stdin is not None
        given = None if self.process.stdin.is_closing() else self.program.order
        raw, errors = await self.process.communicate(given)
        reader = EndingInLog(self.mark)
        log = reader.feed(raw) + reader.rest()
        ending = reader.ending
        if ending is None and self.far.delivery is not None and Path(self.far.delivery.path).exists():
            ending = decode(Path(self.far.delivery.path).read_bytes())
        assert self.process.returncode is not None
        told = ending or Ending(outcome=Failed(Failure(message="no ending", name="NoEnding")))
        assert not isinstance(self.far.data, Failure)
        result = told.result(ENDED_FROM_OUTSIDE, self.far.data, self.request.id, self.request.secrets)
        return Ended(self.process.returncode, log, raw, errors, ending, result)
