"""Starting executions: checks the input, pins versions, honours idempotency keys, and hands over to the engine."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from flexcore.control.definitions import Definitions
from flexcore.control.planning import Planner
from flexcore.engine.fork import Fork, must_have_ended, reused_steps
from flexcore.engine.loop import Engine
from flexcore.engine.ports import Loaded
from flexcore.engine.work import Start
from flexcore.language.completion import complete_input
from flexcore.model.changes import ExecutionAccepted, StepReused
from flexcore.model.errors import AlreadyExists, InvalidRequest, LimitExceeded, NotFound
from flexcore.model.execution import ExecutionState, Given
from flexcore.model.graph import Graph
from flexcore.model.ids import ExecutionId, new_id
from flexcore.model.requests import RetryRequest, Started, StartRequest
from flexcore.model.values import JSON, Payload, canonical, digest
from flexcore.model.workflow import SubWorkflow
from flexcore.store.read import Reader
from flexcore.store.retention import KeptArtifacts
from flexcore.store.write import IdempotencyKey

MOST_INPUT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Everything that happens before an execution is accepted."""

    engine: Engine
    definitions: Definitions
    reader: Reader
    artifacts: KeptArtifacts
    planner: Planner
    inline_bytes: int
    now: Callable[[], datetime]
    entropy: Callable[[], bytes]

    async def start(self, request: StartRequest) -> Started:
        """Accept an execution: durable on return. The same key with the same request gives the same execution."""
        asked = (request.workflow, request.version, request.input, request.runtime)
        key = _key(request.workspace, request.workflow, request.idempotency_key, asked)
        known = await self._known(key)
        if known is not None:
            return known
        version = await self.definitions.resolved(request.workspace, request.workflow, request.version)
        loaded = await self.definitions.load(request.workspace, request.workflow, version)
        await self.planner.ready()
        if request.runtime is not None:
            self.planner.must_be_of_use(loaded, request.runtime)
        value = complete_input(loaded.graph.workflow.inputs, request.input)
        timeout = request.timeout or loaded.graph.workflow.timeout
        accepted = ExecutionAccepted(
            workflow=request.workflow,
            version=version,
            workspace=request.workspace,
            input=await self._payload(value),
            labels={**loaded.graph.workflow.labels, **request.labels},
            pinned_runtime=request.runtime,
            pinned_versions=await self._pinned(request.workspace, loaded.graph),
            expires_at=None if timeout is None else self.now() + timeout,
        )
        return await self._accepted(Start(accepted=accepted), key, loaded)

    async def retry(self, before: ExecutionState, request: RetryRequest, actor: str) -> Started:
        """Start a new execution, linked to a finished one: with its input, and its results above a step."""
        _must_make_sense(request)
        header = before.header
        asked = (header.id, request.from_step, request.everything, request.newest, request.results, request.reason)
        key = _key(header.workspace, header.workflow, request.idempotency_key, asked)
        known = await self._known(key)
        if known is not None:
            return known
        must_have_ended(before)
        version = await self.definitions.newest(header.workspace, header.workflow) if request.newest else header.version
        loaded = await self.definitions.load(header.workspace, header.workflow, version)
        await self.planner.ready()
        limit = _time_limit(before)
        accepted = ExecutionAccepted(
            workflow=header.workflow,
            version=version,
            workspace=header.workspace,
            input=await self._input_for(loaded.graph, before) if request.newest else header.input,
            labels=header.labels,
            pinned_runtime=header.pinned_runtime,
            pinned_versions=await self._pinned(header.workspace, loaded.graph)
            if request.newest
            else header.pinned_versions,
            forked_from=header.id,
            expires_at=None if limit is None else self.now() + limit,
        )
        start = Start(accepted=accepted, reused=await self._reused(loaded.graph, before, request, actor))
        # The execution that they come from may be removed at this very moment.
        shared = [header.input.ref, *(each.result.ref for each in start.reused)]
        shared += [ref for each in start.reused for ref in each.artifacts]
        await self.artifacts.keep(ref for ref in shared if ref is not None)
        return await self._accepted(start, key, loaded)

    async def _accepted(self, start: Start, key: IdempotencyKey | None, loaded: Loaded) -> Started:
        try:
            live = await self.engine.start(self._id(), start, key, loaded)
        except AlreadyExists:
            known = await self._known(key)  # somebody used the key at the same moment
            if known is None:
                raise
            return known
        return Started(live.id)

    async def _input_for(self, graph: Graph, before: ExecutionState) -> Payload:
        """Hold an earlier input against what a newer version asks for."""
        given = before.header.input
        value = given.value if given.ref is None else msgspec.json.decode(await self.artifacts.get(given.ref))
        return await self._payload(complete_input(graph.workflow.inputs, value))

    async def _reused(
        self, graph: Graph, before: ExecutionState, request: RetryRequest, actor: str
    ) -> tuple[StepReused, ...]:
        if request.everything:
            return ()
        results = {path: await self._payload(value) for path, value in request.results.items()}
        given = Given(by=actor, reason=request.reason) if results else None
        return reused_steps(graph, before, Fork(from_step=request.from_step, results=results, given=given))

    def _id(self) -> ExecutionId:
        return ExecutionId(new_id("exe", int(self.now().timestamp() * 1000), self.entropy()))

    async def _known(self, key: IdempotencyKey | None) -> Started | None:
        found = None if key is None else await self.reader.started_with(key.workspace, key.workflow, key.key)
        if key is None or found is None:
            return None
        id, fingerprint = found
        if fingerprint != key.fingerprint:
            raise AlreadyExists(
                f"idempotency key '{key.key}' was used for another request: execution {id}",
                hint="the same key stands for the same request, with the same input or results",
            )
        return Started(id, existing=True)

    async def _pinned(self, workspace: str, graph: Graph) -> dict[str, str]:
        """Fix the versions of sub-workflows, theirs included, as they are now. A missing one fails its step."""
        found: dict[str, str] = {}
        todo = [graph]
        while todo:
            for step in todo.pop().steps.values():
                action = step.action
                if isinstance(action, SubWorkflow) and action.name not in found:
                    try:
                        found[action.name] = await self.definitions.newest(workspace, action.name)
                    except NotFound:
                        continue
                    todo.append((await self.definitions.load(workspace, action.name, found[action.name])).graph)
        return found

    async def _payload(self, value: JSON) -> Payload:
        data = canonical(value)
        if len(data) > MOST_INPUT_BYTES:
            raise LimitExceeded("the input is too large", limit=MOST_INPUT_BYTES, actual=len(data))
        return Payload(value) if len(data) <= self.inline_bytes else Payload(ref=await self.artifacts.put(data))


