"""Time for tests: a clock that stands still until it is told to move, and the real one behind the same two methods."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Protocol

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)


class Clock(Protocol):
    """What a part with a notion of time needs in a test."""

    def now(self) -> datetime:
        """Give the time, aware, in UTC."""
        ...

    async def sleep(self, delay: timedelta) -> None:
        """Return when so much time has passed on this clock."""
        ...


class RealClock:
    """The time of the machine."""

    def now(self) -> datetime:
        """Give the time of the machine."""
        return datetime.now(UTC)

    async def sleep(self, delay: timedelta) -> None:
        """Wait for real."""
        await asyncio.sleep(delay.total_seconds())


class ManualClock:
    """Moves only by `advance`, which wakes those whose time has come."""

    def __init__(self, start: datetime = EPOCH) -> None:
        self._now = start
        self._sleepers: list[tuple[datetime, asyncio.Event]] = []

    @property
    def sleepers(self) -> int:
        """How many wait for this clock."""
        return len(self._sleepers)

    def now(self) -> datetime:
        """Give the time it was last set to."""
        return self._now

    def seconds(self) -> float:
        """Give the same as seconds since the first of January 2026, in place of a monotonic clock."""
        return (self._now - EPOCH).total_seconds()

    async def sleep(self, delay: timedelta) -> None:
        """Return once `advance` has gone far enough."""
        due, woken = self._now + delay, asyncio.Event()
        if due <= self._now:
            return
        sleeper = (due, woken)
        self._sleepers.append(sleeper)
        try:
            await woken.wait()
        finally:
            self._sleepers.remove(sleeper)

    def advance(self, delta: timedelta) -> None:
        """Move on and wake sleepers; they run when the caller next awaits."""
        self._now += delta
        for due, woken in self._sleepers:
            if due <= self._now:
                woken.set()
