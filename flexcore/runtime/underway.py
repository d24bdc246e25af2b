"""Which attempts an adapter's process is just beginning or reading, and which of them were ended meanwhile.

It is about this process and about waiting only; what there is, the runtime knows. Without it something could come to
be after a clean-up that saw nothing: whoever ends an attempt says so first, and waits for what is being made. For
adapters whose work is begun by a request that may be obeyed after whoever sent it has left.
"""

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from flexcore.model.ids import ExecutionId

_REMEMBERED = 4096  # whoever comes back to an attempt that was ended does so within a minute or so
_CLOSE_S = 5.0

Thing = TypeVar("Thing")


class EndedBefore(Exception):
    """The attempt was ended: nothing more is made for it."""


class Underway:
    """The attempts of one instance, by their external names.

    That an attempt was ended is known for as long as it is underway here, and of the latest `remembered` others.
    """

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._reading: Counter[str] = Counter()
        self._making: dict[str, set[asyncio.Task[Any]]] = {}
        self._executions: dict[str, ExecutionId] = {}  # of the names in one of the two
        self._ended: dict[str, None] = {}  # the latest last

    @contextmanager
    def read(self, name: str, execution: ExecutionId) -> Iterator[None]:
        """Have an attempt known as underway until the context ends."""
        self._reading[name] += 1
        self._executions[name] = execution
        try:
            yield
        finally:
            self._reading[name] -= 1
            if not self._reading[name]:
                del self._reading[name]
            self._forget(name)

    async def made(self, name: str, make: Callable[[], Coroutine[Any, Any, Thing]]) -> Thing:
        """Make something in a task that goes on when the reader leaves; whoever ends the attempt waits for it.

        Raises EndedBefore, and what `make` raises.
        """
        self.check(name)
        task = asyncio.create_task(make())
        self._making.setdefault(name, set()).add(task)
        task.add_done_callback(lambda done: self._known(name, done))
        return await asyncio.shield(task)

    def check(self, name: str) -> None:
        """Raise EndedBefore where nothing may be made for an attempt any more."""
        if name in self._ended:
            raise EndedBefore(name)

    def was_ended(self, name: str) -> bool:
        """Say whether an attempt was ended from here."""
        return name in self._ended

    async def ending(self, name: str) -> None:
        """Take note that an attempt is about to be ended, and wait until it is known what there is of it."""
        self._ended.pop(name, None)
        self._ended[name] = None
        self._trim()
        if making := self._making.get(name):
            await asyncio.wait(set(making))

    def of_execution(self, execution: ExecutionId) -> frozenset[str]:
        """Name the attempts of an execution that are underway here."""
        return frozenset(name for name, owner in self._executions.items() if owner == execution)

    async def close(self) -> None:
        """Let what is being made come to something, for a bounded time."""
        making = [each for tasks in self._making.values() for each in tasks]
        if making:
            _, late = await asyncio.wait(making, timeout=_CLOSE_S)
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _known(self, name: str, done: asyncio.Task[Any]) -> None:
        self._making[name].discard(done)
        if not self._making[name]:
            del self._making[name]
        self._forget(name)
        if not done.cancelled():
            done.exception()  # whoever still waits gets it too

    def _forget(self, name: str) -> None:
        if name not in self._reading and name not in self._making:
            self._executions.pop(name, None)
            self._trim()

    def _trim(self) -> None:
        if len(self._ended) <= self._remembered:
            return
        others = [name for name in self._ended if name not in self._executions]
        for name in others[: max(0, len(others) - self._remembered)]:
            del self._ended[name]