def _must_make_sense(request: RetryRequest) -> None:
    """Refuse what excludes each other. Raises InvalidRequest."""
    if request.everything and (request.from_step is not None or request.results):
        raise InvalidRequest(
            "running everything again uses no result: neither a step to begin from nor given results go with it",
            hint="leave one of them out",
        )
    if request.newest and not request.everything:
        raise InvalidRequest(
            "the results of one version do not fit another",
            hint="the newest version goes with running everything again",
        )
    if request.results and not request.reason.strip():
        raise InvalidRequest("a result given by hand needs a reason", hint="say why, for those who read it later")
    if request.reason and not request.results:
        raise InvalidRequest("a reason goes with a result that is given by hand", hint="give one, or no reason")


def _time_limit(before: ExecutionState) -> timedelta | None:
    """Work out the time limit that an execution was started with: the request's own, or the workflow's."""
    header = before.header
    if header.expires_at is None or header.created_at is None:
        return None
    return header.expires_at - header.created_at


def _key(workspace: str, workflow: str, key: str | None, asked: Sequence[object]) -> IdempotencyKey | None:
    if key is None:
        return None
    fingerprint = digest(canonical(msgspec.to_builtins(list(asked))))
    return IdempotencyKey(workspace=workspace, workflow=workflow, key=key, fingerprint=fingerprint)
