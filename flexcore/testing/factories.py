"""Model objects in one line, with everything a test does not care about filled in."""

import shutil
import tempfile
import weakref
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.template import Literal
from flexcore.model.values import JSON, Ref, digest, reference
from flexcore.model.workflow import Step, StepId, StepKind, Task, Workflow
from flexcore.runtime.interface import Capabilities, ExecutionRequest, Health, HealthStatus
from flexcore.runtime.plugin import Link, Offer, RuntimeContext
from flexcore.testing.clock import EPOCH, Clock, ManualClock


def attempt_id(path: str = "step", *, execution: str = "exe_test", number: int = 1) -> AttemptId:
    """Name an attempt."""
    return AttemptId(ExecutionId(execution), StepPath(path), number)


def execution_request(
    parameters: Mapping[str, JSON] | None = None, *, kind: StepKind = StepKind.PYTHON, **changes: Any
) -> ExecutionRequest:
    """Ask for an attempt; `changes` are fields of the request."""
    given: dict[str, Any] = {"id": attempt_id(), "token": 1, **changes}
    return ExecutionRequest(kind=kind, parameters=parameters or {}, **given)


def task_step(step_id: str = "step", kind: StepKind = StepKind.PYTHON, parameters: JSON = None, **changes: Any) -> Step:
    """Make a task step whose `with` is constant; `changes` are fields of the step."""
    action = Task(kind=kind, parameters=Literal({} if parameters is None else parameters))
    return Step(id=StepId(step_id), action=action, **changes)


def workflow(*steps: Step, name: str = "example", **changes: Any) -> Workflow:
    """Make a workflow, of one step if none are given."""
    return Workflow(name=name, steps=steps or (task_step(),), **changes)


def health_status(state: Health = Health.UP, reason: str = "answers") -> HealthStatus:
    """Make a status of a moment that does not matter."""
    return HealthStatus(state=state, reason=reason, checked_at=EPOCH)


def capabilities(*kinds: StepKind, **changes: Any) -> Capabilities:
    """Make capabilities for the kinds given, or for all."""
    return Capabilities(step_kinds=frozenset(kinds or StepKind), **changes)


class MemoryArtifacts:
    """An artifact store for a test's lifetime. What is linked or offered is a file in a temporary folder."""

    def __init__(self) -> None:
        self._kept: dict[str, bytes] = {}
        self._folder: Path | None = None

    @property
    def store(self) -> str:
        """Say that links are files."""
        return "file"

    async def link(self, ref: Ref, valid: timedelta) -> Link:
        """Write the bytes to a file, unless they were made there."""
        path = self._path(ref.uri)
        if not path.exists():
            path.write_bytes(self._kept[ref.uri])
        return Link(path.as_uri())

    async def offer(self, name: str, valid: timedelta) -> Offer:
        """Offer a file."""
        uri = f"artifact:made-{digest(name.encode()).removeprefix('sha256-')}"
        return Offer(uri, Link(self._path(uri).as_uri()))

    def _path(self, uri: str) -> Path:
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="flexcore-artifacts-"))
            weakref.finalize(self, shutil.rmtree, self._folder, ignore_errors=True)
        return self._folder / uri.removeprefix("artifact:")

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        """Keep the bytes."""
        ref = reference(data)
        self._kept[ref.uri] = data
        return Ref(uri=ref.uri, bytes=ref.bytes, format=format, checksum=digest(data))

    async def get(self, ref: Ref) -> bytes:
        """Give them back, also what was made at a place that was offered."""
        if ref.uri not in self._kept and self._path(ref.uri).exists():
            return self._path(ref.uri).read_bytes()
        return self._kept[ref.uri]


def runtime_context(
    folder: Path = Path(), *, installation: str = "test-installation", clock: Clock | None = None
) -> RuntimeContext:
    """Make the surroundings of a runtime instance."""
    now = (clock or ManualClock()).now
    return RuntimeContext(installation=installation, state_folder=folder, artifacts=MemoryArtifacts(), now=now)
