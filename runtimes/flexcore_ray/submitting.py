"""What is on its way to the cluster, and what must not go there any more because it was ended meanwhile.

A submission goes on when whoever began it leaves, and a clean-up waits for it: the cluster may take it all the same,
and would else be asked before it knows the job. Nothing is submitted once its end was asked for.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

from flexcore.model.ids import ExecutionId

_REMEMBERED = 4096  # whoever comes back to an attempt that was ended does so within a minute or so
_CLOSE_S = 5.0


class EndedBefore(Exception):
    """The attempt was ended before its job was submitted."""


class Submissions:
    """The attempts that this process begins, until their jobs are known to be there or not, and those it has ended."""

    def __init__(self, remembered: int = _REMEMBERED) -> None:
        self._remembered = remembered
        self._beginning: Counter[str] = Counter()
        self._posting: dict[str, set[asyncio.Future[None]]] = {}
        self._executions: dict[str, ExecutionId] = {}  # of the names in one of the two
        self._ended: dict[str, None] = {}  # the latest last

    @contextmanager
    def beginning(self, name: str, execution: ExecutionId) -> Iterator[None]:
        """Note that an attempt is looked for and may be submitted, for as long as the context is open."""
        self._beginning[name] += 1
        self._executions[name] = execution
        try:
            yield
        finally:
            self._beginning[name] -= 1
            if not self._beginning[name]:
                del self._beginning[name]
            self._forget(name)

    def of_execution(self, execution: ExecutionId) -> frozenset[str]:
        """Name what begins here of an execution."""
        return frozenset(name for name, owner in self._executions.items() if owner == execution)

    def check(self, name: str) -> None:
        """Raise EndedBefore where an attempt must not be submitted any more."""
        if name in self._ended:
            raise EndedBefore(name)

    async def post(self, name: str, submit: Callable[[], Awaitable[None]]) -> None:
        """Submit, to the end even if the caller leaves. Raises EndedBefore, and what `submit` raises."""
        self.check(name)
        posting = asyncio.ensure_future(submit())
        self._posting.setdefault(name, set()).add(posting)
        posting.add_done_callback(lambda done: self._posted(name, done))
        await asyncio.shield(posting)

    async def ending(self, name: str) -> None:
        """Have an attempt not be submitted from now on; return when what is under way of it has come to something."""
        self._ended.pop(name, None)
        self._ended[name] = None
        if len(self._ended) > self._remembered:
            oldest = next((each for each in self._ended if each not in self._executions), None)
            if oldest is not None:
                del self._ended[oldest]
        if posting := self._posting.get(name):
            await asyncio.wait(set(posting))

    async def close(self) -> None:
        """Let submissions under way come to something, for a bounded time."""
        under_way = [each for posting in self._posting.values() for each in posting]
        if under_way:
            _, late = await asyncio.wait(under_way, timeout=_CLOSE_S)
            for each in late:
                each.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    def _posted(self, name: str, done: asyncio.Future[None]) -> None:
        self._posting[name].discard(done)
        if not self._posting[name]:
            del self._posting[name]
        self._forget(name)
        if not done.cancelled():
            done.exception()  # whoever still waits gets it too

    def _forget(self, name: str) -> None:
        if name not in self._beginning and name not in self._posting:
            self._executions.pop(name, None)
