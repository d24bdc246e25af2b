"""What the conformance kit for runtimes needs: a way to say what work shall do, and to look at it from outside.

Whoever brings a runtime writes one `Harness` for it. The kit itself knows no kind of step and no parameter.
"""

import asyncio
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Protocol, TypeVar

from flexcore.model.execution import Handle
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    ExecutionEvent,
    ExecutionRequest,
    Failed,
    Feature,
    Finished,
    LogChunk,
    LogStream,
    Runtime,
    Submitted,
    Succeeded,
)

PATIENCE_S = 30.0
_LOOK_AGAIN_S = 0.02
Kind = TypeVar("Kind", bound=ExecutionEvent)


class CheckFailed(AssertionError):
    """A runtime does not do what the check asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a piece of work shall do, in this order.

    Write to its streams; arrange for its end (`ignores_term`, `child`); note that it has begun under `mark`; wait for
    `gate`; end by `signal_name` (such as `SIGUSR1`), with `exit_code`, or with `output`.
    """

    stdout: bytes = b""
    stderr: bytes = b""
    ignores_term: bool = False
    child: bool = False  # has a child process in a session of its own that lives until killed
    mark: str = ""
    gate: str = ""
    signal_name: str = ""
    exit_code: int = 0
    output: JSON = None


class Harness(Protocol):
    """A runtime under examination, in an outside world of its own."""

    kind: StepKind
    installation: str
    folder: Path  # where the files of the workflow would be

    async def runtime(self, installation: str) -> Runtime:
        """Make a new instance over the same outside world, as after a restart of the control plane."""
        ...

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        """Say in the `with` of the kind what the work shall do."""
        ...

    def invalid_parameters(self) -> Mapping[str, JSON]:
        """Give parameters that cannot be right."""
        ...

    async def open(self, gate: str) -> None:
        """Let work that waits at the gate go on."""
        ...

    async def begun(self, mark: str) -> int:
        """Count how often marked work has begun."""
        ...

    async def told_to_end(self, mark: str) -> bool:
        """Say whether marked work noticed that it was asked to end."""
        ...

    async def alive(self, mark: str) -> bool:
        """Say whether any process of the marked work, a child too, is still there."""
        ...

    async def lose(self, mark: str, handle: Handle) -> None:
        """Let marked work vanish without a word, with everything that watches over it."""
        ...


def expect(condition: object, message: str) -> None:
    """Fail the check with the message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


async def eventually(condition: Callable[[], Awaitable[object]], message: str) -> None:
    """Look at the outside world again and again until the condition holds."""
    try:
        async with asyncio.timeout(PATIENCE_S):
            while not await condition():  # noqa: ASYNC110  an outside process sets no event of ours
                await asyncio.sleep(_LOOK_AGAIN_S)
    except TimeoutError as error:
        raise CheckFailed(f"not within {PATIENCE_S:g} s: {message}") from error


def fresh_name(prefix: str) -> str:
    """Make a name that no other check uses."""
    return f"{prefix}{uuid.uuid4().hex[:12]}"


@dataclass
class Stream:
    """One reading of an attempt's events, all of them kept."""

    source: AsyncGenerator[ExecutionEvent, None]
    events: list[ExecutionEvent] = field(default_factory=list)

    async def until(self, wanted: Callable[[ExecutionEvent], bool]) -> None:
        """Read up to an event; fail when the stream ends before it."""
        async with self._patience():
            async for event in self.source:
                self.events.append(event)
                if wanted(event):
                    return
        raise CheckFailed(f"the stream ended without what was awaited; it had {self.summary()}")

    async def rest(self) -> list[ExecutionEvent]:
        """Read to the end and give all events, earlier ones too."""
        async with self._patience():
            async for event in self.source:
                self.events.append(event)
        return self.events

    async def detach(self) -> None:
        """Stop reading."""
        async with self._patience():
            await self.source.aclose()

    def summary(self) -> str:
        """Name the events so far."""
        return ", ".join(type(each).__name__ for each in self.events[-20:]) or "no event"

    @asynccontextmanager
    async def _patience(self) -> AsyncGenerator[None, None]:
        try:
            async with asyncio.timeout(PATIENCE_S):
                yield
        except TimeoutError as error:
            raise CheckFailed(f"no end within {PATIENCE_S:g} s; there was {self.summary()}") from error


