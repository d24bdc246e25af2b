"""Drives attempts that are function calls: finds or starts the host, waits for the call, ends it.

Nothing outlives this process: a call that a stored handle names is lost, and the engine runs it again.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Mapping
from datetime import timedelta
from typing import TypeAlias

from pydantic import ValidationError

from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    PhaseEntered,
    Submitted,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.portable.judgement import redacted
from flexcore_local.commands import clean_environment
from flexcore_local.config import FunctionParameters, LocalConfig
from flexcore_local.function_client import Call, FunctionHost
from flexcore_local.slots import Slots

_MOST_HOSTS = 8  # idle ones above it are ended, the one unused for longest first

HostKey: TypeAlias = tuple[str, tuple[tuple[str, str], ...]]  # folder of the code, environment


class FunctionCalls:
    """The hosts of one instance, one per code folder and environment, and the calls in flight."""

    def __init__(self, config: LocalConfig, context: RuntimeContext) -> None:
        self.slots = Slots(config.function_limit)
        self._config = config
        self._context = context
        self._environment = clean_environment()
        self._hosts: dict[HostKey, FunctionHost] = {}
        self._calls: dict[AttemptId, Call] = {}

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Call a function. Closing it detaches; the same attempt executed again in this process finds the call."""
        call = self._calls.get(request.id)
        adopted = call is not None
        if call is None and (refused := _refusal(request)) is not None:
            yield _finished(refused)
            return
        if not self.slots.try_take():
            with self.slots.turn(str(request.id)) as turn:  # before anybody hears of it, who may end it at once
                yield PhaseEntered(Phase.QUEUE, self._context.now())
                taken = await turn
            if not taken:
                yield _finished(Failure(message="cancelled while it waited", error_class=ErrorClass.CANCELLED))
                return
        try:
            if call is None:
                call = self._call(request)
            yield Submitted(call.host.handle, adopted)
            read = 0
            while True:
                for chunk in call.printed[read:]:
                    read += 1
                    if chunk.offset >= request.log_offsets.get(chunk.stream, 0):
                        yield chunk
                if call.outcome is not None:
                    break
                if read == len(call.printed):
                    await call.news()
            yield Finished(ExecutionResult(outcome=redacted(call.outcome, request.secrets)))
        finally:
            self.slots.release()
            if call is not None and call.outcome is not None:
                self._calls.pop(request.id, None)

    def has(self, attempt: AttemptId) -> bool:
        """Whether the attempt is a call in flight here."""
        return attempt in self._calls

    async def end_all(self, execution: ExecutionId, grace: timedelta) -> None:
        """End all calls of an execution, also those that wait for their turn."""
        self.slots.withdraw_all(f"{execution}/")
        mine = [attempt for attempt in self._calls if attempt.execution == execution]
        await asyncio.gather(*(self.end(attempt, grace) for attempt in mine))

    def withdraw(self, attempt: AttemptId) -> bool:
        """End an attempt's wait for its turn; False when it does not wait."""
        return self.slots.withdraw(str(attempt))

    async def end(self, attempt: AttemptId, grace: timedelta) -> None:
        """Cancel a call: an asynchronous function is told, a synchronous one costs the host."""
        call = self._calls.pop(attempt, None)
        if call is None or call.outcome is not None:
            return
        call.host.cancel(call)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace.total_seconds() or 0.1):
                while call.outcome is None:
                    await call.news()
        if call.outcome is None:
            call.host.kill(call)

    def close(self) -> None:
        """End all hosts. They end by themselves when this process does."""
        for host in self._hosts.values():
            host.kill()
        self._hosts.clear()

    def _call(self, request: ExecutionRequest) -> Call:
        args = request.parameters.get("args") or {}
        assert isinstance(args, Mapping)
        call = self._host(request).call(str(request.parameters["name"]), args)
        self._calls[request.id] = call
        if request.deadline is not None:
            left = max(0.0, (request.deadline - self._context.now()).total_seconds())
            call.host.loop.call_later(left, _expire, call, request.grace)
        return call

    def _host(self, request: ExecutionRequest) -> FunctionHost:
        key = (str(request.folder), tuple(sorted(request.env.items())) if request.env else ())
        host = self._hosts.get(key)
        if host is None or host.ended:
            self._end_idle()
            environment = {**self._environment, **request.env}
            limit, output = self._config.function_limit, self._config.max_output_bytes
            host = self._hosts[key] = FunctionHost(request.folder, environment, limit, output)
        return host

    def _end_idle(self) -> None:
        for key in [key for key, host in self._hosts.items() if host.ended]:
            del self._hosts[key]
        idle = [key for key, host in self._hosts.items() if not host.calls]
        for key in idle[: max(0, len(self._hosts) - _MOST_HOSTS + 1)]:
            self._hosts.pop(key).kill()


def _expire(call: Call, grace: timedelta) -> None:
    """The time limit is over: tell the function if it can be told, and kill the host if that does not help."""
    if call.outcome is not None:
        return
    call.settle(
        Failed(Failure(message="not done within its time limit", error_class=ErrorClass.TIMEOUT, name="Timeout"))
    )
    call.host.cancel(call)
    call.host.loop.call_later(grace.total_seconds(), _force, call)


def _force(call: Call) -> None:
    if call.number in call.host.calls:
        call.host.kill(call)


def _refusal(request: ExecutionRequest) -> Failure | None:
    if request.handle is not None:
        return Failure(message="the call was lost with the process that made it", error_class=ErrorClass.LOST)
    name, args = request.parameters.get("name"), request.parameters.get("args", {})
    if isinstance(name, str) and isinstance(args, dict) and len(request.parameters) <= 2 and ":" in name:
        return None  # the common case, without the price of a model
    try:
        FunctionParameters.model_validate(request.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        message = f"function: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidParameters")
    return None


def _finished(failure: Failure) -> Finished:
    return Finished(ExecutionResult(outcome=Failed(failure)))
