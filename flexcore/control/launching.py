"""Starting executions: checks the input, pins versions, honours idempotency keys, and hands over to the engine."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec

from flexcore.control.definitions import Definitions
from flexcore.control.planning import Planner
from flexcore.engine.fork import must_have_ended, reused_steps
from flexcore.engine.loop import Engine
from flexcore.engine.work import Start
from flexcore.language.completion import complete_input
from flexcore.model.changes import ExecutionAccepted
from flexcore.model.errors import AlreadyExists, LimitExceeded, NotFound
from flexcore.model.execution import ExecutionState
from flexcore.model.graph import Graph
from flexcore.model.ids import ExecutionId, new_id
from flexcore.model.requests import Started, StartRequest
from flexcore.model.values import JSON, Payload, canonical, digest
from flexcore.model.workflow import SubWorkflow
from flexcore.runtime.plugin import ArtifactStore
from flexcore.store.read import Reader
from flexcore.store.write import IdempotencyKey

MOST_INPUT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Launcher:
    """Everything that happens before an execution is accepted."""

    engine: Engine
    definitions: Definitions
    reader: Reader
    artifacts: ArtifactStore
    planner: Planner
    inline_bytes: int
    now: Callable[[], datetime]
    entropy: Callable[[], bytes]

    async def start(self, request: StartRequest) -> Started:
        """Accept an execution: durable on return. The same key with the same request gives the same execution."""
        key = None if request.idempotency_key is None else _key(request, request.idempotency_key)
        known = await self._known(key)
        if known is not None:
            return known
        version = request.version or await self.definitions.newest(request.workspace, request.workflow)
        loaded = await self.definitions.load(request.workspace, request.workflow, version)
        await self.planner.ready()
        if request.runtime is not None:
            self.planner.must_be_of_use(loaded.graph, request.runtime)
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
        try:
            live = await self.engine.start(self._id(), Start(accepted=accepted), key, loaded)
        except AlreadyExists:
            known = await self._known(key)  # somebody used the key at the same moment
            if known is None:
                raise
            return known
        return Started(live.id)

    async def retry(self, before: ExecutionState, from_step: str | None) -> Started:
        """Start a new execution, linked to a finished one, that reuses its results above a step."""
        must_have_ended(before)
        header = before.header
        loaded = await self.definitions.load(header.workspace, header.workflow, header.version)
        await self.planner.ready()
        limit = _time_limit(before)
        accepted = ExecutionAccepted(
            workflow=header.workflow,
            version=header.version,
            workspace=header.workspace,
            input=header.input,
            labels=header.labels,
            pinned_runtime=header.pinned_runtime,
            pinned_versions=header.pinned_versions,
            forked_from=header.id,
            expires_at=None if limit is None else self.now() + limit,
        )
        start = Start(accepted=accepted, reused=reused_steps(loaded.graph, before, from_step))
        return Started((await self.engine.start(self._id(), start, loaded=loaded)).id)

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
                hint="the same key stands for the same workflow, version, input and runtime",
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


def _time_limit(before: ExecutionState) -> timedelta | None:
    """Work out the time limit that an execution was started with: the request's own, or the workflow's."""
    header = before.header
    if header.expires_at is None or header.created_at is None:
        return None
    return header.expires_at - header.created_at


def _key(request: StartRequest, key: str) -> IdempotencyKey:
    asked = msgspec.to_builtins([request.workflow, request.version, request.input, request.runtime])
    return IdempotencyKey(
        workspace=request.workspace, workflow=request.workflow, key=key, fingerprint=digest(canonical(asked))
    )
