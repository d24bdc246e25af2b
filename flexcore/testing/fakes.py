"""A runtime whose every behaviour is set by the parameters of the step: for tests of whatever runs steps.

It keeps all rules of a real adapter; what runs lives in a `World` outside the instance, so that a restart of the
control plane is a new instance over the same world. It never sleeps for real unless it is given the real clock.
"""

import asyncio
import base64
from collections import Counter
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import assert_never

from pydantic import BaseModel, ConfigDict, JsonValue, ValidationError

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Handle, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, external_name
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
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
    MetricSample,
    Progress,
    Submitted,
    Succeeded,
    Survey,
)
from flexcore.runtime.plugin import RuntimeContext, RuntimePlugin
from flexcore.testing.clock import Clock, ManualClock

_CHUNK_BYTES = 1 << 16


class Script(BaseModel):
    """The parameters of a scripted step: what it does, in this order. Everything has a harmless default."""

    model_config = ConfigDict(extra="forbid")

    unavailable: int = 0  # so many calls of execute cannot reach the runtime
    interrupted: int = 0  # so many streams lose the connection right after `Submitted`
    stdout: str = ""
    stderr: str = ""
    stdout_base64: str = ""
    stdout_times: int = 1
    metrics: dict[str, float] = {}
    progress: list[float] = []
    mark: str = ""  # counted in `World.begun` when the work begins
    child: bool = False  # has a child process, as far as `World.alive` is concerned
    memory_bytes: int = 0  # ends it as `oom` when the step's requirements allow less
    gate: str = ""  # waits until `World.open`
    stdout_after: str = ""  # written behind the gate
    delay_s: float = 0
    ignores_term: bool = False  # has to be killed after the grace
    lost: bool = False  # vanishes instead of ending
    exit_code: int = 0
    signal: str = ""  # the name of a signal to die of
    fail: ErrorClass | None = None
    message: str = "scripted failure"
    output: JsonValue = None
    output_bytes: int = 0  # instead of `output`: a text of this size
    tells_env: str = ""  # instead of `output`: the bytes of a variable, in hexadecimal digits
    tells_file: str = ""  # the same of a file of the workflow
    carried: str = ""  # instead of `output`: the length of this
    cpu_s: float | None = None
    late: bool = False  # breaks the rules: reports on after the end


class ScriptedConfig(BaseModel):
    """The configuration of a scripted instance."""

    model_config = ConfigDict(extra="forbid")

    kinds: list[StepKind] = list(StepKind)
    tags: list[str] = []


