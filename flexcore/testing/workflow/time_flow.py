"""Virtual time: it passes only when nothing else can happen, and then up to the next thing that is waited for.

When every execution waits (for an attempt, a timer), the earliest of what they wait for is let happen, alone, and the
clock set to its time. So hours pass at once, and always in the same order: at the same moment an attempt ends before
a time limit is over, and what began first comes first.
"""

import asyncio
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import NamedTuple

from flexcore.engine.live import Live
from flexcore.engine.loop import Engine
from flexcore.engine.work import TimerFired
from flexcore.model.execution import StepState
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.testing.clock import ManualClock
from flexcore.testing.workflow.stand_ins import Stage

_MOST_MOMENTS = 100_000
_LOOK_AGAIN_SECONDS = 0.02  # what is waited for says so; this is for what cannot
_PATIENCE = 50  # such looks, when nothing at all seems to be waited for


class Stuck(Exception):
    """The execution will never end: its message says what it waits for."""


class _Moment(NamedTuple):
    """Something that is going to happen. `rank` decides between two at the same time."""

    due: datetime
    rank: int
    order: int
    let: Callable[[], None]


@dataclass(slots=True, kw_only=True)
class TimeFlow:
    """Drives an engine by its clock. `changed` is set by whatever happens in it."""

    engine: Engine
    stage: Stage
    clock: ManualClock
    changed: asyncio.Event
    _fired: set[tuple[ExecutionId, StepPath | None, datetime]] = field(default_factory=set)

    async def until_ended(self, id: ExecutionId) -> None:
        """Let everything happen until an execution has ended. Raises Stuck."""
        for _ in range(_MOST_MOMENTS):
            await self._quiet()
            if id not in self.engine.live:
                return
            if self.engine.queues.is_waiting and await self._let_in():
                continue
            moment = self._next() or await self._next_after_all(id)
            if moment is None:
                continue
            if moment.due > self.clock.now():
                self.clock.advance(moment.due - self.clock.now())
            moment.let()
        raise Stuck(f"the workflow did not end after {_MOST_MOMENTS:,} events; does a loop never get done?")

    async def _next_after_all(self, id: ExecutionId) -> _Moment | None:
        """Look again for a while; the engine may be about to do something that nobody can see from outside."""
        for _ in range(_PATIENCE):
            await asyncio.sleep(_LOOK_AGAIN_SECONDS)
            await self._quiet()
            if id not in self.engine.live or (moment := self._next()) is not None:
                return moment if id in self.engine.live else None
        raise Stuck(f"the workflow never ends: {self._open(self.engine.live[id])}")

    async def _let_in(self) -> bool:
        """Give free places of limited pools to who waits for them, before time goes on; say whether any took one."""
        before = self._written()
        await self.engine.queues.look()
        await self._quiet()
        return self._written() != before

    def _written(self) -> list[tuple[ExecutionId, int]]:
        return [(id, live.state.seq) for id, live in self.engine.live.items()]

    def _open(self, live: Live) -> str:
        waits = [
            f"step '{each.path}' waits for {each.waiting_for or 'its sub-workflow'}"
            for each in live.state.steps.values()
            if not each.status.is_terminal and (each.waiting_for or each.child)
        ]
        return "; ".join(waits) or "nothing is left that could happen"

    # --- what is going on

    async def _quiet(self) -> None:
        """Wait until nothing happens any more of its own accord."""
        while busy := [each for each in self.engine.live.values() if self._is_busy(each)]:
            self.changed.clear()
            told = asyncio.ensure_future(self.changed.wait())
            draining = {each.draining for each in busy if each.draining is not None}
            await asyncio.wait({told, *draining}, timeout=_LOOK_AGAIN_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            told.cancel()

    def _is_busy(self, live: Live) -> bool:
        if live.draining is not None or live.mailbox:
            return True
        return any(not self._waits(live, each) for each in live.state.steps.values() if not each.status.is_terminal)

    def _waits(self, live: Live, step: StepState) -> bool:
        """Say whether nothing goes on in a step that has not ended: it waits for time, or for what is inside it."""
        if step.in_flight:
            return step.ending is None and (step.due_at is not None or _attempt(live, step) in self.stage.waiting)
        return step.child is None or step.child in self.engine.live

    # --- what is to come

    def _next(self) -> _Moment | None:
        return min(self._moments(), key=lambda each: each[:3], default=None)

    def _moments(self) -> Iterator[_Moment]:
        order = 0
        for live in self.engine.live.values():
            header = live.state.header
            if header.expires_at is not None and header.cancel_requested is None:
                yield from self._alarm(live, None, header.expires_at, 0)
            for step in live.state.steps.values():
                order += 1
                if not step.status.is_terminal:
                    yield from self._of_step(live, step, order)

    def _of_step(self, live: Live, step: StepState, order: int) -> Iterator[_Moment]:
        id = _attempt(live, step)
        if (waiting := self.stage.waiting.get(id)) is not None:
            yield _Moment(waiting.due, 0, order, lambda: self.stage.release(id, by_itself=True))
        if step.due_at is not None and not _is_unplaced(step):
            yield from self._alarm(live, step.path, step.due_at, order)
        if step.expires_at is not None and step.ending is None and step.status is StepStatus.RUNNING:
            yield from self._alarm(live, step.path, step.expires_at, order)

    def _alarm(self, live: Live, path: StepPath | None, due: datetime, order: int) -> Iterator[_Moment]:
        key = (live.id, path, due)

        def fire() -> None:
            self._fired.add(key)
            self.engine.post(live, TimerFired(path))

        if key not in self._fired:  # an alarm that led to nothing would come for ever
            yield _Moment(due, 1, order, fire)


def _attempt(live: Live, step: StepState) -> AttemptId:
    return AttemptId(live.id, step.path, step.attempt)


def _is_unplaced(step: StepState) -> bool:
    """Say whether a step waits for a runtime: looking again is of no use where health never changes."""
    return step.status is StepStatus.PENDING and step.placement is not None and step.placement.chosen is None
