"""The four verbs for Meltano. Nothing that matters is kept in memory: runs are in their folders, under their shims.

An attempt installs, waits, runs and reads its bookmarks in one program of its own (`attempt_main.py`), so adopting it
is just reading on. Nothing is started before everything that can be checked was.
"""

import asyncio
import os
from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing, suppress
from dataclasses import replace
from pathlib import Path
from typing import assert_never

from pydantic import ValidationError

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime import shim
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
    LogChunk,
    LogStream,
    PhaseEntered,
    Resources,
    Submitted,
    Succeeded,
    Survey,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.portable.judgement import hidden
from flexcore.runtime.shim import End, Found, State
from flexcore.runtime.state_folder import problem_with
from flexcore_meltano.client import NoMeltano, attempt_argv, encode_order, find_executable
from flexcore_meltano.config import DbtParameters, MeltanoConfig, MeltanoParameters, SingerParameters
from flexcore_meltano.dbt import Accounts, with_failed_models
from flexcore_meltano.handle import attempt_folder, attempt_notes, attempt_of, is_same, make_handle
from flexcore_meltano.logs import Note, RunLog
from flexcore_meltano.outcomes import failure_of
from flexcore_meltano.place import is_deployed, place_of
from flexcore_meltano.prepare import OUTPUTS_START, Asked, Parameters, Prepared, Refused, prepare, refuse
from flexcore_meltano.project import BadProject, read_project
from flexcore_meltano.results import output_of, pairs_in, phases_of, usage_of

_INSTALL_HINT = "install flexcore[meltano], or set `executable` for this runtime"
_WORK = "work"
_READER_S = 2.0  # how long a removal waits for a reader in this process


