"""How many processes run at a time: first come, first served. Found work counts, but never waits."""

import asyncio
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager


class Slots:
    """Counts what runs. Every `try_take`, `take` and successful `turn` is answered by one `release`."""

    def __init__(self, total: int) -> None:
        self.total = total
        self._used = 0
        self._waiting: OrderedDict[str, asyncio.Future[bool]] = OrderedDict()

    def try_take(self) -> bool:
        """Take a slot if one is free and nobody waits."""
        if self._used >= self.total or self._waiting:
            return False
        self._used += 1
        return True

    def take(self) -> None:
        """Take a slot even if there is none: for work that runs already."""
        self._used += 1

    @contextmanager
    def turn(self, name: str) -> Iterator[asyncio.Future[bool]]:
        """Stand in line from here on. Await what it gives: False when the wait was withdrawn; then nothing is taken.

        Whoever leaves by an exception has no slot, also when it came at that very moment.
        """
        turn: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._waiting[name] = turn
        try:
            yield turn
        except BaseException:
            if turn.done() and not turn.cancelled() and turn.result():
                self.release()
            raise
        finally:
            if self._waiting.get(name) is turn:
                del self._waiting[name]

    def withdraw(self, name: str) -> bool:
        """End somebody's wait; False when nobody waits under the name."""
        turn = self._waiting.pop(name, None)
        if turn is None or turn.done():
            return False
        turn.set_result(False)
        return True

    def withdraw_all(self, prefix: str) -> None:
        """End the waits of all names that begin so."""
        for name in [name for name in self._waiting if name.startswith(prefix)]:
            self.withdraw(name)

    def release(self) -> None:
        """Give a slot back, to the one who waits longest."""
        self._used -= 1
        while self._used < self.total and self._waiting:
            _, turn = self._waiting.popitem(last=False)
            if not turn.done():
                self._used += 1
                turn.set_result(True)
