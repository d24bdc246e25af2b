"""A sandbox at work: the requests it was sent, and the clock over the one it is at.

It answers nothing itself. Its owner hears of replies, of slowness (with the requests that had better go elsewhere) and
of the end.
"""

import asyncio
from collections import deque
from typing import Protocol

from flexcore.engine.render import Answer, Query
from flexcore.engine.sandbox import ReplyKind, Sandbox, SandboxLimits

_WINDOW = 16  # requests sent ahead
_WINDOW_BYTES = 256 << 10
_PATIENCE_SECONDS = 0.05  # before a child counts as slow
_START_SECONDS = 30.0  # to come up, on a very busy machine


class Request:
    """A query on its way to its answer. `frame` is what a sandbox is sent."""

    def __init__(self, query: Query, frame: bytes, future: asyncio.Future[Answer]) -> None:
        self.query = query
        self.frame = frame
        self.future = future
        self.deaths = 0

    def answer(self, answer: Answer) -> None:
        """Settle it, unless its asker has gone."""
        if not self.future.done():
            self.future.set_result(answer)

    def fail(self, error: Exception) -> None:
        """Raise at its asker: nothing is known about the expression."""
        if not self.future.done():
            self.future.set_exception(error)


class Owner(Protocol):
    """Who is told what happens to a child."""

    def child_ready(self) -> None: ...

    def child_replied(self, request: Request, kind: ReplyKind, body: bytes, *, was_slow: bool) -> None: ...

    def child_slow(self, at: Request, behind: list[Request]) -> None: ...

    def child_ended(self, child: "Child", code: int) -> None: ...


class Child:
    """One sandbox and its queue, first in, first out."""

    def __init__(self, owner: Owner, limits: SandboxLimits) -> None:
        self.in_flight: deque[Request] = deque()
        self.is_ready = False
        self.was_hung = False
        self.is_slow = False
        self._owner = owner
        self._limits = limits
        self._sandbox = Sandbox(self._replied, self._ended)
        self._is_retired = False
        self._since = 0.0
        self._timer: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Start the process. Raises OSError or InternalError when there can be none."""
        self._since = asyncio.get_running_loop().time()
        await self._sandbox.start(self._limits)
        if not self._sandbox.ended.is_set() and self._timer is None:
            self._arm()

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent ahead."""
        if not self.is_ready or self.is_slow or self._is_retired:
            return False
        sent = sum(len(each.frame) for each in self.in_flight)
        return not self.in_flight or (len(self.in_flight) < _WINDOW and sent < _WINDOW_BYTES)

    def send(self, request: Request, *, alone: bool = False) -> None:
        """Queue a request; with `alone`, nothing may follow until it is answered."""
        if not self.in_flight:
            self._since = asyncio.get_running_loop().time()
        self.in_flight.append(request)
        self.is_slow = alone
        self._sandbox.send(request.frame)
        if self._timer is None:
            self._arm()

    def take_back(self) -> list[Request]:
        """Take back all requests but the one it is at. It will not do that work a second time: it ends before."""
        behind = [self.in_flight.pop() for _ in range(len(self.in_flight) - 1)]
        self._is_retired = self._is_retired or bool(behind)
        return behind[::-1]

    async def end(self) -> None:
        """End the process and wait until it is gone."""
        self._sandbox.kill()
        await self._sandbox.ended.wait()

    def _replied(self, kind: ReplyKind, body: bytes) -> None:
        was_slow = self._age() > _PATIENCE_SECONDS
        if self.is_slow or kind is ReplyKind.READY:
            self.is_slow = False
            self._disarm()  # it was set for the hang
        self._since = asyncio.get_running_loop().time()
        if self._is_retired:
            self._sandbox.kill()
        if kind is ReplyKind.READY:
            self.is_ready = True
            self._owner.child_ready()
        elif self.in_flight:
            self._owner.child_replied(self.in_flight.popleft(), kind, body, was_slow=was_slow)

    def _ended(self, code: int) -> None:
        self._disarm()
        self._owner.child_ended(self, code)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _age(self) -> float:
        return asyncio.get_running_loop().time() - self._since

    def _arm(self) -> None:
        """Look at the clock again when there may be something to see: one timer for many requests."""
        if self.is_ready:
            seconds = self._limits.hang_seconds if self.is_slow else _PATIENCE_SECONDS
        else:
            seconds = _START_SECONDS
        self._timer = asyncio.get_running_loop().call_later(max(0.001, seconds - self._age()), self._look)

    def _look(self) -> None:
        self._timer = None
        age = self._age()
        if not self.is_ready or (self.in_flight and age >= self._limits.hang_seconds):
            self.was_hung = True
            self._sandbox.kill()
        elif self.in_flight:
            if age >= _PATIENCE_SECONDS:
                self.is_slow = True
                self._owner.child_slow(self.in_flight[0], self.take_back())
            self._arm()