class MeltanoRuntime:
    """One instance: its settings, and the folders below `context.state_folder`."""

    def __init__(self, name: str, config: MeltanoConfig, context: RuntimeContext) -> None:
        self._name = name
        self._config = config
        self._context = context
        self._attempts = context.state_folder / "attempts"
        self._accounts = Accounts(context.state_folder / "dbt", context.installation, context.now)
        self._reading: dict[str, asyncio.Event] = {}  # folders whose end is being read in this process

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Start the run, or adopt it, and follow it to its end. Closing the iterator leaves it running."""
        folder = attempt_folder(self._attempts, self._context.installation, request.id)
        found = await shim.settled(folder)
        if request.handle is not None and not is_same(request.handle, found):
            yield _failed(Failure(message="the run is gone without a trace", error_class=ErrorClass.LOST, name="lost"))
            return
        adopted = found.state is not State.ABSENT
        if not adopted:
            try:
                command = await asyncio.to_thread(self._command, request, folder)
            except Refused as refusal:
                yield _failed(hidden(refusal.failure, request.secrets))
                return
            started = await shim.start(folder, command)
            found, adopted = started.found, started.adopted
        yield Submitted(make_handle(found), adopted, prepares=True)
        async with aclosing(self._follow(request, found)) as events:
            async for event in events:
                yield event

    async def health(self) -> HealthStatus:
        """Say whether there is a Meltano and a folder for runs; a project's own one is looked for with the project."""
        now = self._context.now()
        try:
            found = find_executable(self._config.executable)
        except NoMeltano as error:
            return HealthStatus(state=Health.DOWN, reason=f"{error}; {_INSTALL_HINT}", checked_at=now)
        if problem := await asyncio.to_thread(problem_with, self._context.state_folder):
            return HealthStatus(state=Health.DOWN, reason=problem, checked_at=now)
        reason = f"meltano {found.version or 'of unknown version'} from {found.origin}"
        return HealthStatus(state=Health.UP, reason=reason, checked_at=now)

    async def capabilities(self) -> Capabilities:
        """Say what can be run: the same whether Meltano is there or not, that is a matter of health."""
        try:
            version = find_executable(self._config.executable).version
        except NoMeltano:
            version = ""
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        return Capabilities(
            step_kinds=frozenset({StepKind.SINGER, StepKind.DBT, StepKind.MELTANO}),
            limits=Resources(cpu=float(os.cpu_count() or 1), memory=memory, gpu=0),
            data_stores=frozenset({"file", "s3"}),
            versions={"meltano": version} if version else {},
        )

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End a run with its tap and target; remove what an execution left; list what is there."""
        match scope:
            case AttemptScope():
                return await self._end(scope)
            case ExecutionScope():
                return await self._remove(scope)
            case Survey():
                return self._survey(scope)
            case _:
                assert_never(scope)

    async def _end(self, scope: AttemptScope) -> CleanupReport:
        folder = attempt_folder(self._attempts, self._context.installation, scope.id)
        report = _report([await shim.cancel(folder, scope.grace)])
        if not report.pending:
            if (reading := self._reading.get(folder.name)) is not None:
                with suppress(TimeoutError):  # whoever follows the run still takes its result from the folder
                    await asyncio.wait_for(reading.wait(), _READER_S)
            await shim.remove(folder)
        return report

    async def _follow(self, request: ExecutionRequest, found: Found) -> AsyncGenerator[ExecutionEvent, None]:
        read = self._reading[found.folder.name] = asyncio.Event()
        try:
            async with aclosing(self._followed(request, found)) as events:
                async for event in events:
                    yield event
        finally:
            read.set()
            self._reading.pop(found.folder.name, None)

    async def _followed(self, request: ExecutionRequest, found: Found) -> AsyncGenerator[ExecutionEvent, None]:
        notes = found.record.notes if found.record else {}
        log = RunLog(pairs=tuple(pairs_in(notes)))
        told = request.log_offsets.get(LogStream.STDERR, 0)
        offsets = {LogStream.STDOUT: request.log_offsets.get(LogStream.STDOUT, 0), LogStream.STDERR: 0}
        end: End | None = None
        async with aclosing(shim.follow(found.folder, offsets)) as items:
            async for item in items:
                if not isinstance(item, LogChunk):
                    end = item
                    continue
                for event in _reading(item, log, told):
                    yield event
        for note in log.close():
            yield note
        if end is not None:
            result = await asyncio.to_thread(self._result, request, found, end, log)
            yield Finished(await self._with_data(request, result, notes))

    def _result(self, request: ExecutionRequest, found: Found, end: End, log: RunLog) -> ExecutionResult:
        work = found.folder / _WORK
        failure = failure_of(end, log)
        outcome: Succeeded | Failed
        if failure is None:
            notes = found.record.notes if found.record else {}
            output: JSON = output_of(request.kind, folder=found.folder, work=work, notes=notes, log=log)
            outcome = Succeeded(output)
        else:
            told = with_failed_models(failure, work) if request.kind is StepKind.DBT else failure
            outcome = Failed(hidden(told, request.secrets))
        if request.kind is StepKind.DBT:
            self._account(request, work, failed=failure is not None)
        return ExecutionResult(outcome=outcome, usage=usage_of(end, log), phases=phases_of(end, log))

    async def _with_data(
        self, request: ExecutionRequest, result: ExecutionResult, notes: Mapping[str, JSON]
    ) -> ExecutionResult:
        """Store what the step declares as its `outputs`, and refer to it in its result."""
        start = notes.get(OUTPUTS_START)
        if not isinstance(result.outcome, Succeeded) or not isinstance(start, str):
            return result
        # Here, because it imports HTTP, and most commands only look at this runtime.
        from flexcore.runtime.portable.storing import store_outputs

        outputs = _validated(request).outputs
        outcome, refs = await store_outputs(result.outcome, outputs, Path(start), self._context.artifacts, request.id)
        return replace(result, outcome=outcome, artifacts=refs)

    def _account(self, request: ExecutionRequest, work: Path, *, failed: bool) -> None:
        if failed:
            self._accounts.keep(request.id, work)
        else:
            self._accounts.forget(request.id)

    def _command(self, request: ExecutionRequest, folder: Path) -> shim.Command:
        prepared = self._prepared(request, folder)
        _insist_on_private_secrets(prepared.order["argv"], request)
        return shim.Command(
            argv=attempt_argv(),
            env=prepared.env,
            cwd=Path(str(prepared.notes["project"])),
            stdin=encode_order(prepared.order),
            grace=request.grace,
            memory_limit_bytes=request.requirements.memory,
            notes={**attempt_notes(request.id), **prepared.notes},
        )

    def _prepared(self, request: ExecutionRequest, folder: Path) -> Prepared:
        parameters = _validated(request)
        named = self._config.projects.get(parameters.project)
        root = (named or request.folder / parameters.project).resolve()
        try:
            project = read_project(
                root, environment=request.env.get("MELTANO_ENVIRONMENT"), fallback=self._config.environment
            )
            place = place_of(
                project,
                state_folder=self._context.state_folder,
                beside=root if named else request.folder.resolve(),
                deployed=named is None and is_deployed(request.folder, self._context.state_folder),
                names=(request.workspace, request.workflow, parameters.project),
            )
            asked = Asked(
                name=folder.name,
                parameters=parameters,
                project=project,
                place=place,
                executable=find_executable(self._config.executable, root),
                work=folder / _WORK,
                env=request.env,
                time_limit_s=self._time_left(request),
                grace_s=request.grace.total_seconds(),
                retry=self._accounts.take(request.id, folder / _WORK) if request.kind is StepKind.DBT else None,
            )
            return prepare(asked)
        except BadProject as error:
            raise refuse(error.message, error.hint, name="bad project") from error
        except NoMeltano as error:
            raise refuse(str(error), _INSTALL_HINT, ErrorClass.DEPENDENCY, "no meltano") from error

    def _time_left(self, request: ExecutionRequest) -> float | None:
        """The whole of it is for Meltano's run: installing and waiting for the state id do not count."""
        if request.deadline is None:
            return None
        return max(0.1, (request.deadline - self._context.now()).total_seconds())

    async def _remove(self, scope: ExecutionScope) -> CleanupReport:
        theirs = [
            found
            for found in shim.survey(self._attempts).values()
            if found.record is not None and found.record.notes.get("execution") == scope.execution
        ]
        ended = await asyncio.gather(*(shim.cancel(found.folder, scope.grace) for found in theirs))
        for found in ended:
            await shim.remove(found.folder)
        await asyncio.to_thread(self._accounts.forget_execution, scope.execution)
        return _report(ended)

    def _survey(self, scope: Survey) -> CleanupReport:
        """List what runs and what a finished run left: its output stays until somebody removes it."""
        if scope.installation != self._context.installation:
            return CleanupReport()
        there = {name: found for name, found in shim.survey(self._attempts).items() if found.state is not State.ABSENT}
        attempts = {
            name: attempt
            for name, found in there.items()
            if found.record is not None and (attempt := attempt_of(found.record.notes)) is not None
        }
        return CleanupReport(pending=frozenset(there), attempts=attempts, executions=self._accounts.executions())


