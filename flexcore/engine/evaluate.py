"""Answers expressions in JavaScript: a small pool of child processes, so that no expression can hurt anything else.

Evaluation is pure, which keeps the rules simple. A child that is slow gives its other requests back. An expression
that was slow before is sent alone, and never to all the children at once, so that a loop full of looping expressions
leaves one child to everybody else. A child that dies fails only the expression it was at, and only when a budget
explains it or it happens twice. Children start with the first request, never before: most workflows need none.
"""

import asyncio
import signal
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Self

from flexcore.engine import javascript
from flexcore.engine.child import Child, Request
from flexcore.engine.render import Answer, Query
from flexcore.engine.sandbox import ReplyKind, SandboxLimits
from flexcore.model.errors import InternalError

_TRIES = 2  # of an expression whose child died for no reason we know
_START_TRIES = 3
_REMEMBERED = 256  # expressions known to be slow


class ExpressionPool:
    """Up to `size` children under one set of limits, all on the event loop of the first caller."""

    def __init__(self, size: int = 2, budget_seconds: float = 0.5, memory_bytes: int = 32 << 20) -> None:
        self._size = size
        self._limits = SandboxLimits(seconds=budget_seconds, memory_bytes=memory_bytes)
        self._waiting: deque[Request] = deque()
        self._waiting_alone: deque[Request] = deque()
        self._slow_sources: dict[str, None] = {}
        self._children: list[Child] = []
        self._starting: set[asyncio.Task[None]] = set()
        self._failed_starts = 0
        self._is_closed = False

    async def evaluate(self, queries: Sequence[Query]) -> list[Answer]:
        """Answer in the order asked. Raises InternalError only when no child can be started at all."""
        if self._is_closed:
            raise InternalError("the expression pool is closed")
        futures = [self._admit(each) for each in queries]
        self._pump()
        return list(await asyncio.gather(*futures))

    async def close(self) -> None:
        """End the children and wait until they are gone. Whoever still waits for an answer is cancelled."""
        self._is_closed = True
        if self._starting:
            await asyncio.wait(self._starting)
        children = tuple(self._children)
        requests = [*self._waiting, *self._waiting_alone, *(each for child in children for each in child.in_flight)]
        for request in requests:
            request.future.cancel()
        for child in children:
            await child.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    def child_ready(self) -> None:
        """Give work to a child that came up."""
        self._failed_starts = 0
        self._pump()

    def child_replied(self, request: Request, kind: ReplyKind, body: bytes, *, was_slow: bool) -> None:
        """Settle a request; an expression that was quick this time is no longer held apart."""
        if not was_slow:
            self._slow_sources.pop(request.query.source, None)
        request.answer(javascript.answer(request.query, kind, body))
        self._pump()

    def child_slow(self, at: Request, behind: list[Request]) -> None:
        """Remember the slow expression and let others do what waits behind it."""
        self._slow_sources[at.query.source] = None
        if len(self._slow_sources) > _REMEMBERED:
            del self._slow_sources[next(iter(self._slow_sources))]
        waiting = [*behind, *self._waiting]
        self._waiting.clear()
        for each in waiting:
            self._queue(each)
        self._pump()

    def child_ended(self, child: Child, code: int) -> None:
        """Replace a child, whatever ended it."""
        self._children.remove(child)
        if self._is_closed:
            return
        if not child.is_ready:
            self._start_failed(f"it ended with {code}")
            return
        self._waiting.extendleft(reversed(child.take_back()))
        if child.in_flight:
            self._bury(child.in_flight.popleft(), code, was_hung=child.was_hung)
        self._pump()

    def _admit(self, query: Query) -> asyncio.Future[Answer]:
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        frame = javascript.request(query, self._limits)
        if isinstance(frame, Answer):
            future.set_result(frame)
        else:
            self._queue(Request(query, frame, future))
        return future

    def _queue(self, request: Request) -> None:
        queue = self._waiting_alone if request.query.source in self._slow_sources else self._waiting
        queue.append(request)

    def _pump(self) -> None:
        """Hand out what waits: to the least busy children with room, and the slow ones to idle children."""
        self._drop_settled()
        while self._waiting and (child := self._least_busy()) is not None:
            child.send(self._waiting.popleft())
            self._drop_settled()
        while self._waiting_alone and (child := self._idle_for_slow()) is not None:
            child.send(self._waiting_alone.popleft(), alone=True)
            self._drop_settled()
        self._grow()

    def _drop_settled(self) -> None:
        for queue in (self._waiting, self._waiting_alone):
            while queue and queue[0].future.done():
                queue.popleft()

    def _least_busy(self) -> Child | None:
        with_room = (each for each in self._children if each.has_room)
        return min(with_room, key=lambda each: len(each.in_flight), default=None)

    def _idle_for_slow(self) -> Child | None:
        """Pick a child for a slow expression, keeping one for all others; a single child takes it when none wait."""
        if sum(each.is_slow for each in self._children) >= max(1, self._size - 1):
            return None
        return next((each for each in self._children if each.has_room and not each.in_flight), None)

    def _grow(self) -> None:
        """Start one more child when there is more to do than those at hand and on their way can take up at once."""
        unready = sum(not each.is_ready for each in self._children)
        busy = sum(bool(each.in_flight) for each in self._children)
        wanted = busy + len(self._waiting) + len(self._waiting_alone)
        if self._is_closed or len(self._children) >= min(self._size, wanted) or unready:
            return
        child = Child(self, self._limits)
        self._children.append(child)
        starting = asyncio.get_running_loop().create_task(self._start(child))
        self._starting.add(starting)
        starting.add_done_callback(self._starting.discard)

    async def _start(self, child: Child) -> None:
        try:
            await child.start()
        except (OSError, InternalError) as error:
            self._children.remove(child)
            self._start_failed(str(error))

    def _start_failed(self, cause: str) -> None:
        self._failed_starts += 1
        if self._failed_starts >= _START_TRIES:
            self._failed_starts = 0
            for request in (*self._waiting, *self._waiting_alone):
                message = f"the process that evaluates expressions cannot be started: {cause}"
                request.fail(InternalError(message, hint="`flexcore doctor` says more"))
        self._pump()

    def _bury(self, request: Request, code: int, *, was_hung: bool) -> None:
        """Explain the death of a child to the expression it was at, or try that once more."""
        request.deaths += 1
        if was_hung or code == -signal.SIGPROF:
            request.answer(javascript.out_of_time(request.query, self._limits))
        elif request.deaths < _TRIES:
            self._waiting.appendleft(request)
        else:
            request.answer(javascript.crashed(request.query, code))
