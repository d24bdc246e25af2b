"""One check at work on one runtime: ask for work, read its events, look at the outside world, judge what came.

Every wait has an end, so that a runtime that says nothing fails its check instead of stopping the kit.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

from flexcore.model.errors import FlexCoreError
from flexcore.model.execution import Handle
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath, external_name
from flexcore.model.values import JSON
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupReport,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionScope,
    Failed,
    Feature,
    Finished,
    LogChunk,
    LogStream,
    Runtime,
    Submitted,
    Succeeded,
)
from flexcore.testing.runtime_harness import Behaviour, CheckFailed, Harness, expect, fresh_name

_LOOK_AGAIN_S = 0.02
Kind = TypeVar("Kind", bound=ExecutionEvent)
Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long a check waits: for work to come to something, and for an answer that should be quick. Seconds."""

    for_work: float = 30.0
    for_answers: float = 10.0


@dataclass
class Stream:
    """One reading of an attempt's events, all of them kept."""

    source: AsyncGenerator[ExecutionEvent, None]
    seconds: float
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
            async with asyncio.timeout(self.seconds):
                yield
        except TimeoutError as error:
            raise CheckFailed(f"no end within {self.seconds:g} s; there was {self.summary()}") from error


@dataclass
class Examination:
    """One check at work. `refused` notes the unsupported features whose refusal was looked at."""

    harness: Harness
    runtime: Runtime
    unsupported: Mapping[Feature, str]
    patience: Patience = Patience()
    refused: dict[Feature, str] = field(default_factory=dict)
    attempts: list[AttemptId] = field(default_factory=list)

    def lacks(self, feature: Feature) -> bool:
        """Say whether a feature is declared unsupported, so that its refusal is what is to be seen."""
        if feature in self.unsupported:
            self.refused[feature] = self.unsupported[feature]
        return feature in self.unsupported

    def request(self, behaviour: Behaviour | None = None, **changes: Any) -> ExecutionRequest:
        """Ask for a new attempt of work with the behaviour; `changes` are fields of the request."""
        given: dict[str, Any] = {
            "id": AttemptId(ExecutionId(fresh_name("exe_")), StepPath("step"), 1),
            "token": 1,
            "kind": self.harness.kind,
            "parameters": self.harness.parameters(behaviour or Behaviour()),
            "folder": self.harness.folder,
            "grace": timedelta(seconds=5),
            **changes,
        }
        self.attempts.append(given["id"])
        return ExecutionRequest(**given)

    def name_of(self, request: ExecutionRequest) -> str:
        """Give the external name that an attempt has to have."""
        return external_name(self.harness.installation, request.id)

    def scope(self, request: ExecutionRequest, handle: Handle | None = None, *, grace_s: float = 0.5) -> AttemptScope:
        """Mean one attempt, to be ended."""
        return AttemptScope(id=request.id, handle=handle, grace=timedelta(seconds=grace_s))

    def stream(self, request: ExecutionRequest, runtime: Runtime | None = None) -> Stream:
        """Begin to read."""
        return Stream((runtime or self.runtime).execute(request), self.patience.for_work)

    async def run(self, behaviour: Behaviour | None = None, **changes: Any) -> list[ExecutionEvent]:
        """Run new work to its end."""
        return await self.stream(self.request(behaviour, **changes)).rest()

    async def begin(
        self, behaviour: Behaviour, runtime: Runtime | None = None, **changes: Any
    ) -> tuple[ExecutionRequest, Stream, Handle]:
        """Start new work and return when it is at its gate."""
        request = self.request(behaviour, **changes)
        stream = self.stream(request, runtime)
        await stream.until(lambda event: isinstance(event, Submitted))
        await self.has_begun(behaviour.mark)
        return request, stream, only(Submitted, stream.events).handle

    async def eventually(self, condition: Callable[[], Awaitable[object]], message: str) -> None:
        """Look at the outside world again and again until the condition holds."""
        try:
            async with asyncio.timeout(self.patience.for_work):
                while not await condition():  # noqa: ASYNC110  an outside process sets no event of ours
                    await asyncio.sleep(_LOOK_AGAIN_S)
        except TimeoutError as error:
            raise CheckFailed(f"not within {self.patience.for_work:g} s: {message}") from error

    async def soon(self, answer: Awaitable[Answer], what: str) -> Answer:
        """Await an answer for which nobody waits long."""
        try:
            async with asyncio.timeout(self.patience.for_answers):
                return await answer
        except TimeoutError as error:
            raise CheckFailed(f"{what} did not answer within {self.patience.for_answers:g} s") from error

    async def has_begun(self, mark: str) -> None:
        """Wait until marked work has begun."""

        async def begun() -> bool:
            return await self.harness.begun(mark) > 0

        await self.eventually(begun, "the work begins")

    async def ran_once(self, mark: str) -> None:
        """See that marked work was started no second time."""
        count = await self.harness.begun(mark)
        expect(count == 1, f"the work was started {count} times")

    async def is_over(self, mark: str) -> None:
        """Wait until nothing of the marked work is there."""

        async def over() -> bool:
            return not await self.harness.alive(mark)

        await self.eventually(over, "every process of the work is gone")

    async def restarted(self) -> Runtime:
        """Make an instance that knows nothing of the one before."""
        return await self.harness.runtime(self.harness.installation)

    async def beside(self) -> Runtime:
        """Make another instance, or give this one where work belongs to the instance that started it."""
        return self.runtime if self.lacks(Feature.ADOPTION) else await self.restarted()

    async def cleaned(self, scope: AttemptScope, runtime: Runtime | None = None) -> CleanupReport:
        """Clean an attempt up until it is confirmed, as the control plane does."""
        name = external_name(self.harness.installation, scope.id)
        reports: list[CleanupReport] = []

        async def confirmed() -> bool:
            reports.append(await (runtime or self.runtime).cleanup(scope))
            expect(name not in reports[-1].unknown, f"cleanup cannot tell: {reports[-1]}")
            return name in reports[-1].gone

        await self.eventually(confirmed, "cleanup confirms that the work is gone")
        return reports[-1]

    async def cleaned_all(self, scope: ExecutionScope, runtime: Runtime | None = None) -> None:
        """Clean an execution up until nothing of it is pending."""

        async def confirmed() -> bool:
            report = await (runtime or self.runtime).cleanup(scope)
            expect(not report.unknown, f"cleanup cannot tell: {report}")
            return not report.pending

        await self.eventually(confirmed, "cleanup confirms that the execution is gone")

    async def end_all(self) -> None:
        """Leave nothing behind. What goes wrong here belongs to another check, and must not hide the finding."""
        for attempt in self.attempts:
            try:
                async with asyncio.timeout(self.patience.for_work):
                    await self.runtime.cleanup(AttemptScope(id=attempt, grace=timedelta(0)))
            except (FlexCoreError, TimeoutError):
                continue


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