def _validated(request: ExecutionRequest) -> Parameters:
    models: dict[StepKind, type[Parameters]] = {
        StepKind.SINGER: SingerParameters,
        StepKind.MELTANO: MeltanoParameters,
        StepKind.DBT: DbtParameters,
    }
    model = models.get(request.kind)
    if model is None:
        raise refuse(f"meltano does not run steps of type {request.kind}", f"it runs {', '.join(models)}")
    try:
        return model.model_validate(dict(request.parameters))
    except ValidationError as error:
        told = [(".".join(map(str, each["loc"])) or "with", each["msg"]) for each in error.errors()]
        problems = (f"{place}: {words.removeprefix('Value error, ')}" for place, words in told)
        raise refuse("; ".join(problems)) from error


def _insist_on_private_secrets(argv: list[str], request: ExecutionRequest) -> None:
    """Refuse a secret in the command line, which every user of the machine can read."""
    if any(secret in argument for secret in request.secrets if secret for argument in argv):
        raise refuse("a secret stands in the arguments of a command", "give it in `config` or in the step's `env`")


def _reading(chunk: LogChunk, log: RunLog, told: int) -> Iterator[ExecutionEvent]:
    """Read a chunk for the totals, and pass on what was not passed on before a restart. Phases are told again."""
    notes: list[Note] = list(log.feed(chunk.data)) if chunk.stream is LogStream.STDERR else []
    known = max(0, told - chunk.offset) if chunk.stream is LogStream.STDERR else 0
    fresh = chunk.data[known:]
    yield from (note for note in notes if fresh or isinstance(note, PhaseEntered))
    if fresh:
        yield LogChunk(chunk.stream, chunk.offset + known, fresh)


def _failed(failure: Failure) -> Finished:
    return Finished(ExecutionResult(outcome=Failed(failure)))


def _report(ended: list[Found]) -> CleanupReport:
    running = frozenset(found.folder.name for found in ended if found.state in (State.RUNNING, State.STARTING))
    return CleanupReport(gone=frozenset(found.folder.name for found in ended) - running, pending=running)