@dataclass(eq=False)
class ScriptedWork:
    """One piece of work as it exists outside: it goes on whether anybody reads or not."""

    name: str
    installation: str
    request: ExecutionRequest
    script: Script
    identity: str
    logs: dict[LogStream, bytearray] = field(default_factory=dict)
    result: ExecutionResult | None = None
    told_to_end: bool = False
    child: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None

    @property
    def attempt(self) -> AttemptId:
        """The attempt that the work is for."""
        return self.request.id

    def write(self, stream: LogStream, data: bytes) -> None:
        """Put something out."""
        if data:
            self.logs.setdefault(stream, bytearray()).extend(data)
            self._announce()

    def finish(self, result: ExecutionResult) -> None:
        """End, once."""
        if self.result is None:
            self.result = result
            self.child = False
            self._announce()

    def unread(self, offsets: dict[LogStream, int]) -> LogChunk | None:
        """Give the next bytes behind the offsets and move those on."""
        for stream, data in self.logs.items():
            offset = offsets.get(stream, 0)
            if offset < len(data):
                chunk = bytes(data[offset : offset + _CHUNK_BYTES])
                offsets[stream] = offset + len(chunk)
                return LogChunk(stream, offset, chunk)
        return None

    def _announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class World:
    """Where scripted work lives. Shared by instances before and after a restart, and by installations.

    With `keeps_deadlines`, work is ended at its deadline; without, that is left to whoever asked for it.
    """

    def __init__(self, clock: Clock | None = None, *, keeps_deadlines: bool = False) -> None:
        self.clock: Clock = clock or ManualClock()
        self.keeps_deadlines = keeps_deadlines
        self.works: dict[str, ScriptedWork] = {}
        self.begun: Counter[str] = Counter()
        self.calls: list[tuple[str, ExecutionRequest | CleanupScope | None]] = []
        self.health = Health.UP
        self.health_hangs = False
        self.reachable = True
        self.shown: list[str] = []  # what others can read while work runs
        self.kept: list[str] = []  # what stays when it is gone
        self._gates: dict[str, asyncio.Event] = {}
        self._tries: Counter[str] = Counter()

    def open(self, gate: str) -> None:
        """Let work that waits at the gate go on, now and later."""
        self._gates.setdefault(gate, asyncio.Event()).set()

    def alive(self, mark: str) -> bool:
        """Say whether anything of the marked work is still there."""
        marked = [work for work in self.works.values() if work.script.mark == mark]
        return any(work.result is None or work.child for work in marked)

    def told_to_end(self, mark: str) -> bool:
        """Say whether the marked work was asked to end before it was killed."""
        return any(work.script.mark == mark and work.told_to_end for work in self.works.values())

    def lose(self, name: str) -> None:
        """Let work vanish without a trace, as with the machine that it ran on."""
        work = self.works.pop(name)
        if work.task is not None:
            work.task.cancel()
        work.finish(_failed(ErrorClass.LOST, f"{name} is no longer there"))

    def start(self, name: str, installation: str, request: ExecutionRequest, script: Script) -> ScriptedWork:
        """Begin new work."""
        identity = f"work-{len(self.calls)}"
        work = ScriptedWork(name, installation, request, script, identity, child=script.child)
        self.works[name] = work
        work.task = asyncio.create_task(self._timed(work), name=name)
        return work

    async def end(self, work: ScriptedWork, grace: timedelta) -> None:
        """Ask the work to end; kill it when the grace is over."""
        if work.result is not None:
            return
        work.told_to_end = True
        if work.script.ignores_term:
            await self.clock.sleep(grace)
        if work.task is not None:
            work.task.cancel()
        work.finish(_failed(ErrorClass.CANCELLED, "ended on request"))

    def connect(self, name: str, script: Script) -> None:
        """Reach the runtime, or not."""
        self._tries[name] += 1
        if not self.reachable or self._tries[name] <= script.unavailable:
            raise RuntimeUnavailable("the scripted runtime cannot be reached", hint="the script wants it so")

    def interrupts(self, name: str, script: Script) -> bool:
        """Say whether this stream loses its connection."""
        return self._tries[name] <= script.unavailable + script.interrupted

    async def close(self) -> None:
        """End all work at once."""
        tasks = [work.task for work in self.works.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _timed(self, work: ScriptedWork) -> None:
        deadline = work.request.deadline
        if deadline is None or not self.keeps_deadlines:
            await self._run(work)
            return
        try:
            async with asyncio.timeout((deadline - self.clock.now()).total_seconds()):
                await self._run(work)
        except TimeoutError:
            work.finish(_failed(ErrorClass.TIMEOUT, "over its deadline"))

    async def _run(self, work: ScriptedWork) -> None:
        script = work.script
        once = script.stdout.encode() + base64.b64decode(script.stdout_base64)
        work.write(LogStream.STDOUT, once * script.stdout_times)
        work.write(LogStream.STDERR, script.stderr.encode())
        if script.mark:
            self.begun[script.mark] += 1
        limit = work.request.requirements.memory
        if limit is not None and script.memory_bytes > limit:
            work.finish(_failed(ErrorClass.OOM, "used more memory than its limit"))
            return
        if script.gate:
            await self._gates.setdefault(script.gate, asyncio.Event()).wait()
        work.write(LogStream.STDOUT, script.stdout_after.encode())
        if script.delay_s:
            await self.clock.sleep(timedelta(seconds=script.delay_s))
        if script.lost:
            self.lose(work.name)
        work.finish(_result(script, work.request))


class ScriptedRuntime:
    """An instance: stateless, all it knows is in the world."""

    def __init__(
        self, world: World, installation: str = "test-installation", config: ScriptedConfig | None = None
    ) -> None:
        self.world = world
        self._installation = installation
        self._config = config or ScriptedConfig()

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Do what the parameters say, or adopt the work that does."""
        self.world.calls.append(("execute", request))
        try:
            script = Script.model_validate(dict(request.parameters))
        except ValidationError as error:
            wrong = ", ".join(".".join(map(str, each["loc"])) for each in error.errors())
            yield Finished(_failed(ErrorClass.INPUT, f"parameters are not right: {wrong}"))
            return
        if request.kind not in self._config.kinds:
            yield Finished(_failed(ErrorClass.INPUT, f"a {request.kind.value} step cannot run here"))
            return
        name = external_name(self._installation, request.id)
        self.world.connect(name, script)
        work = self.world.works.get(name)
        adopted = work is not None
        if request.handle is not None and (work is None or work.identity != request.handle.identity):
            yield Finished(_failed(ErrorClass.LOST, f"{name} is no longer there"))
            return
        work = work or self.world.start(name, self._installation, request, script)
        yield Submitted(Handle(1, name, work.identity), adopted=adopted)
        if self.world.interrupts(name, script):
            raise RuntimeUnavailable("the connection to the scripted runtime was lost")
        async for event in _reported(work, dict(request.log_offsets)):
            yield event
        if script.late:
            yield LogChunk(LogStream.STDOUT, 0, b"late")

    async def health(self) -> HealthStatus:
        """Say what the world says, or nothing at all."""
        self.world.calls.append(("health", None))
        if self.world.health_hangs:
            await asyncio.Event().wait()
        reason = f"the script says {self.world.health.value}"
        return HealthStatus(state=self.world.health, reason=reason, checked_at=self.world.clock.now())

    async def capabilities(self) -> Capabilities:
        """Say what the configuration says."""
        self.world.calls.append(("capabilities", None))
        return Capabilities(step_kinds=frozenset(self._config.kinds), tags=frozenset(self._config.tags))

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End or list scripted work."""
        self.world.calls.append(("cleanup", scope))
        match scope:
            case AttemptScope():
                name = external_name(self._installation, scope.id)
                return await self._end([name], scope.grace)
            case ExecutionScope():
                works = [each for each in self._own() if each.attempt.execution == scope.execution]
                return await self._end([each.name for each in works], scope.grace)
            case Survey():
                found = {
                    each.name: each.attempt
                    for each in self.world.works.values()
                    if each.result is None and each.installation == scope.installation
                }
                return CleanupReport(pending=frozenset(found), attempts=found)
            case _:
                assert_never(scope)

    def _own(self) -> list[ScriptedWork]:
        return [each for each in self.world.works.values() if each.installation == self._installation]

    async def _end(self, names: list[str], grace: timedelta) -> CleanupReport:
        known = [self.world.works[name] for name in names if name in self.world.works]
        await asyncio.gather(*(self.world.end(work, grace) for work in known))
        return CleanupReport(gone=frozenset(names))


def scripted_plugin(world: World, kind: str = "scripted") -> RuntimePlugin:
    """Make a plug-in whose instances share the world."""

    def create(_name: str, config: ScriptedConfig, context: RuntimeContext) -> ScriptedRuntime:
        return ScriptedRuntime(world, context.installation, config)

    parameters: Mapping[StepKind, type[BaseModel]] = dict.fromkeys(StepKind, Script)
    return RuntimePlugin(kind=kind, create=create, config=ScriptedConfig, parameters=parameters)


async def _reported(work: ScriptedWork, offsets: dict[LogStream, int]) -> AsyncGenerator[ExecutionEvent, None]:
    for name, value in work.script.metrics.items():
        yield MetricSample(name, value, "")
    for fraction in work.script.progress:
        yield Progress(fraction, "scripted")
    while True:
        changed = work.changed  # taken before looking, so that no change is missed
        chunk = work.unread(offsets)
        if chunk is not None:
            yield chunk
        elif work.result is not None:
            yield Finished(work.result)
            return
        else:
            await changed.wait()


def _result(script: Script, request: ExecutionRequest) -> ExecutionResult:
    if script.fail is not None:
        return _failed(script.fail, script.message)
    if script.signal:
        return _failed(ErrorClass.USER, f"killed by {script.signal}", name=script.signal)
    if script.exit_code:
        return _failed(ErrorClass.USER, f"ended with exit code {script.exit_code}", name=f"exit {script.exit_code}")
    return ExecutionResult(outcome=Succeeded(_output(script, request)), usage=Usage(cpu_s=script.cpu_s))


def _output(script: Script, request: ExecutionRequest) -> JSON:
    if script.tells_env:
        value = request.env.get(script.tells_env)
        return {"hex": None if value is None else value.encode().hex()}
    if script.tells_file:
        return {"hex": (request.folder / script.tells_file).read_bytes().hex()}
    if script.carried:
        return {"length": len(script.carried)}
    return "x" * script.output_bytes if script.output_bytes else script.output


def _failed(error_class: ErrorClass, message: str, name: str = "") -> ExecutionResult:
    return ExecutionResult(outcome=Failed(Failure(message=message, error_class=error_class, name=name)))
