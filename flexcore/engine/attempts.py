"""Drives one attempt: resolves what it needs, calls the runtime, and posts what matters to the loop as events.

Logs, metrics and progress go straight to the log store and the observer. Secrets are filled in here, after the
commit that dispatched the attempt, and redacted from everything that comes back.
"""

from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import structlog

from flexcore.engine.ports import Clock, Logs, Observer, Runtimes, Secrets
from flexcore.engine.whole_characters import WholeCharacters
from flexcore.engine.work import AttemptFinished, AttemptSubmitted, AttemptUnavailable, Event
from flexcore.model.errors import Fenced, FlexCoreError, NotFound, RuntimeUnavailable, Unavailable
from flexcore.model.execution import ExecutionHeader, Phase, SecretText, StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId
from flexcore.model.values import JSON, NOTHING, Payload, canonical
from flexcore.model.workflow import Step, StepKind
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    LogChunk,
    LogStream,
    PhaseEntered,
    Progress,
    Runtime,
    Submitted,
)
from flexcore.runtime.plugin import ArtifactStore
from flexcore.security.secrets import RedactingStream, Redactor

_log = structlog.get_logger(__name__)

_LONGEST_TEXT = 16 * 1024
_BACKSTOP_AFTER = timedelta(seconds=3)
_PLAIN = Redactor(())


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What there is to drive: the step as dispatched, and where it belongs."""

    header: ExecutionHeader
    state: StepState
    step: Step
    folder: Path  # of the version's files
    files: frozenset[str] | None = None
    fresh: bool = False  # whether its dispatch was committed by this process, just now
    is_given_up: Callable[[], bool]  # whether it is being ended, or has been


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """Everything that driving an attempt takes."""

    runtimes: Runtimes
    artifacts: ArtifactStore
    logs: Logs
    secrets: Secrets
    observer: Observer
    inline_bytes: int
    now: Clock
    grace: timedelta = timedelta(seconds=30)

    async def drive(self, attempt: Attempt, post: Callable[[Event], None]) -> None:
        """Run or adopt the attempt until it ends, and post how it ended. Cancelling this detaches.

        One of the places that catch everything: a step must never be left running because of a bug of ours.
        """
        state = attempt.state
        redactor = _PLAIN
        try:
            request = await self._request(attempt)
            if isinstance(request, Failure):
                post(_finished(state, failure=request))
                return
            if attempt.is_given_up():
                return  # meanwhile: its clean-up has found nothing, so there must be nothing afterwards
            redactor = Redactor(request.secrets) if request.secrets else _PLAIN
            await self._follow(attempt, request, redactor, post)
        except Fenced:
            return  # a later attempt has taken over: late is not failed, and nobody waits for us
        except Unavailable as error:
            # Also when it was our own store: the work may have ended well, and is asked again.
            post(_unavailable(state, redactor.text(error.message)))
        except FlexCoreError as error:
            failure = Failure(message=error.message, error_class=ErrorClass.INTERNAL, name=error.code, hint=error.hint)
            post(_finished(state, failure=_redacted(failure, redactor)))
        except Exception as error:
            _log.error("attempt.broke", path=state.path, attempt=state.attempt, error=type(error).__name__)
            post(_finished(state, failure=_our_fault(error)))

    async def _follow(
        self, attempt: Attempt, request: ExecutionRequest, redactor: Redactor, post: Callable[[Event], None]
    ) -> None:
        state = attempt.state
        runtime = self._runtime(state)
        sink = _LogSink(self, attempt, redactor if request.secrets else None)
        submitted: Submitted | None = None
        began = self.now()
        async with aclosing(runtime.execute(request)) as events:
            async for event in events:
                if isinstance(event, Finished):
                    await sink.close()
                    is_whole = submitted is not None and not submitted.adopted and not state.spent.get("postponed")
                    took = self.now() - began if is_whole else timedelta()
                    post(await self._settled(state, event.result, sink.redactor, took))
                    return
                if isinstance(event, Submitted):
                    submitted = event
                    post(_submitted(state, event, running=not event.prepares))
                elif isinstance(event, LogChunk):
                    await sink.take(event)
                else:
                    if _begins(event) and submitted is not None and submitted.prepares:
                        post(_submitted(state, replace(submitted, adopted=False), running=True))  # told once
                    shown = _without_secrets(event, redactor)
                    self.observer.reported(attempt.header.id, state.path, state.attempt, shown)
        raise RuntimeUnavailable("the runtime stopped reporting before the end")

    def _runtime(self, state: StepState) -> Runtime:
        """Give the attempt's runtime. One that is no longer configured may come back: its work is not failed."""
        try:
            return self.runtimes.get(state.runtime or "")
        except NotFound as error:
            raise RuntimeUnavailable(error.message, hint=error.hint) from error

    async def _request(self, attempt: Attempt) -> ExecutionRequest | Failure:
        header, state = attempt.header, attempt.state
        filled = await self._parameters(state)
        if isinstance(filled, Failure):
            return filled
        values, secrets = filled
        self._runtime(state)
        parameters = self.runtimes.validate(StepKind(state.kind), values, state.runtime or "")
        if isinstance(parameters, Failure):
            return parameters
        offsets: Mapping[LogStream, int] = {}
        if state.handle is not None or state.adoptions or state.spent.get("postponed"):
            offsets = await self.logs.offsets(header.id, state.path, state.attempt)
        return ExecutionRequest(
            id=AttemptId(header.id, state.path, state.attempt),
            token=state.token,
            kind=StepKind(state.kind),
            parameters=parameters,
            requirements=attempt.step.requirements,
            workflow=header.workflow,
            workspace=header.workspace,
            folder=attempt.folder,
            files=attempt.files,
            env=state.env,
            secrets=secrets,
            labels=header.labels,
            deadline=self._deadline(attempt),
            grace=self.grace,
            handle=state.handle,
            fresh=attempt.fresh and state.handle is None and not state.spent.get("postponed"),
            log_offsets=offsets,
        )

    def _deadline(self, attempt: Attempt) -> datetime | None:
        """Give the runtime's backstop; before the clock of the step runs, as if it began now.

        It comes after the limit, so that whoever watches decides, and says the same on every runtime.
        """
        timeout = attempt.step.timeout
        if timeout is None:
            return None
        return (attempt.state.expires_at or self.now() + timeout) + _BACKSTOP_AFTER

    async def _parameters(self, state: StepState) -> tuple[Mapping[str, JSON], tuple[str, ...]] | Failure:
        value = state.parameters.value
        if state.parameters.ref is not None:
            value = msgspec.json.decode(await self.artifacts.get(state.parameters.ref))
        if not state.secrets:
            return (value if isinstance(value, Mapping) else {}), ()
        used: dict[str, str] = {}
        for text in state.secrets:
            for part, name in text.parts:
                if part == "secret" and name not in used:
                    try:
                        used[name] = self.secrets.get(name)
                    except FlexCoreError as error:
                        return Failure(message=error.message, error_class=ErrorClass.INPUT, hint=error.hint)
        # A copy: the state's own value keeps the references.
        copy = msgspec.json.decode(canonical(value))
        for text in state.secrets:
            _fill(copy, text, used)
        return copy, tuple(used.values())

    async def _settled(
        self, state: StepState, result: ExecutionResult, redactor: Redactor | None, took: timedelta
    ) -> AttemptFinished:
        outcome, phases = result.outcome, measured(result.phases, took)
        if isinstance(outcome, Failed):
            failure = outcome.failure if redactor is None else _redacted(outcome.failure, redactor)
            return _finished(state, failure=_bounded(failure), result=result, phases=phases)
        output = outcome.output if redactor is None else redactor.json(outcome.output)
        data = canonical(output)
        payload = Payload(output)
        if len(data) > self.inline_bytes:
            payload = Payload(ref=await self.artifacts.put(data))
        return _finished(state, payload=payload, result=result, phases=phases)


