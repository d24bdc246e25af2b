"""Wraps every runtime: time limits, health with a memory, a circuit breaker, the protocol of events, observation.

Adapters contain none of it. The wrapper never changes what work came to; it only sees to it that a caller is never
kept waiting by a health check, and never gets a stream of events that breaks the rules. `execute` is on the hot path
of every attempt and does without timers: how long work may take is decided elsewhere.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeVar, runtime_checkable

import structlog

from flexcore.model.errors import FlexCoreError, InternalError, RuntimeUnavailable
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.workflow import StepKind
from flexcore.runtime.breaker import Breaker
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    ExecutionScope,
    Failed,
    Finished,
    Health,
    HealthStatus,
    PhaseEntered,
    Runtime,
    Submitted,
)

_log = structlog.get_logger(__name__)
Answer = TypeVar("Answer")


@runtime_checkable
class Closing(Protocol):
    """The optional fifth verb: an adapter that holds clients or processes of its own lets go of them here."""

    async def close(self) -> None:
        """Release what belongs to this instance alone. Work on the runtime goes on."""
        ...


class Observer(Protocol):
    """Who wants to know what runtimes do. Called on the hot path: must be quick and must not raise."""

    def attempt_started(self, runtime: str, kind: StepKind) -> None:
        """Note that a stream of events was opened, for new work or adopted."""
        ...

    def attempt_finished(self, runtime: str, kind: StepKind, outcome: str, seconds: float) -> None:
        """Note its end: `succeeded`, an error class, `unavailable` or `detached`."""
        ...

    def health_changed(self, runtime: str, status: HealthStatus) -> None:
        """Note that the state of health is another than before."""
        ...


class Silent:
    """An observer that does not care."""

    def attempt_started(self, runtime: str, kind: StepKind) -> None:
        """Ignore it."""

    def attempt_finished(self, runtime: str, kind: StepKind, outcome: str, seconds: float) -> None:
        """Ignore it."""

    def health_changed(self, runtime: str, status: HealthStatus) -> None:
        """Ignore it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Supervision:
    """The figures of supervision, the same for all instances unless the settings say otherwise."""

    health_interval: timedelta = timedelta(seconds=10)  # how long an answer counts
    recheck: timedelta = timedelta(seconds=1)  # the same while it is not up
    health_timeout: timedelta = timedelta(seconds=5)
    capabilities_interval: timedelta = timedelta(minutes=1)
    capabilities_timeout: timedelta = timedelta(seconds=5)
    cleanup_margin: timedelta = timedelta(seconds=60)  # beyond the grace that the scope gives
    breaker_after: int = 5  # times in a row that the runtime could not be reached
    breaker_open: timedelta = timedelta(seconds=30)


