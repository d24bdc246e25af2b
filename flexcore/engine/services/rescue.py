"""Takes over the executions of dead owners, and goes on with them as if nothing had happened."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from flexcore.engine.live import Live
from flexcore.engine.loop import Engine
from flexcore.engine.ports import Definitions
from flexcore.model.changes import ExecutionAccepted
from flexcore.model.errors import Conflict, FlexCoreError
from flexcore.model.ids import ExecutionId
from flexcore.store.write import Journal, OpenExecution, Ownership

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class RescueService:
    """Looks for dead owners. A live neighbour's work is never touched: the lock it holds says that it lives."""

    engine: Engine
    journal: Journal
    ownership: Ownership
    definitions: Definitions
    ready: Callable[[], Awaitable[None]]  # awaited before anything is adopted: placement must know the runtimes
    interval: timedelta = timedelta(seconds=2)

    async def run_once(self) -> Sequence[ExecutionId]:
        """Take over everything that has no living owner; name it."""
        return await self.rescue(None)

    async def rescue(self, only: ExecutionId | None) -> Sequence[ExecutionId]:
        """Take over everything, or just one execution, from dead owners; name what was taken."""
        taken: list[ExecutionId] = []
        for dead in await self.ownership.dead():
            try:
                taken += await self.ownership.take_over(dead, only)
            except Conflict:
                continue  # somebody else was faster, or it was not dead after all
        if taken:
            await self.ready()
            await self._adopt(set(taken))
        return taken

    async def _adopt(self, taken: set[ExecutionId]) -> None:
        found: list[Live] = []
        async for execution in self.journal.open_executions():
            if execution.id in taken and (live := await self._adopted(execution)) is not None:
                found.append(live)
        # All of them first: a parent looks for its child in memory.
        for live in found:
            self.engine.take_up(live)

    async def _adopted(self, execution: OpenExecution) -> Live | None:
        accepted = execution.history[0].change
        assert isinstance(accepted, ExecutionAccepted)
        try:
            loaded = await self.definitions.load(accepted.workspace, accepted.workflow, accepted.version)
        except FlexCoreError as error:
            _log.error("execution.cannot_be_resumed", execution=execution.id, reason=error.message)
            return None
        return self.engine.adopt(execution.id, execution.history, loaded)
