"""The circuit breaker of a runtime. Counts and compares times; never waits and never calls anything."""

from collections.abc import Callable
from datetime import timedelta


class Breaker:
    """Stops asking a runtime that could not be reached several times in a row; then lets one call in to try."""

    def __init__(self, after: int, open_for: timedelta, clock: Callable[[], float]) -> None:
        self._after = after
        self._open_for = open_for.total_seconds()
        self._clock = clock
        self._failures = 0
        self._retry_at = 0.0

    @property
    def is_open(self) -> bool:
        """Say whether calls are held back just now."""
        return self._failures >= self._after and self._clock() < self._retry_at

    def admit(self) -> bool:
        """Let a call in, or not. When the time is up, the one let in holds the others back until it is known."""
        if self._failures < self._after:
            return True
        if self._clock() < self._retry_at:
            return False
        self._retry_at = self._clock() + self._open_for
        return True

    def failed(self) -> bool:
        """Count a failure; True when this one opened the circuit."""
        self._failures += 1
        self._retry_at = self._clock() + self._open_for
        return self._failures == self._after

    def answered(self) -> None:
        """Forget the failures."""
        self._failures = 0
