"""Follows one job to its end: through its queue, along its log, to its result.

It keeps no connection alive for its own sake: whatever breaks is `RuntimeUnavailable`, the control plane asks again,
and the reading begins anew with the log offsets that were stored. A job that vanishes from the cluster is lost.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    LogStream,
    PhaseEntered,
    Succeeded,
)
from flexcore.runtime.portable.data import DataLinks
from flexcore.runtime.portable.ending import Ending
from flexcore_ray import outcomes
from flexcore_ray.client import Dashboard, Job
from flexcore_ray.logs import JobLog
from flexcore_ray.steps import Marks

_FIRST_PAUSE_S, _LONGEST_PAUSE_S, _SLOWER = 0.1, 1.0, 1.2
_NOTICED_S = 10.0  # how long Ray may take to notice that our program has ended


class Gone(Exception):
    """The cluster does not know the job any more."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What is followed, and what belongs to it. `start_timeout` is how long it may wait in the cluster's queue."""

    request: ExecutionRequest
    data: DataLinks
    marks: Marks
    start_timeout: timedelta
    now: Callable[[], datetime]


class Following:
    """One reading of one job."""

    def __init__(self, dashboard: Dashboard, job: Job, followed: Followed) -> None:
        self.began: datetime | None = None  # when the step's program began, as far as it was seen here
        self._dashboard = dashboard
        self._job = job
        self._followed = followed
        self._log = self._from_the_start(followed.request.log_offsets.get(LogStream.STDOUT, 0))
        self._pause = _FIRST_PAUSE_S

    async def events(self) -> AsyncGenerator[ExecutionEvent, None]:
        """Give everything from the submission on, `Finished` last. Raises RuntimeUnavailable."""
        try:
            async with contextlib.aclosing(self._events()) as events:
                async for event in events:
                    yield event
        except Gone:
            why = outcomes.lost("it vanished from the cluster while it was followed")
            yield Finished(ExecutionResult(outcome=Failed(why)))

    async def _events(self) -> AsyncGenerator[ExecutionEvent, None]:
        async with contextlib.aclosing(self._waiting()) as waiting:
            async for event in waiting:
                yield event
        if self._job.status == "PENDING":
            yield Finished(ExecutionResult(outcome=Failed(self._too_long())))
            return
        while not self._job.is_over and self._log.ending is None:
            async with contextlib.aclosing(self._reading()) as reading:
                async for event in reading:
                    yield event
        if self._log.ending is None:
            async with contextlib.aclosing(self._reading_again()) as again:
                async for event in again:
                    yield event
        yield Finished(await self._result())

    async def _waiting(self) -> AsyncGenerator[ExecutionEvent, None]:
        """Wait until the job has left its queue, or has waited too long."""
        since = self._followed.now()
        if self._job.status == "PENDING":
            yield PhaseEntered(Phase.QUEUE, since)
        while self._job.status == "PENDING" and self._followed.now() - since < self._followed.start_timeout:
            await self._pausing()
            await self._look()
        self._pause = _FIRST_PAUSE_S
        if self._job.status == "RUNNING":
            yield PhaseEntered(Phase.START, self._followed.now())

    async def _reading(self) -> AsyncGenerator[ExecutionEvent, None]:
        """Read the log as it grows, until the step's ending is read, the job is over, or the stream ends."""
        log = self._log = self._from_the_start(self._log.seen)
        async with (
            self._dashboard.log(self._job, follow=True) as pieces,
            contextlib.aclosing(self._ticks(pieces)) as ticks,
        ):
            async for piece in ticks:
                if piece is None:
                    await self._look()
                    if self._job.is_over:
                        return
                    continue
                for event in self._fed(piece):
                    yield event
                if log.ending is not None:
                    return
        await self._pausing()  # the node ended the stream: ask how the job is, and read again
        await self._look()

    async def _reading_again(self) -> AsyncGenerator[ExecutionEvent, None]:
        """Read the log of a job that is over once more from its start: it is complete now."""
        self._log = self._from_the_start(self._log.seen)
        try:
            async with self._dashboard.log(self._job, follow=False) as pieces:
                async for piece in pieces:
                    for event in self._fed(piece):
                        yield event
        except RuntimeUnavailable:
            if await self._has_node():
                raise
            return  # the log went with its node; how the job ended is known from its status alone
        for chunk in self._log.rest():
            yield chunk

    async def _result(self) -> ExecutionResult:
        """Judge the end: by our program's own word, or else by Ray's."""
        ending, followed = self._log.ending, self._followed
        if ending is None or not isinstance(ending.outcome, Succeeded):
            await self._noticed()
        secrets = followed.request.secrets
        if ending is None:
            return ExecutionResult(outcome=Failed(outcomes.failure_of(self._job, secrets)))
        return self._told(ending).result(Failed(outcomes.CANCELLED), followed.data, followed.request.id, secrets)

    def _told(self, ending: Ending) -> Ending:
        """Take away the outcome of a step that was stopped: it came to that because it was asked to end."""
        if self._job.status != "STOPPED" or isinstance(ending.outcome, Succeeded):
            return ending
        return Ending(outcome=None, usage=ending.usage, phases=ending.phases)

    async def _noticed(self) -> None:
        """Wait until Ray knows that the job is over: only then does it tell whether somebody stopped it."""
        try:
            async with asyncio.timeout(_NOTICED_S):
                while not self._job.is_over:
                    await asyncio.sleep(_FIRST_PAUSE_S)
                    await self._look()
        except TimeoutError:
            return

    def _fed(self, piece: bytes) -> Iterator[ExecutionEvent]:
        had_begun = self._log.has_begun
        chunks = list(self._log.feed(piece))
        if self._log.has_begun and not had_begun and self.began is None:
            self.began = self._followed.now()
            yield PhaseEntered(Phase.RUN, self.began)
        yield from chunks

    def _from_the_start(self, known: int) -> JobLog:
        return JobLog(self._followed.marks.begins, self._followed.marks.ends, known)

    async def _look(self) -> None:
        found = await self._dashboard.job(self._job.id)
        if found is None:
            raise Gone
        self._job = found

    async def _pausing(self) -> None:
        await asyncio.sleep(self._pause)
        self._slower()

    def _slower(self) -> None:
        self._pause = min(self._pause * _SLOWER, _LONGEST_PAUSE_S)

    async def _ticks(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes | None, None]:
        """Give the pieces, and None whenever there was none for a while."""
        reading: asyncio.Future[bytes | None] | None = None
        try:
            while True:
                reading = reading or asyncio.ensure_future(_next(pieces))
                done, _ = await asyncio.wait({reading}, timeout=self._pause)
                if not done:
                    self._slower()
                    yield None
                    continue
                piece, reading = reading.result(), None
                if piece is None:
                    return
                yield piece
        finally:
            if reading is not None:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    async def _has_node(self) -> bool:
        return any(
            each.get("node_id") == self._job.node and each.get("state") == "ALIVE"
            for each in await self._dashboard.nodes()
        )

    def _too_long(self) -> Failure:
        limit = self._followed.start_timeout.total_seconds()
        return Failure(
            message=f"the cluster had no room for it within {limit:g} s",
            error_class=ErrorClass.QUOTA,
            name="StartTimeout",
            hint="lower what the step requires, enlarge the cluster, or raise `start_timeout` of the runtime",
        )


async def _next(pieces: AsyncGenerator[bytes, None]) -> bytes | None:
    return await anext(pieces, None)
