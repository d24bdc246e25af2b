"""Makes durable times fire: whatever the state says is due, no timer exists that the state does not know."""

import asyncio
from collections.abc import Callable
from datetime import datetime

from flexcore.engine.live import Live
from flexcore.engine.ports import Clock
from flexcore.engine.work import Event, TimerFired
from flexcore.model.execution import StepState
from flexcore.model.ids import StepPath

_LOOK_AGAIN_SECONDS = 60.0  # so that a clock that was set is noticed


class Timers:
    """One alarm per step, and one for the execution itself."""

    def __init__(self, now: Clock, post: Callable[[Live, Event], None]) -> None:
        self._now = now
        self._post = post

    def rearm(self, live: Live, step: StepState, *, earliest: datetime | None = None) -> None:
        """Set a step's alarm by its state, but not before `earliest`."""
        times = (step.due_at, step.expires_at if step.ending is None else None)
        due = None if step.status.is_terminal else min((time for time in times if time is not None), default=None)
        self.arm(live, step.path, max(due, earliest) if due is not None and earliest is not None else due)

    def arm(self, live: Live, path: StepPath | None, due: datetime | None) -> None:
        """Set or clear an alarm; `path` None is the execution's own."""
        armed = live.timers.pop(path, None)
        if armed is not None:
            armed.cancel()
        if due is not None:
            seconds = min(max((due - self._now()).total_seconds(), 0), _LOOK_AGAIN_SECONDS)
            live.timers[path] = asyncio.get_running_loop().call_later(seconds, self._fire, live, path, due)

    def _fire(self, live: Live, path: StepPath | None, due: datetime) -> None:
        if self._now() < due:
            self.arm(live, path, due)
            return
        live.timers.pop(path, None)
        self._post(live, TimerFired(path))
        step = live.state.steps.get(path) if path is not None else None
        if step is not None and step.expires_at is not None and step.expires_at > due and step.ending is None:
            self.arm(live, path, step.expires_at)  # one alarm a step: the later one of two times is still to come
