"""Which attempts are read here, which are being made, and which of them are ended meanwhile.

It is about this process and about waiting only; what there is, the cluster knows. Without it something could come to
be after a clean-up that saw nothing: whoever ends an attempt says so first, and waits for what is being made.
"""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Coroutine, Iterator
from typing import Any, TypeVar

Thing = TypeVar("Thing")


class Underway:
    """The attempts of one instance, by their external names."""

    def __init__(self) -> None:
        self._reading: Counter[str] = Counter()
        self._making: dict[str, set[asyncio.Task[Any]]] = {}
        self._executions: dict[str, str] = {}  # of the names that are read or made here
        self._ended: set[str] = set()  # names that we end while they are read here

    @contextlib.contextmanager
    def read(self, name: str, execution: str) -> Iterator[None]:
        """Have an attempt known as read until the context ends."""
        self._reading[name] += 1
        self._executions[name] = execution
        try:
            yield
        finally:
            self._reading[name] -= 1
            if not self._reading[name]:
                del self._reading[name]
                self._forget(name)

    async def made(self, name: str, making: Coroutine[Any, Any, Thing]) -> Thing:
        """Make something in a task that goes on when the reader leaves; whoever ends the attempt waits for it."""
        task = asyncio.create_task(making)
        self._making.setdefault(name, set()).add(task)
        task.add_done_callback(lambda done: self._known(name, done))
        return await asyncio.shield(task)

    def was_ended(self, name: str) -> bool:
        """Say whether an attempt is ended since it is read here: nothing more may be made for it."""
        return name in self._ended

    async def ending(self, name: str) -> None:
        """Take note that an attempt is about to be ended, and wait until it is known what there is of it."""
        if name in self._reading:
            self._ended.add(name)
        if making := self._making.get(name):
            await asyncio.wait(making)

    def of_execution(self, execution: str) -> set[str]:
        """Name the attempts of an execution that are read here, also what is just being made."""
        return {name for name, owner in self._executions.items() if owner == execution}

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
            self._ended.discard(name)
