"""What the engine needs of its surroundings, as small as it needs it. `bootstrap` connects the real things."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Protocol

from flexcore.analyzer.view import Facts
from flexcore.engine.render import Answer, Query
from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionState
from flexcore.model.failure import Failure
from flexcore.model.graph import Graph
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.values import JSON
from flexcore.model.workflow import StepId, StepKind
from flexcore.runtime.interface import ExecutionEvent, LogStream, Runtime


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """A version, ready to run: its order worked out, and the folder in which its files lie."""

    graph: Graph
    folder: Path
    facts: Mapping[StepId, Facts] = field(default_factory=dict)  # what the code of steps tells placement
    files: frozenset[str] | None = None  # their names; None: all that lie in the folder


class Definitions(Protocol):
    """Versions by name."""

    async def load(self, workspace: str, name: str, version: str) -> Loaded:
        """Give a version. Raises NotFound."""
        ...

    async def newest(self, workspace: str, name: str) -> str:
        """Give the version that is newest now. Raises NotFound."""
        ...


class Runtimes(Protocol):
    """The runtimes by name."""

    def get(self, name: str) -> Runtime:
        """Give an instance. Raises NotFound when it is no longer configured."""
        ...

    def validate(self, kind: StepKind, parameters: Mapping[str, JSON], runtime: str) -> Mapping[str, JSON] | Failure:
        """Check resolved parameters by the adapter's model."""
        ...


class Evaluator(Protocol):
    """Answers expressions that need JavaScript."""

    async def evaluate(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer each query, in order. A bad expression is an answer with a failure."""
        ...


class Logs(Protocol):
    """Where output goes."""

    async def append(
        self,
        execution: ExecutionId,
        path: StepPath,
        attempt: int,
        token: int,
        stream: LogStream,
        offset: int,
        data: bytes,
    ) -> None:
        """Keep some output. Repeats change nothing; a late token raises Fenced."""
        ...

    async def offsets(self, execution: ExecutionId, path: StepPath, attempt: int) -> Mapping[LogStream, int]:
        """Say up to where each stream is kept, so that adopted work goes on from there."""
        ...


class Secrets(Protocol):
    """Where secrets come from."""

    def get(self, name: str) -> str:
        """Give a secret's value. Raises NotFound naming it and where it was looked for."""
        ...


class Observer(Protocol):
    """Whoever wants to know. Must return at once and never raise."""

    def committed(self, state: ExecutionState, entries: Sequence[HistoryEntry]) -> None:
        """Some entries are durable; `state` is what they led to."""
        ...

    def reported(self, execution: ExecutionId, path: StepPath, attempt: int, event: ExecutionEvent) -> None:
        """A running attempt said something that is not part of the history."""
        ...


Clock = Callable[[], datetime]