def chunks(events: list[ExecutionEvent], stream: LogStream) -> list[LogChunk]:
    """Give what a stream had, piece by piece."""
    return [each for each in events if isinstance(each, LogChunk) and each.stream is stream]


def logged(events: list[ExecutionEvent], stream: LogStream) -> bytes:
    """Join what a stream had, failing on a gap or a repetition."""
    offset = None
    for chunk in chunks(events, stream):
        expect(offset in (None, chunk.offset), f"{stream.value}: expected offset {offset}, found {chunk.offset}")
        offset = chunk.offset + len(chunk.data)
    return b"".join(chunk.data for chunk in chunks(events, stream))


def refuses_logs(exam: Examination, events: list[ExecutionEvent]) -> bool:
    """Say whether logs are declared unsupported, and see that there are none then."""
    if not exam.lacks(Feature.LOGS):
        return False
    expect(not any(isinstance(each, LogChunk) for each in events), "logs are unsupported, and there are some")
    return True


def expect_log(events: list[ExecutionEvent], stream: LogStream, expected: bytes) -> None:
    """Expect exactly these bytes on a stream, without gap or repetition."""
    found = logged(events, stream)
    expect(found == expected, f"{stream.value}: expected {len(expected)} bytes, found {len(found)}: {found[:80]!r}")
