"""Plays one test: the real engine on a store of its own, with mocked tasks, from an execution's start to its end."""

import asyncio
import random
import tempfile
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path

import msgspec

from flexcore.engine.attempts import Driver
from flexcore.engine.live import Live
from flexcore.engine.loop import Engine, EngineParts
from flexcore.engine.ports import Evaluator, Loaded
from flexcore.engine.work import Start, StartChild, TimerFired
from flexcore.language.completion import complete_input
from flexcore.language.native import parse
from flexcore.model import changes as c
from flexcore.model.changes import HistoryEntry
from flexcore.model.errors import InvalidInput, NotFound
from flexcore.model.execution import ExecutionState, StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import build
from flexcore.model.ids import ExecutionId, StepPath, new_id
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.template import Literal
from flexcore.model.values import JSON, Payload, canonical
from flexcore.runtime.interface import ExecutionEvent, ExecutionRequest
from flexcore.store.database import SqliteOptions
from flexcore.store.sqlite import Parts, Store, open_store
from flexcore.testing.clock import ManualClock
from flexcore.testing.workflow.program import VERSION, Program
from flexcore.testing.workflow.scenario import Reply, Scenario
from flexcore.testing.workflow.stand_ins import CHILD_RUNTIME, Kinds, Stage, placement_among
from flexcore.testing.workflow.time_flow import Stuck, TimeFlow

