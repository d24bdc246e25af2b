"""The machine's clock as a test sets it: what takes an hour need not be waited for, and no stall takes an hour."""

from datetime import datetime, timedelta

import pytest

from flexcore import bootstrap
from flexcore.engine import timers


class MovedClock:
    """Goes on by itself, and by what it is moved. Planes live by it that are opened later; they notice at once."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self._ahead, self._true_now = timedelta(0), bootstrap.now
        patch.setattr(bootstrap, "now", self.now)
        patch.setattr(timers, "_LOOK_AGAIN_SECONDS", 0.02)

    def now(self) -> datetime:
        """Give the time as it was set."""
        return self._true_now() + self._ahead

    def move(self, by: timedelta) -> None:
        """Set it on."""
        self._ahead += by