@dataclass(slots=True)
class _LogSink:
    """Takes an attempt's output to the log store, redacted where secrets are about."""

    driver: Driver
    attempt: Attempt
    redactor: Redactor | None
    streams: dict[LogStream, RedactingStream] = field(default_factory=dict)
    positions: dict[LogStream, int] = field(default_factory=dict)
    whole: dict[LogStream, WholeCharacters] = field(default_factory=dict)

    async def take(self, chunk: LogChunk) -> None:
        """Keep a chunk, or as much of it as surely holds no part of a secret."""
        if self.redactor is None:
            await self._keep_whole(chunk.stream, chunk.offset, chunk.data)
            return
        stream = self.streams.get(chunk.stream)
        if stream is None:
            stream = self.streams[chunk.stream] = RedactingStream(self.redactor)
            self.positions[chunk.stream] = chunk.offset
        await self._advance(chunk.stream, stream.feed(chunk.data))

    async def close(self) -> None:
        """Keep what was held back."""
        for name, stream in self.streams.items():
            await self._advance(name, stream.flush())
        for name, whole in self.whole.items():
            for offset, data in whole.flush():
                await self._keep(name, offset, data)

    async def _advance(self, stream: LogStream, data: bytes) -> None:
        if data:
            offset = self.positions[stream]
            self.positions[stream] = offset + len(data)
            await self._keep_whole(stream, offset, data)

    async def _keep_whole(self, stream: LogStream, offset: int, data: bytes) -> None:
        whole = self.whole.get(stream) or self.whole.setdefault(stream, WholeCharacters())
        for start, piece in whole.feed(offset, data):
            await self._keep(stream, start, piece)

    async def _keep(self, stream: LogStream, offset: int, data: bytes) -> None:
        header, state = self.attempt.header, self.attempt.state
        await self.driver.logs.append(header.id, state.path, state.attempt, state.token, stream, offset, data)
        self.driver.observer.reported(header.id, state.path, state.attempt, LogChunk(stream, offset, data))