_INLINE_BYTES = 256 * 1024
_MOCKED_CHILD = "mocked"
_MOCKED_WORKFLOW = f"""
name: {_MOCKED_CHILD}
steps: [{{id: mocked, type: function, runtime: {CHILD_RUNTIME}, with: {{name: "mocked:mocked"}}}}]
output: ${{{{ results.mocked }}}}
"""
_RAN = (c.StepSucceeded, c.StepFailed, c.StepCancelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedStep:
    """A step as it was when all was over. `parameters` has references in place of secrets."""

    path: str
    state: StepState
    result: JSON
    parameters: JSON

    @property
    def duration(self) -> timedelta | None:
        """How long it took from its turn to its end, in virtual time."""
        begun, ended = self.state.created_at, self.state.finished_at
        return ended - begun if begun is not None and ended is not None else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """What a test came to. `problems` are those of the test itself: a mock that is missing, no end in sight."""

    status: ExecutionStatus
    output: JSON = None
    failure: Failure | None = None
    duration: timedelta = timedelta(0)
    path: tuple[str, ...] = ()
    steps: Mapping[str, PlayedStep] = field(default_factory=dict)
    problems: tuple[str, ...] = ()


class Definitions:
    """The versions under test, with the environment that a test sets."""

    def __init__(self, program: Program, env: Mapping[str, str]) -> None:
        self._workflows = {
            **program.workflows,
            program.name: _with_environment(program.workflows[program.name], env),
            # No workflow of a user has this name: it cannot begin with an underscore.
            f"_{_MOCKED_CHILD}": Loaded(graph=build(parse(_MOCKED_WORKFLOW, "mocked")), folder=Path()),
        }

    async def load(self, workspace: str, name: str, version: str) -> Loaded:
        """Give a version. Raises NotFound."""
        if name not in self._workflows:
            message = f"workflow '{name}' is not beside the workflow under test"
            raise NotFound(message, hint=f"put it there as {name}.yaml, or mock the step that starts it")
        return self._workflows[name]

    async def newest(self, workspace: str, name: str) -> str:
        """Give the only version. Raises NotFound."""
        await self.load(workspace, name, VERSION)
        return VERSION


class _Secrets:
    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def get(self, name: str) -> str:
        if name not in self._values:
            raise NotFound(f"secret '{name}' is not given in the test", hint=f"add `secrets: {{{name}: …}}` to it")
        return self._values[name]


class _Engine(Engine):
    """Starts a stand-in in place of a sub-workflow whose step has a mock."""

    def __init__(self, parts: EngineParts, cast: "Cast") -> None:
        super().__init__(parts)
        self._cast = cast

    async def ensure_child(self, live: Live, action: StartChild) -> Live | ExecutionState:
        if self._cast.mocks_child(live.id, action.path):
            action = replace(action, workflow=f"_{_MOCKED_CHILD}")
        return await super().ensure_child(live, action)


@dataclass(slots=True)
class Cast:
    """Who says what: finds the mock for an attempt, and remembers which were used and which were missing.

    Also the engine's observer, because it has to know which execution belongs to which step.
    """

    scenario: Scenario
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    states: dict[ExecutionId, ExecutionState] = field(default_factory=dict)
    prefixes: dict[ExecutionId, str] = field(default_factory=dict)
    path: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    missing: dict[str, str] = field(default_factory=dict)

    def committed(self, state: ExecutionState, entries: Sequence[HistoryEntry]) -> None:
        """Keep the newest state of each execution, and the order in which the steps of the first one ended."""
        header = state.header
        self.states[header.id] = state
        if header.id not in self.prefixes:
            parent = self.prefixes.get(header.parent, "") if header.parent is not None else ""
            self.prefixes[header.id] = f"{parent}{header.parent_path}." if header.parent is not None else ""
        if header.parent is None:
            self.path += [each.change.path for each in entries if isinstance(each.change, _RAN)]
        self.changed.set()

    def reported(self, execution: ExecutionId, path: StepPath, attempt: int, event: ExecutionEvent) -> None:
        """Ignore it: mocks have nothing to say but their end."""

    def mocks_child(self, execution: ExecutionId, path: StepPath) -> bool:
        """Say whether the sub-workflow of a step is mocked as a whole."""
        return self.scenario.mock_for(f"{self.prefixes[execution]}{path}") is not None

    def reply(self, request: ExecutionRequest) -> Reply:
        """Give the mock's reply for an attempt; without one, a failure that no retry repeats."""
        prefix = self.prefixes[request.id.execution]
        is_child = request.workflow == f"_{_MOCKED_CHILD}"
        path = prefix.removesuffix(".") if is_child else f"{prefix}{request.id.path}"
        mock = self.scenario.mock_for(path)
        if mock is None:
            self.missing[path] = request.kind.value
            failure = Failure(message="the test has no mock for it", error_class=ErrorClass.INPUT, name="NotMocked")
            return Reply(failure=failure)
        self.used.add(mock.address.text)
        return mock.reply(request.id.number)

    def problems(self) -> list[str]:
        """Say what is wrong with the test itself."""
        lines = [
            f"step '{path}' ({kind}) has no mock: write `mocks: {{{path}: {{result: …}}}}` to say what it gives"
            for path, kind in self.missing.items()
        ]
        unused = (each for each in self.scenario.mocks if not each.optional and each.address.text not in self.used)
        return lines + [
            f"the mock for '{each.address.text}' was never used: the step did not run; leave it out, "
            "or add `optional: true`"
            for each in unused
        ]


async def play(program: Program, scenario: Scenario, kinds: Kinds, evaluator: Evaluator) -> Played:
    """Run a scenario to its end. Nothing outside a temporary folder is touched; nothing of it is left."""
    clock = ManualClock(scenario.start)
    cast = Cast(scenario)
    try:
        value = complete_input(program.workflow.inputs, scenario.input)
    except InvalidInput as error:
        failure = Failure(message=error.message, error_class=ErrorClass.INPUT, name=error.code)
        return Played(status=ExecutionStatus.FAILED, failure=failure, problems=(error.message,))
    async with _store(clock) as store:
        time_flow = _staged(program, scenario, kinds, evaluator, store, clock, cast)
        timeout = program.workflow.timeout
        accepted = c.ExecutionAccepted(
            workflow=program.name,
            version=VERSION,
            input=await _payload(store, value),
            labels=program.workflow.labels,
            expires_at=None if timeout is None else clock.now() + timeout,
        )
        id = ExecutionId(new_id("exe", int(clock.now().timestamp() * 1000), _seeded(scenario).randbytes(10)))
        problems: list[str] = []
        try:
            await time_flow.engine.start(id, Start(accepted=accepted))
            await time_flow.until_ended(id)
        except Stuck as stuck:
            problems.append(str(stuck))
        finally:
            await time_flow.engine.close()
        return await _played(store, cast, id, problems)


@asynccontextmanager
async def _store(clock: ManualClock) -> AsyncIterator[Store]:
    with tempfile.TemporaryDirectory(prefix="flexcore-test-") as folder:
        # Nobody will ever read it again, so it need not survive a power cut.
        parts = Parts(options=SqliteOptions(synchronous="OFF"))
        store = open_store(Path(folder), now=clock.now, parts=parts)
        async with AsyncExitStack() as closing:
            closing.callback(store.close)
            await store.ownership.acquire()
            closing.push_async_callback(store.ownership.release)
            yield store


def _staged(
    program: Program,
    scenario: Scenario,
    kinds: Kinds,
    evaluator: Evaluator,
    store: Store,
    clock: ManualClock,
    cast: Cast,
) -> TimeFlow:
    def submitted(execution: ExecutionId) -> None:
        # The engine writes this down lazily, by a timer in real time; any event makes it do so now.
        engine.post(engine.live[execution], TimerFired(None))

    stage = Stage(reply=cast.reply, kinds=kinds, now=clock.now, changed=cast.changed.set, submitted=submitted)
    names = program.runtimes() if scenario.runtimes is None else scenario.runtimes
    driver = Driver(
        runtimes=stage,
        artifacts=store.artifacts,
        logs=store.logs,
        secrets=_Secrets(scenario.secrets),
        observer=cast,
        inline_bytes=_INLINE_BYTES,
        now=clock.now,
    )
    seeded = _seeded(scenario)
    parts = EngineParts(
        journal=store.journal,
        commands=store.commands,
        definitions=Definitions(program, scenario.env),
        evaluator=evaluator,
        artifacts=store.artifacts,
        driver=driver,
        observer=cast,
        place=placement_among(names, scenario, kinds),
        now=clock.now,
        entropy=lambda: seeded.randbytes(16),
    )
    engine = _Engine(parts, cast)
    return TimeFlow(engine=engine, stage=stage, clock=clock, changed=cast.changed)


def _seeded(scenario: Scenario) -> random.Random:
    """Give the same randomness for the same test: ids, and the jitter of retries."""
    return random.Random(scenario.name)  # noqa: S311  # repeatable on purpose, and no secret


def _with_environment(loaded: Loaded, env: Mapping[str, str]) -> Loaded:
    if not env:
        return loaded
    workflow = loaded.graph.workflow
    given = {name: Literal(value) for name, value in env.items()}
    return replace(loaded, graph=build(replace(workflow, env={**workflow.env, **given})))


async def _payload(store: Store, value: JSON) -> Payload:
    data = canonical(value)
    return Payload(value) if len(data) <= _INLINE_BYTES else Payload(ref=await store.artifacts.put(data))


async def _value(store: Store, payload: Payload) -> JSON:
    if payload.ref is None:
        return payload.value
    value: JSON = msgspec.json.decode(await store.artifacts.get(payload.ref))
    return value


async def _played(store: Store, cast: Cast, id: ExecutionId, problems: Sequence[str]) -> Played:
    header = cast.states[id].header
    steps: dict[str, PlayedStep] = {}
    for state in cast.states.values():
        if state.header.workflow == f"_{_MOCKED_CHILD}":
            continue
        for step in state.steps.values():
            path = f"{cast.prefixes[state.header.id]}{step.path}"
            result, parameters = await _value(store, step.result), await _value(store, step.parameters)
            steps[path] = PlayedStep(path=path, state=step, result=result, parameters=parameters)
    begun, ended = header.created_at, header.finished_at
    return Played(
        status=header.status,
        output=await _value(store, header.output),
        failure=header.failure,
        duration=ended - begun if begun is not None and ended is not None else timedelta(0),
        path=tuple(cast.path),
        steps=steps,
        problems=(*problems, *cast.problems()),
    )