@dataclass
class Examination:
    """One check at work on one runtime."""

    harness: Harness
    runtime: Runtime
    unsupported: Mapping[Feature, str]
    attempts: list[AttemptId] = field(default_factory=list)

    def request(self, behaviour: Behaviour | None = None, **changes: Any) -> ExecutionRequest:
        """Ask for a new attempt of work with the behaviour; `changes` are fields of the request."""
        attempt = AttemptId(ExecutionId(fresh_name("exe_")), StepPath("step"), 1)
        self.attempts.append(attempt)
        given: dict[str, Any] = {
            "id": attempt,
            "token": 1,
            "kind": self.harness.kind,
            "parameters": self.harness.parameters(behaviour or Behaviour()),
            "folder": self.harness.folder,
            "grace": timedelta(seconds=5),
            **changes,
        }
        return ExecutionRequest(**given)

    def stream(self, request: ExecutionRequest, runtime: Runtime | None = None) -> Stream:
        """Begin to read."""
        return Stream((runtime or self.runtime).execute(request))

    async def run(self, behaviour: Behaviour | None = None, **changes: Any) -> list[ExecutionEvent]:
        """Run new work to its end."""
        return await self.stream(self.request(behaviour, **changes)).rest()

    async def begin(self, behaviour: Behaviour, **changes: Any) -> tuple[ExecutionRequest, Stream, Handle]:
        """Start new work and return when it is at its gate."""
        request = self.request(behaviour, **changes)
        stream = self.stream(request)
        await stream.until(lambda event: isinstance(event, Submitted))
        await self.has_begun(behaviour.mark)
        return request, stream, only(Submitted, stream.events).handle

    async def has_begun(self, mark: str) -> None:
        """Wait until marked work has begun."""

        async def begun() -> bool:
            return await self.harness.begun(mark) > 0

        await eventually(begun, "the work begins")

    async def is_over(self, mark: str) -> None:
        """Wait until nothing of the marked work is there."""

        async def over() -> bool:
            return not await self.harness.alive(mark)

        await eventually(over, "every process of the work is gone")

    async def restarted(self) -> Runtime:
        """Make an instance that knows nothing of the one before."""
        return await self.harness.runtime(self.harness.installation)

    async def end_all(self) -> None:
        """Leave nothing behind."""
        for attempt in self.attempts:
            await self.runtime.cleanup(AttemptScope(id=attempt, grace=timedelta(0)))


def only(kind: type[Kind], events: list[ExecutionEvent]) -> Kind:
    """Give the one event of a kind."""
    found = [each for each in events if isinstance(each, kind)]
    expect(len(found) == 1, f"expected one {kind.__name__}, there were {len(found)}")
    return found[0]


def output(events: list[ExecutionEvent]) -> JSON:
    """Give the result of work that must have succeeded."""
    outcome = only(Finished, events).result.outcome
    if isinstance(outcome, Succeeded):
        return outcome.output
    raise CheckFailed(f"expected success, there was: {outcome.failure.error_class.value}: {outcome.failure.message}")


def failure(events: list[ExecutionEvent], expected: ErrorClass) -> Failure:
    """Give the failure of work that must have failed with the class."""
    outcome = only(Finished, events).result.outcome
    if not isinstance(outcome, Failed):
        raise CheckFailed(f"expected a failure of class {expected.value}, there was success")
    found = outcome.failure
    expect(found.error_class is expected, f"expected class {expected.value}, found {found.error_class.value}: {found}")
    return found


def logged(events: list[ExecutionEvent], stream: LogStream) -> bytes:
    """Join what a stream had, failing on a gap or a repetition."""
    data, offset = b"", None
    for chunk in [each for each in events if isinstance(each, LogChunk) and each.stream is stream]:
        expect(offset in (None, chunk.offset), f"{stream.value}: expected offset {offset}, found {chunk.offset}")
        offset = chunk.offset + len(chunk.data)
        data += chunk.data
    return data


def refuses_logs(exam: Examination, events: list[ExecutionEvent]) -> bool:
    """Say whether logs are declared unsupported, and see that there are none then."""
    if Feature.LOGS not in exam.unsupported:
        return False
    expect(not any(isinstance(each, LogChunk) for each in events), "logs are unsupported, and there are some")
    return True


def expect_log(events: list[ExecutionEvent], stream: LogStream, expected: bytes) -> None:
    """Expect exactly these bytes on a stream, without gap or repetition."""
    found = logged(events, stream)
    expect(found == expected, f"{stream.value}: expected {len(expected)} bytes, found {len(found)}: {found[:80]!r}")
