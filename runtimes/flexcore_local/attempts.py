"""Drives attempts that are processes: start or adopt under the shim, follow, judge, and end them."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pydantic import ValidationError

from flexcore.model.execution import Handle, Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath, external_name
from flexcore.runtime import shim
from flexcore.runtime.interface import (
    CleanupReport,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    LogChunk,
    PhaseEntered,
    Submitted,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.portable.data import NO_DATA, DataLinks, step_data
from flexcore.runtime.portable.ending import Ending
from flexcore.runtime.shim import Command, End, Found, State
from flexcore_local import outcomes
from flexcore_local.commands import PARAMETERS, PREPARES, clean_environment, command_for
from flexcore_local.config import BashParameters, LocalConfig, PythonParameters
from flexcore_local.handle import handle_of, is_same
from flexcore_local.preparation import surroundings
from flexcore_local.slots import Slots

_ENDED = Failed(Failure(message="ended from outside, by SIGTERM", name="SIGTERM"))
_READER_S = 2.0  # how long a removal waits for a reader in this process to have read the end


class ProcessAttempts:
    """The attempts of one instance. What it keeps in memory is about waiting only; the folders know the rest."""

    def __init__(self, config: LocalConfig, context: RuntimeContext, slots: int) -> None:
        self.root = context.state_folder / "attempts"
        self.start_latency: timedelta | None = None
        self.slots = Slots(slots)
        self._config = config
        self._context = context
        self._surroundings = surroundings(clean_environment(), context.state_folder)
        self._active: dict[str, ExecutionId] = {}
        self._starting: dict[str, asyncio.Event] = {}
        self._reading: dict[str, asyncio.Event] = {}

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Run a step as a process; closing it detaches."""
        folder = self._folder(request.id)
        self._active[folder.name] = request.id.execution
        try:
            async with contextlib.aclosing(self._execute(request, folder)) as events:
                async for event in events:
                    yield event
        finally:
            self._active.pop(folder.name, None)

    async def end(self, attempt: AttemptId, grace: timedelta) -> CleanupReport:
        """End one attempt, wait until it has ended, and remove what it left."""
        return await self._end(self._folder(attempt), grace)

    async def end_all(self, execution: ExecutionId, grace: timedelta) -> CleanupReport:
        """End all attempts of an execution, at the same time."""
        there = {name for name, each in self._survey().items() if _note(each, "execution") == execution}
        active = {name for name, owner in self._active.items() if owner == execution}  # also what waits or just starts
        reports = await asyncio.gather(*(self._end(self.root / name, grace) for name in there | active))
        return CleanupReport(
            gone=frozenset[str]().union(*(report.gone for report in reports)),
            pending=frozenset[str]().union(*(report.pending for report in reports)),
        )

    def survey(self, installation: str) -> CleanupReport:
        """List what is there of an installation, running or waiting to be read."""
        there = {name: each for name, each in self._survey().items() if _note(each, "installation") == installation}
        return CleanupReport(pending=frozenset(there), attempts={name: _attempt(each) for name, each in there.items()})

    async def _execute(self, request: ExecutionRequest, folder: Path) -> AsyncGenerator[ExecutionEvent, None]:
        found = await shim.settled(folder)
        if _is_another(request.handle, found):
            yield _failed("the attempt's process is gone, and how it ended cannot be known", ErrorClass.LOST)
            return
        data = await self._data(request)
        command = data if isinstance(data, Failure) else self._command(request, folder, data)
        if found.state is not State.ABSENT:
            self.slots.take()
        elif isinstance(command, Failure):
            yield Finished(ExecutionResult(outcome=Failed(command)))
            return
        elif not self.slots.try_take():
            with self.slots.turn(folder.name) as turn:  # before anybody hears of it, who may end it at once
                yield PhaseEntered(Phase.QUEUE, self._context.now())
                taken = await turn
            if not taken:
                yield _failed("cancelled while it waited for a slot", ErrorClass.CANCELLED)
                return
        try:
            async with contextlib.aclosing(self._run(request, found, command, data)) as events:
                async for event in events:
                    yield event
        finally:
            self.slots.release()

    async def _run(
        self, request: ExecutionRequest, found: Found, command: Command | Failure, data: DataLinks | Failure
    ) -> AsyncGenerator[ExecutionEvent, None]:
        adopted = found.state is not State.ABSENT
        prepares = isinstance(command, Command) and command.prepares
        if isinstance(command, Command) and not adopted:
            began = self._context.now()
            started = await self._start(found.folder, self._limited(command, request))
            found, adopted = started.found, started.adopted
            self.start_latency = self._context.now() - began
            yield Submitted(handle_of(found), adopted, prepares)
            yield PhaseEntered(Phase.START, began)
            if not prepares:
                yield PhaseEntered(Phase.RUN, self._context.now())
        else:
            prepares = _note(found, PREPARES) is True
            yield Submitted(handle_of(found), adopted, prepares)
        async with contextlib.aclosing(self._follow(request, found, prepares, data)) as events:
            async for event in events:
                yield event

    async def _follow(
        self, request: ExecutionRequest, found: Found, prepares: bool, data: DataLinks | Failure
    ) -> AsyncGenerator[ExecutionEvent, None]:
        end: End | None = None
        read = self._reading[found.folder.name] = asyncio.Event()
        try:
            if prepares and (at := outcomes.begun(found.folder)) is not None:
                prepares = False
                yield _runs(at)
            async with contextlib.aclosing(shim.follow(found.folder, request.log_offsets)) as events:
                async for event in events:
                    if prepares and (at := outcomes.begun(found.folder)) is not None:
                        prepares = False
                        yield _runs(at)
                    if isinstance(event, LogChunk):
                        yield event
                    else:
                        end = event
            result = await self._result(request, found.folder, end, data, has_begun=not prepares)
        finally:
            read.set()
            self._reading.pop(found.folder.name, None)
        yield Finished(result)

    async def _start(self, folder: Path, command: Command) -> shim.Started:
        known = self._starting[folder.name] = asyncio.Event()
        try:
            return await shim.start(folder, command)
        finally:
            known.set()
            self._starting.pop(folder.name, None)

    async def _result(
        self, request: ExecutionRequest, folder: Path, end: End | None, data: DataLinks | Failure, *, has_begun: bool
    ) -> ExecutionResult:
        assert end is not None, "follow ends with an end"
        unprepared = None if has_begun else outcomes.never_begun(end)
        if unprepared is not None:
            ending = Ending(outcome=Failed(unprepared), usage=outcomes.usage_of(end))
        else:
            limit = self._config.max_result_bytes
            ending = await asyncio.to_thread(outcomes.ending, request.kind, folder, end, limit)
        if isinstance(data, Failure):  # of an adopted attempt, whose data cannot be referred to any more
            ending, data = replace(ending, outcome=ending.outcome and Failed(data)), NO_DATA
        phases = {**outcomes.phases_of(folder, end, has_begun=has_begun), **ending.phases}
        return replace(ending, phases=phases).result(_ENDED, data, request.id, request.secrets)

    async def _end(self, folder: Path, grace: timedelta) -> CleanupReport:
        name = frozenset({folder.name})
        if self.slots.withdraw(folder.name):
            return CleanupReport(gone=name)
        if (starting := self._starting.get(folder.name)) is not None:
            await starting.wait()
        found = await shim.cancel(folder, grace)
        if found.state is State.RUNNING:
            return CleanupReport(pending=name)
        if (reading := self._reading.get(folder.name)) is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reading.wait(), _READER_S)
        removed = await shim.remove(folder)
        return CleanupReport(gone=name) if removed else CleanupReport(pending=name)

    async def _data(self, request: ExecutionRequest) -> DataLinks | Failure:
        """Make the links to a step's data; for the outputs they are the same each time."""
        if not request.parameters.get("inputs") and not request.parameters.get("outputs"):
            return NO_DATA
        try:
            parameters = PARAMETERS[request.kind].model_validate(request.parameters)
        except (ValidationError, KeyError):
            return NO_DATA  # whoever makes the command says what is wrong
        if not isinstance(parameters, PythonParameters | BashParameters):
            return NO_DATA
        return await step_data(parameters, self._context.artifacts, request.id)

    def _command(self, request: ExecutionRequest, folder: Path, data: DataLinks) -> Command | Failure:
        return command_for(request, folder, self._config, self._surroundings, self._context.installation, data)

    def _limited(self, command: Command, request: ExecutionRequest) -> Command:
        if request.deadline is None:
            return command
        return replace(command, time_limit=request.deadline - self._context.now())

    def _folder(self, attempt: AttemptId) -> Path:
        return self.root / external_name(self._context.installation, attempt)

    def _survey(self) -> dict[str, Found]:
        return {name: each for name, each in shim.survey(self.root).items() if each.record is not None}


def _is_another(handle: Handle | None, found: Found) -> bool:
    return handle is not None and not is_same(handle, found)


def _runs(at: float) -> PhaseEntered:
    return PhaseEntered(Phase.RUN, datetime.fromtimestamp(at, UTC))


def _failed(message: str, error_class: ErrorClass) -> Finished:
    return Finished(ExecutionResult(outcome=Failed(Failure(message=message, error_class=error_class))))


def _note(found: Found, key: str) -> object:
    return found.record.notes.get(key) if found.record else None


def _attempt(found: Found) -> AttemptId:
    number = _note(found, "number")
    execution, path = ExecutionId(str(_note(found, "execution"))), StepPath(str(_note(found, "path")))
    return AttemptId(execution, path, number if isinstance(number, int) else 0)
