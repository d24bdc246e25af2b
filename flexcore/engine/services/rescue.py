"""Takes over the executions of dead owners, and goes on with them as if nothing had happened.

One that cannot be read is named and left as it is; it never keeps the others waiting.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from flexcore.engine.live import Live
from flexcore.engine.loop import Engine
from flexcore.engine.ports import Definitions
from flexcore.engine.services.commands import CommandService
from flexcore.model.changes import ExecutionAccepted
from flexcore.model.errors import Conflict, InternalError, Unavailable
from flexcore.model.ids import ExecutionId
from flexcore.store.write import Journal, Ownership

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
    _taken: set[ExecutionId] = field(default_factory=set)  # they are ours, and have not been adopted yet
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def run_once(self) -> Sequence[ExecutionId]:
        """Take over everything that has no living owner; name it."""
        return await self.rescue(None)

    async def rescue(self, only: ExecutionId | None) -> Sequence[ExecutionId]:
        """Take over everything, or one execution with its sub-executions, from dead owners; name what goes on.

        What was taken earlier and could not be adopted then, because the store did not answer, is tried again.
        """
        async with self._turn:  # what one caller has taken and not adopted yet, another must not adopt as well
            found: list[Live] = []
            try:
                await self._adopt_all(only, found)
            finally:
                # All of them first: a parent looks for its children in memory.
                taken_up = [live.id for live in found if self._take_up(live)]
            if taken_up:
                await self._deliver()
            return taken_up

    async def _adopt_all(self, only: ExecutionId | None, found: list[Live]) -> None:
        """Add to `found` one by one, so that whatever happens the caller knows what it has adopted."""
        wanted = [only]
        while wanted:
            await self._take(wanted.pop())
            if self._taken:
                await self.ready()
            for id in sorted(self._taken):
                if (live := await self._adopted(id)) is not None:
                    found.append(live)
                    wanted += [child for child in _open_children(live) if child not in self._taken]
            wanted = [each for each in wanted if each not in self.engine.live]

    async def _take(self, only: ExecutionId | None) -> None:
        for dead in await self.ownership.dead():
            try:
                self._taken.update(await self.ownership.take_over(dead, only))
            except Conflict:
                continue  # somebody else was faster, or it was not dead after all

    async def _adopted(self, id: ExecutionId) -> Live | None:
        """Adopt one. A place that catches everything: what is wrong with one is no matter of the others."""
        try:
            live = await self._adopt(id)
        except Unavailable as error:
            _log.warning("execution.adoption_postponed", execution=id, reason=error.message)
            return None
        except Exception as error:
            _quarantined(id, error)
            live = None
        self._taken.discard(id)
        return live

    async def _adopt(self, id: ExecutionId) -> Live:
        history = await self.journal.history(id)
        accepted = history[0].change
        if not isinstance(accepted, ExecutionAccepted):
            raise InternalError(f"the history of {id} begins with {type(accepted).__name__}")
        loaded = await self.definitions.load(accepted.workspace, accepted.workflow, accepted.version)
        return self.engine.adopt(id, history, loaded)

    def _take_up(self, live: Live) -> bool:
        """Go on with one; the other place that catches everything."""
        try:
            self.engine.take_up(live)
        except Exception as error:
            _quarantined(live.id, error)
            self.engine.live.pop(live.id, None)
            live.let_go()
            return False
        return True

    async def _deliver(self) -> None:
        try:
            await self.commands.deliver()
        except Unavailable as error:
            _log.warning("commands.postponed", reason=error.message)  # the service looks again by itself


def _quarantined(id: ExecutionId, error: Exception) -> None:
    reason = f"{type(error).__name__}: {error}"
    _log.error("execution.quarantined", execution=id, reason=reason, hint="run flexcore verify")


def _open_children(live: Live) -> list[ExecutionId]:
    steps = live.state.steps.values()
    return [step.child for step in steps if step.child is not None and not step.status.is_terminal]
