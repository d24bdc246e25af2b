"""Looks whether what waits here for a place has one, because other processes free places without a word."""

from dataclasses import dataclass
from datetime import timedelta

from flexcore.engine.queues import Queues

_SHORT, _LONG = timedelta(milliseconds=500), timedelta(seconds=2)


@dataclass(slots=True)
class QueueService:
    """Costs nothing while nothing waits; looks less often while nothing moves."""

    queues: Queues
    interval: timedelta = _SHORT

    async def run_once(self) -> int:
        """Look once; give how many were told that there may be a place."""
        told = await self.queues.look()
        moves = told or self.queues.is_held_up or not self.queues.is_waiting
        self.interval = _SHORT if moves else min(self.interval * 1.25, _LONG)
        return told