def measured(phases: Mapping[Phase, timedelta], took: timedelta) -> Mapping[Phase, timedelta]:
    """Add to the phases what the runtime did not account for, so that they are as long as the attempt was.

    It is the way to the work and back: part of the start, or of the run where the runtime tells nothing of that.
    """
    rest = took - sum(phases.values(), timedelta()) if phases else took
    if rest <= timedelta():
        return phases
    phase = Phase.START if Phase.RUN in phases else Phase.RUN
    return {**phases, phase: phases.get(phase, timedelta()) + rest}


def _fill(value: Any, text: SecretText, used: Mapping[str, str]) -> None:
    filled = "".join(used[part] if kind == "secret" else part for kind, part in text.parts)
    *before, last = text.pointer
    for key in before:
        value = value[key]
    value[last] = filled


def _redacted(failure: Failure, redactor: Redactor) -> Failure:
    return replace(
        failure,
        message=redactor.text(failure.message),
        name=redactor.text(failure.name),
        hint=redactor.text(failure.hint),
        cause=_redacted(failure.cause, redactor) if failure.cause else None,
    )


def _bounded(failure: Failure) -> Failure:
    """Keep what people read; a message of megabytes belongs in the log, not three times in the history."""
    cause = _bounded(failure.cause) if failure.cause else None
    return replace(failure, message=_cut(failure.message), hint=_cut(failure.hint), cause=cause)


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST_TEXT else f"{text[:_LONGEST_TEXT]}… ({len(text):,} characters)"


def _our_fault(error: Exception) -> Failure:
    """Name a bug of ours by its type alone: its text may hold anything."""
    return Failure(
        message=f"FlexCore broke while it looked after this attempt: {type(error).__name__}",
        error_class=ErrorClass.INTERNAL,
        name=type(error).__name__,
        hint="this is a bug of FlexCore; please report it",
    )


def _without_secrets(event: ExecutionEvent, redactor: Redactor) -> ExecutionEvent:
    return replace(event, note=redactor.text(event.note)) if isinstance(event, Progress) else event


def _begins(event: ExecutionEvent) -> bool:
    return isinstance(event, PhaseEntered) and event.phase is Phase.RUN


def _submitted(state: StepState, event: Submitted, *, running: bool) -> AttemptSubmitted:
    return AttemptSubmitted(
        path=state.path,
        attempt=state.attempt,
        token=state.token,
        handle=event.handle,
        adopted=event.adopted,
        running=running,
    )


def _unavailable(state: StepState, reason: str) -> AttemptUnavailable:
    return AttemptUnavailable(path=state.path, attempt=state.attempt, token=state.token, reason=reason)


_NO_RESULT = ExecutionResult(outcome=Failed(Failure(message="")))


def _finished(
    state: StepState,
    *,
    payload: Payload = NOTHING,
    failure: Failure | None = None,
    result: ExecutionResult = _NO_RESULT,
    phases: Mapping[Phase, timedelta] = MappingProxyType({}),
) -> AttemptFinished:
    return AttemptFinished(
        path=state.path,
        attempt=state.attempt,
        token=state.token,
        result=payload,
        failure=failure,
        usage=result.usage,
        phases=phases,
        artifacts=result.artifacts,
    )
