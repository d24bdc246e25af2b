"""Why a step went where it did, after the fact: the placement as stored, in sentences; what is asked of it now, anew.

What was decided is read, never decided again. Only the flips, which nobody stores, are worked out by the present
snapshot: they say what would have to change for the step to go elsewhere if it were placed now.
"""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from flexcore.analyzer.explain import explain
from flexcore.analyzer.view import Measured, Source
from flexcore.control.definitions import Definitions
from flexcore.control.planning import Planner
from flexcore.engine.viewing import references, stores_of
from flexcore.model.errors import NotFound
from flexcore.model.execution import ExecutionHeader, StepState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.placement import Placement
from flexcore.model.requests import Document
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind, Task
from flexcore.monitor import document as show
from flexcore.monitor.rows import rows
from flexcore.monitor.waiting import pools_of
from flexcore.store.read import Reader

_STEPS_NAMED = 20


@dataclass(frozen=True, slots=True)
class Explaining:
    """Explains steps of executions."""

    reader: Reader
    definitions: Definitions
    planner: Planner

    async def explain(self, id: ExecutionId, path: str, *, flips: bool = False) -> Document:
        """Say why a step went where it did, and what it waits for. Raises NotFound."""
        state = (await self.reader.execution(id)).state
        header = state.header
        graph = await self.definitions.graph(header.workspace, header.workflow, header.version)
        lines = {row.path: row for row in rows(graph, state, await self.reader.pools(pools_of(state)))}
        row = lines.get(StepPath(path))
        if row is None:
            hint = f"there are: {', '.join(list(lines)[:_STEPS_NAMED]) or 'none yet'}"
            raise NotFound(f"execution {id} has not reached a step '{path}'", hint=hint)
        placement = row.state.placement if row.state is not None else None
        found: Document = {
            "path": path,
            "status": (StepStatus.WAITING if row.state is None else row.state.status).value,
            "attempt": 0 if row.state is None else row.state.attempt,
            "placement": show.placement_document(placement),
            "sentences": _placed(row, placement),
            "waiting_for": row.waiting_for,
        }
        if flips:
            found["flips"] = [] if row.state is None else await self._flips(header, row.state)
        return found

    async def _flips(self, header: ExecutionHeader, state: StepState) -> Sequence[Mapping[str, JSON]]:
        loaded = await self.definitions.load(header.workspace, header.workflow, header.version)
        step = loaded.graph.step(state.path)
        if not isinstance(step.action, Task):
            return []
        await self.planner.refresh(in_full=True)
        view = self.planner.view(state.path, step, step.action, loaded, header.pinned_runtime)
        placement, parameters, home = state.placement, state.parameters.value, self.planner.data_store
        if placement is not None:
            view = replace(view, inputs=references(parameters, home), data_stores=stores_of(parameters, home))
        if placement is not None and placement.input_bytes is not None:
            view = replace(view, data=Measured(placement.input_bytes, Source.MEASURED))
        return await asyncio.to_thread(self.planner.flips, view)


def _placed(row: show.Row, placement: Placement | None) -> Sequence[str]:
    if placement is not None:
        return explain(placement)
    if row.state is not None and row.state.given is not None:
        given = row.state.given
        return [f"its result was given by {given.by}, and no runtime was asked: {given.reason}"]
    is_task = row.kind in {kind.value for kind in StepKind}
    return ["its turn has not come: it has not been placed"] if is_task else ["the engine does this step itself"]
