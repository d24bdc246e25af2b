"""Takes over the executions of dead owners, and goes on with them as if nothing had happened."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from flexcore.engine.live import Live
from flexcore.engine.loop import Engine
from flexcore.engine.ports import Definitions
from flexcore.engine.services.commands import CommandService
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
    commands: CommandService
    ready: Callable[[], Awaitable[None]]  # awaited before anything is adopted: placement must know the runtimes
    interval: timedelta = timedelta(seconds=2)

    async def run_once(self) -> Sequence[ExecutionId]:
        """Take over everything that has no living owner; name it."""
        return await self.rescue(None)

    async def rescue(self, only: ExecutionId | None) -> Sequence[ExecutionId]:
        """Take over everything, or one execution with its sub-executions, from dead owners; name what was taken."""
        found: list[Live] = []
        wanted = [only]
        while wanted:
            lives = await self._adopt(await self._take(wanted.pop()))
            found += lives
            wanted += [child for live in lives for child in _open_children(live) if child not in self.engine.live]
        # All of them first: a parent looks for its children in memory.
        for live in found:
            self.engine.take_up(live)
        if found:
            await self.commands.deliver()
        return [live.id for live in found]

    async def _take(self, only: ExecutionId | None) -> set[ExecutionId]:
        taken: set[ExecutionId] = set()
        for dead in await self.ownership.dead():
            try:
                taken.update(await self.ownership.take_over(dead, only))
            except Conflict:
                continue  # somebody else was faster, or it was not dead after all
        return taken

    async def _adopt(self, taken: set[ExecutionId]) -> list[Live]:
        if not taken:
            return []
        await self.ready()
        open_executions = [each async for each in self.journal.open_executions(tuple(taken))]
        adopted = [await self._adopted(each) for each in open_executions]
        return [live for live in adopted if live is not None]

    async def _adopted(self, execution: OpenExecution) -> Live | None:
        accepted = execution.history[0].change
        assert isinstance(accepted, ExecutionAccepted)
        try:
            loaded = await self.definitions.load(accepted.workspace, accepted.workflow, accepted.version)
        except FlexCoreError as error:
            _log.error("execution.cannot_be_resumed", execution=execution.id, reason=error.message)
            return None
        return self.engine.adopt(execution.id, execution.history, loaded)


def _open_children(live: Live) -> list[ExecutionId]:
    steps = live.state.steps.values()
    return [step.child for step in steps if step.child is not None and not step.status.is_terminal]