class SupervisedRuntime:
    """A runtime as the rest of the system sees it. `name` is the instance's; it has `tags` beside the adapter's."""

    def __init__(
        self,
        name: str,
        runtime: Runtime,
        *,
        now: Callable[[], datetime],
        observer: Observer | None = None,
        supervision: Supervision | None = None,
        clock: Callable[[], float] = time.monotonic,
        tags: frozenset[str] = frozenset(),
    ) -> None:
        self.name = name
        self._tags = tags
        self._runtime = runtime
        self._now = now
        self._observer: Observer = observer or Silent()
        self._figures = supervision or Supervision()
        self._clock = clock
        self._breaker = Breaker(self._figures.breaker_after, self._figures.breaker_open, clock)
        self._health: HealthStatus | None = None
        self._health_until = 0.0
        self._health_check = asyncio.Lock()
        self._capabilities: Capabilities | None = None
        self._capabilities_until = 0.0

    @property
    def is_circuit_open(self) -> bool:
        """Say whether the runtime is left alone because it could not be reached several times in a row."""
        return self._breaker.is_open

    @property
    def known_health(self) -> HealthStatus | None:
        """The last answer, however old; None when never asked."""
        return self._health

    @property
    def known_capabilities(self) -> Capabilities | None:
        """The last answer, however old; None when never asked."""
        return self._capabilities

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Run or adopt the attempt; the events keep the protocol, whatever the adapter does.

        A bug of the adapter ends the stream with a failure of class `internal`, its work ended as well as may be.
        """
        if not self._breaker.admit():
            raise RuntimeUnavailable(
                f"runtime {self.name!r} could not be reached {self._figures.breaker_after} times in a row",
                hint="it is left alone for a while, then tried again",
            )
        started, outcome = self._clock(), "detached"
        self._observer.attempt_started(self.name, request.kind)
        events, submitted = self._runtime.execute(request), None
        try:
            try:
                async for event in events:
                    if type(event) is Finished:
                        break
                    submitted = self._kept(event, submitted)
                    yield event
                else:
                    message = f"runtime {self.name!r} stopped reporting on {request.id}, its end unknown"
                    raise RuntimeUnavailable(message)
                self._breaker.answered()
            except RuntimeUnavailable:
                outcome = "unavailable"
                if self._breaker.failed():
                    _log.warning("runtime.circuit_opened", runtime=self.name)
                raise
            except Exception as error:
                event = await self._broken(request, submitted, error)
            finally:
                await self._closed(events)  # before the end is told
            outcome = _outcome(event.result)
            yield event
        finally:
            self._observer.attempt_finished(self.name, request.kind, outcome, self._clock() - started)

    async def health(self) -> HealthStatus:
        """Say how the runtime is, from memory while the last answer counts; within the time limit in any case."""
        async with self._health_check:  # callers at the same time share one check
            if self._health is None or self._clock() >= self._health_until:
                self._remember(await self._checked_health())
            status = self._health
        if status is None:
            raise InternalError(f"the health of runtime {self.name!r} was checked and is not there")
        return status

    async def capabilities(self) -> Capabilities:
        """Say what the runtime can do, from memory while the last answer counts. Raises RuntimeUnavailable."""
        if self._capabilities is None or self._clock() >= self._capabilities_until:
            self._capabilities = await self._asked_capabilities()
            self._capabilities_until = self._clock() + self._figures.capabilities_interval.total_seconds()
        return self._capabilities

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End or list work. Raises RuntimeUnavailable when it takes longer than grace and margin."""
        grace = scope.grace if isinstance(scope, AttemptScope | ExecutionScope) else timedelta(0)
        limit = (grace + self._figures.cleanup_margin).total_seconds()
        try:
            async with asyncio.timeout(limit):
                return await self._runtime.cleanup(scope)
        except FlexCoreError:
            raise
        except TimeoutError as error:
            raise RuntimeUnavailable(f"runtime {self.name!r} did not finish cleaning up within {limit:g} s") from error
        except Exception as error:
            _log.exception("runtime.adapter_broke", runtime=self.name, verb="cleanup")
            raise InternalError(f"runtime {self.name!r} broke while cleaning up: {type(error).__name__}") from error

    async def close(self) -> None:
        """Let go of clients and connections. Work goes on."""
        if isinstance(self._runtime, Closing):
            await self._runtime.close()

    def _kept(self, event: ExecutionEvent, submitted: Submitted | None) -> Submitted | None:
        """See that an event keeps the protocol; give the adapter's `Submitted`, once there is one."""
        if type(event) is Submitted:
            if submitted is not None:
                raise InternalError(f"runtime {self.name!r} sent Submitted twice")
            self._breaker.answered()
            return event
        if submitted is None and type(event) is not PhaseEntered:  # it may queue before it submits
            raise InternalError(f"runtime {self.name!r} sent {type(event).__name__} before Submitted")
        return submitted

    async def _closed(self, events: AsyncGenerator[ExecutionEvent, None]) -> None:
        """Close the adapter's stream; what it does wrong now must not spoil a result that is known."""
        try:
            await events.aclose()
        except Exception:
            _log.exception("runtime.adapter_broke", runtime=self.name, verb="close of execute")

    async def _broken(self, request: ExecutionRequest, submitted: Submitted | None, error: Exception) -> Finished:
        """Turn a bug of the adapter into a failure, without leaving the work to run on beside a next attempt."""
        _log.error("runtime.adapter_broke", runtime=self.name, verb="execute", attempt=str(request.id), exc_info=error)
        if submitted is not None:
            try:
                await self.cleanup(AttemptScope(id=request.id, handle=submitted.handle, grace=request.grace))
            except FlexCoreError as problem:
                _log.warning("attempt.left_running", attempt=str(request.id), reason=problem.message)
        said = f": {error.message}" if isinstance(error, InternalError) else ""
        failure = Failure(
            message=f"the adapter of runtime {self.name!r} broke{said}",
            error_class=ErrorClass.INTERNAL,
            name=type(error).__name__,
            attempt=request.id.number,
            hint="a bug of the adapter, not of the step; the log of FlexCore has the traceback",
        )
        return Finished(ExecutionResult(outcome=Failed(failure)))

    async def _checked_health(self) -> HealthStatus:
        limit = self._figures.health_timeout.total_seconds()
        try:
            return await _within(limit, self._runtime.health())
        except TimeoutError:
            return self._down(f"the health check did not answer within {limit:g} s")
        except FlexCoreError as error:
            return self._down(error.message)
        except Exception as error:
            _log.exception("runtime.adapter_broke", runtime=self.name, verb="health")
            return self._down(f"the health check broke: {type(error).__name__}")

    def _down(self, reason: str) -> HealthStatus:
        return HealthStatus(state=Health.DOWN, reason=reason, checked_at=self._now())

    def _remember(self, found: HealthStatus) -> None:
        """Keep the answer. The first bad one after a good one only degrades: one lost packet moves no work."""
        before = self._health
        if found.state is Health.DOWN and before is not None and before.state is Health.UP:
            found = replace(found, state=Health.DEGRADED, reason=f"{found.reason} (for the first time)")
        interval = self._figures.health_interval if found.state is Health.UP else self._figures.recheck
        self._health_until = self._clock() + interval.total_seconds()
        self._health = found
        if before is None or before.state is not found.state:
            _log.info("runtime.health_changed", runtime=self.name, state=found.state.value, reason=found.reason)
            self._observer.health_changed(self.name, found)

    async def _asked_capabilities(self) -> Capabilities:
        limit = self._figures.capabilities_timeout.total_seconds()
        try:
            found = await _within(limit, self._runtime.capabilities())
            return replace(found, tags=found.tags | self._tags)
        except FlexCoreError:
            raise
        except TimeoutError as error:
            message = f"runtime {self.name!r} did not say what it can do within {limit:g} s"
            raise RuntimeUnavailable(message) from error
        except Exception as error:
            _log.exception("runtime.adapter_broke", runtime=self.name, verb="capabilities")
            raise InternalError(f"runtime {self.name!r} broke when asked what it can do") from error


async def _within(seconds: float, verb: Coroutine[Any, Any, Answer]) -> Answer:
    """Await at most so long, also when the adapter swallows its cancellation (`asyncio.timeout` would wait for it)."""
    task = asyncio.ensure_future(verb)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise TimeoutError
    return task.result()


def _outcome(result: ExecutionResult) -> str:
    outcome = result.outcome
    return outcome.failure.error_class.value if isinstance(outcome, Failed) else "succeeded"
