"""Runtimes that stand in for the real ones: placement and validation see them, and mocks answer for what they run.

What a kind of runtime can run is read off its plug-in, which is loaded and never started; one that is not installed
is taken to run everything. Nothing here ends by itself: whoever holds the `Stage` decides when each attempt ends.
"""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

from pydantic import BaseModel

from flexcore.analyzer.place import StepView, place
from flexcore.analyzer.snapshot import Candidate, Snapshot
from flexcore.model.errors import NotFound
from flexcore.model.execution import Handle, Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, external_name
from flexcore.model.placement import Placement
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
    Failed,
    Finished,
    Health,
    HealthStatus,
    Submitted,
    Succeeded,
)
from flexcore.runtime.registry import Registry, RuntimeSettings, installed_plugins
from flexcore.testing.factories import runtime_context
from flexcore.testing.workflow.homes import HOMES
from flexcore.testing.workflow.scenario import Reply, Scenario

CHILD_RUNTIME = "mocked"  # runs the one step of a sub-workflow that is mocked as a whole

_ENDED = ExecutionResult(outcome=Failed(Failure(message="ended on request", error_class=ErrorClass.CANCELLED)))


@dataclass(slots=True)
class Kinds:
    """What is known of types of runtime without starting any. `types` has the type of instances by name."""

    types: Mapping[str, str] = field(default_factory=dict)
    _registry: Registry | None = None

    def type_of(self, name: str) -> str:
        """Give the type of an instance: as configured, else its own name."""
        return self.types.get(name, name)

    def step_kinds(self, name: str) -> frozenset[StepKind]:
        """Say what an instance can run; everything, when nobody knows, but what is for another type alone."""
        type_ = self.type_of(name)
        models = self._parameters(type_)
        if models is not None:
            return frozenset(models)
        others = {kind for kind, home in HOMES.items() if type_ in HOMES.values() and home != type_}
        return frozenset(StepKind) - others

    def schemas(self) -> dict[StepKind, Mapping[str, JSON]]:
        """Give the JSON Schema of `with` for the kinds of step that an installed plug-in describes."""
        found: dict[StepKind, list[dict[str, JSON]]] = {}
        for name in installed_plugins():
            for kind, model in (self._parameters(name) or {}).items():
                found.setdefault(kind, []).append(model.model_json_schema())
        return {kind: each[0] if len(each) == 1 else {"anyOf": each} for kind, each in found.items()}

    def validate(self, kind: StepKind, parameters: Mapping[str, JSON], name: str) -> Mapping[str, JSON] | Failure:
        """Check a step's resolved `with` as the real runtime would, where its plug-in is there."""
        type_ = self.type_of(name)
        if self._parameters(type_) is None:
            return parameters
        return self._plugins().validate(kind, parameters, type_)

    def _parameters(self, type_: str) -> Mapping[StepKind, type[BaseModel]] | None:
        try:
            return self._plugins().plugin(type_).parameters
        except NotFound:
            return None

    def _plugins(self) -> Registry:
        if self._registry is None:
            # Asked for plug-ins only: no instance is ever made, so nothing is written to the folder.
            settings = [RuntimeSettings(name=each, type=each) for each in installed_plugins()]
            self._registry = Registry(settings, runtime_context(Path()))
        return self._registry


def placement_among(names: Iterable[str], scenario: Scenario, kinds: Kinds) -> Callable[[StepView], Placement]:
    """Give the real placement, over the runtimes of a test."""
    snapshot = Snapshot(tuple(_candidate(each, scenario, kinds) for each in names))
    child = Snapshot((_candidate(CHILD_RUNTIME, scenario, Kinds()),))
    return lambda step: place(step, child if step.pin == CHILD_RUNTIME else snapshot)


def _candidate(name: str, scenario: Scenario, kinds: Kinds) -> Candidate:
    type_ = kinds.type_of(name)
    health = scenario.health.get(name, Health.UP)
    return Candidate(
        name=name,
        kind=type_,
        priority=RuntimeSettings(name=name, type=type_).rank,
        capabilities=Capabilities(step_kinds=kinds.step_kinds(name)),
        health=HealthStatus(state=health, reason="the test says so", checked_at=scenario.start),
    )


@dataclass(slots=True, eq=False)
class Waiting:
    """An attempt on the stage: it ends with `reply` at `due`, unless it is ended before."""

    due: datetime
    reply: Reply
    ended: asyncio.Future[bool]  # true: by its own reply; false: on request

    def end(self, *, by_itself: bool) -> None:
        """Let it end, once."""
        if not self.ended.done():
            self.ended.set_result(by_itself)


@dataclass(slots=True, kw_only=True)
class Stage:
    """Where mocked attempts wait for their end. `submitted` is called when one is about to take time."""

    reply: Callable[[ExecutionRequest], Reply]
    kinds: Kinds
    now: Callable[[], datetime]
    changed: Callable[[], None]
    submitted: Callable[[ExecutionId], None]
    waiting: dict[AttemptId, Waiting] = field(default_factory=dict)

    def get(self, name: str) -> "StandIn":
        """Give the runtime of a name."""
        return StandIn(name, self)

    def validate(self, kind: StepKind, parameters: Mapping[str, JSON], runtime: str) -> Mapping[str, JSON] | Failure:
        """Check resolved parameters by the model of the runtime that is stood in for."""
        return parameters if runtime == CHILD_RUNTIME else self.kinds.validate(kind, parameters, runtime)

    def enter(self, id: AttemptId, reply: Reply) -> Waiting:
        """Put an attempt on the stage."""
        ended = asyncio.get_running_loop().create_future()
        self.waiting[id] = waiting = Waiting(self.now() + reply.takes, reply, ended)
        self.changed()
        return waiting

    def release(self, id: AttemptId, *, by_itself: bool) -> None:
        """Let an attempt end; nothing when it has."""
        if (waiting := self.waiting.pop(id, None)) is not None:
            waiting.end(by_itself=by_itself)


@dataclass(frozen=True, slots=True)
class StandIn:
    """A runtime that runs nothing."""

    name: str
    stage: Stage

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Give the mock's reply when its time has come."""
        reply = self.stage.reply(request)
        if reply.takes:
            name = external_name("test", request.id)
            yield Submitted(Handle(1, name, str(request.token), transient=True))
            # Durable before time moves on, because the step's time limit runs from here.
            self.stage.submitted(request.id.execution)
        by_itself = await self.stage.enter(request.id, reply).ended
        yield Finished(_result(reply) if by_itself else _ENDED)

    async def health(self) -> HealthStatus:
        """Say that it is up; placement asks the test instead."""
        return HealthStatus(state=Health.UP, reason="it is a stand-in", checked_at=self.stage.now())

    async def capabilities(self) -> Capabilities:
        """Say what the real one can run."""
        return Capabilities(step_kinds=self.stage.kinds.step_kinds(self.name))

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End an attempt, at once."""
        if isinstance(scope, AttemptScope):
            self.stage.release(scope.id, by_itself=False)
            return CleanupReport(gone=frozenset({external_name("test", scope.id)}))
        return CleanupReport()


def _result(reply: Reply) -> ExecutionResult:
    outcome = Succeeded(reply.result) if reply.failure is None else Failed(reply.failure)
    phases: dict[Phase, timedelta] = {Phase.RUN: reply.takes}
    return ExecutionResult(outcome=outcome, phases=phases)
