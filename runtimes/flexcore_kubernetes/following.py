"""Follows one Job to its end: phases, log, obstacles before its start, and then the result.

What is seen comes from the shared watch. It never decides that work has failed because nothing is seen.
"""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    LogChunk,
    LogStream,
    PhaseEntered,
    Progress,
)
from flexcore.runtime.portable import judgement
from flexcore.runtime.portable.data import DataLinks
from flexcore.runtime.portable.ending import EndingInLog
from flexcore_kubernetes import outcomes, results
from flexcore_kubernetes.bookmarks import KEPT, SPACING_BYTES, Bookmark, Bookmarks
from flexcore_kubernetes.cluster import Cluster
from flexcore_kubernetes.identity import CONTROLLER, uid_of
from flexcore_kubernetes.logs import MISSING, Piece, Source, follow
from flexcore_kubernetes.mirror import Resource
from flexcore_kubernetes.outcomes import Sight
from flexcore_kubernetes.paths import jobs, pods
from flexcore_kubernetes.watching import SharedWatch, Subscription

_TICK_S = 1.0
_LOG_PAUSE_S = 0.5
_LOG_PATIENCE_S = 10.0  # after the end, for what is still to come of the log
_WAITING_BLOCKS = 16
_QUIET = ("Starting", "NoPod")  # what is no news to people


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What is followed, and for whom. `mark` is empty where no far program runs."""

    request: ExecutionRequest
    uid: str
    name: str
    mark: str
    data: DataLinks
    bookmarks: Bookmarks
    start_timeout: timedelta
    patience: timedelta  # with a cluster that does not answer
    was_ended: Callable[[], bool]  # by us, in this process
    give_up: Callable[[], Awaitable[None]]  # ends work that does not start
    own: Callable[[], Awaitable[None]]  # ties to the Job what was made for it


@dataclass(frozen=True, slots=True)
class _Read:
    """A piece of the log of a pod, and the pods that were read before."""

    piece: Piece
    pod: str
    before: tuple[str, ...]


class Over(Enum):
    """How it came to an end."""

    JOB_ENDED = "the Job has its final condition"
    CANCELLED = "we deleted it"
    LOST = "somebody else deleted it"


class Following:
    """One reading of one Job."""

    def __init__(self, cluster: Cluster, watch: SharedWatch, followed: Followed, now: Callable[[], datetime]) -> None:
        self._cluster = cluster
        self._watch = watch
        self._followed = followed
        self._now = now
        self._phase_at = now()
        self._time = asyncio.get_running_loop().time
        self._idle_since = self._time()
        self._log_moved_at = 0.0
        self._blocks: deque[_Read] = deque()
        self._room = asyncio.Semaphore(_WAITING_BLOCKS)
        self._log_is_over = False
        self._known = followed.request.log_offsets.get(LogStream.STDOUT, 0)
        self._taken = self._position = 0  # bytes of the log, and those of them that are the step's own
        self._bookmarks: deque[Bookmark] = deque(maxlen=KEPT)
        self._is_marked = False  # since they were kept last
        self._resumed: Bookmark | None = None
        self._in_log = EndingInLog(followed.mark) if followed.mark else None
        self._sight: Sight | None = None
        self._runs = False
        self._noted: ErrorClass | None = None
        self._over: Over | None = None
        self._given_up: Failure | None = None
        self._wake: Callable[[], None] = lambda: None
        self._wake_log: Callable[[], None] = lambda: None

    async def events(self, seen: Subscription) -> AsyncGenerator[ExecutionEvent, None]:
        """Report until the end. Raises RuntimeUnavailable when the cluster has been silent for too long."""
        self._wake = seen.changed.set
        yield PhaseEntered(Phase.START, self._phase_at)
        reading = asyncio.create_task(self._read_log())
        try:
            async with aclosing(self._until_over(seen)) as events:
                async for event in events:
                    yield event
        finally:
            reading.cancel()
            ended = await asyncio.gather(reading, return_exceptions=True)
        if isinstance(ended[0], Exception):  # not the cancellation: a log that could not be read because of a bug
            raise ended[0]
        yield Finished(self._result())

    async def _until_over(self, seen: Subscription) -> AsyncGenerator[ExecutionEvent, None]:
        while not self._is_done():
            await _woken(seen, _TICK_S)
            self._sight = seen.sight(self._followed.uid) or self._sight
            found = (*self._news(), *self._drained())
            if self._is_marked and not self._followed.was_ended():  # before anybody stores what they are about
                self._is_marked = False
                await asyncio.to_thread(self._followed.bookmarks.keep, self._followed.name, tuple(self._bookmarks))
            for event in found:
                yield event
            if self._over is None:
                self._over = await self._ended(seen)
                self._log_moved_at = self._time()
                self._wake_log()
            if self._over is None and (failure := self._stuck()) is not None:
                await self._followed.give_up()
                self._given_up = failure
                return
            self._expect_answers(seen)
        self._expect_an_ending()
        for event in self._rest():
            yield event

    def _expect_an_ending(self) -> None:
        """Refuse to judge a step by half of its log: what it told may be in the other half."""
        if self._log_is_over or self._sight is None or self._in_log is None or self._over is not Over.JOB_ENDED:
            return
        if results.is_untold(self._sight, self._in_log):
            raise RuntimeUnavailable(
                f"runtime '{self._cluster.name}': {self._followed.name} has ended, and its log cannot be read",
                hint="its outcome is looked for again later",
            )

    def _is_done(self) -> bool:
        if self._over is None or self._blocks:
            return False
        return self._log_is_over or self._time() - self._log_moved_at > _LOG_PATIENCE_S

    def _expect_answers(self, seen: Subscription) -> None:
        if self._over is None and seen.silent_s > self._followed.patience.total_seconds():
            raise RuntimeUnavailable(
                f"runtime '{self._cluster.name}' has not answered for {seen.silent_s:.0f} s",
                hint="its work goes on where it is, and is looked for again later",
            )

    def _news(self) -> Iterator[ExecutionEvent]:
        """Tell when the work begins, and until then what it waits for, when that changes."""
        if self._sight is None or self._runs:
            return
        if (began := outcomes.has_started(self._sight)) is not None:
            self._runs = True
            yield PhaseEntered(Phase.RUN, max(began, self._phase_at))
            return
        found = outcomes.obstacle(self._sight)
        if found.row.reason in _QUIET or found.row.error_class is self._noted:
            return  # the reasons for one cause take turns
        self._noted = found.row.error_class
        yield Progress(None, f"waiting: {found.row.reason}: {found.message}")

    def _drained(self) -> Iterator[LogChunk]:
        while self._blocks:
            read = self._blocks.popleft()
            self._room.release()
            self._log_moved_at = self._time()
            if read.piece.has_gap:
                yield from self._missing()
            raw = read.piece.content
            self._taken += len(raw)
            yield from self._chunks(raw if self._in_log is None else self._in_log.feed(raw))
            self._mark(read)

    def _mark(self, read: _Read) -> None:
        """Remember the place, unless it is within what is not the step's own, or too near to the last one."""
        last = self._bookmarks[-1].offset + SPACING_BYTES if self._bookmarks else 0
        if read.piece.reached is None or self._taken != self._position or self._position < last:
            return
        place = Bookmark(offset=self._position, pod=read.pod, reached=read.piece.reached, before=read.before)
        self._bookmarks.append(place)
        self._is_marked = True

    def _rest(self) -> Iterator[LogChunk]:
        """Give what was held back, and say what is known to be missing."""
        if self._in_log is not None:
            yield from self._chunks(self._in_log.rest())
        if self._over is Over.JOB_ENDED and (self._position < self._known or not self._log_is_over):
            yield from self._missing()

    def _missing(self) -> Iterator[LogChunk]:
        """Say in the log that there is a gap, behind what is known: how much is missing cannot be told."""
        self._taken += max(0, self._known - self._position) + len(MISSING)
        self._position = max(self._position, self._known)
        yield from self._chunks(MISSING)

    def _chunks(self, data: bytes) -> Iterator[LogChunk]:
        """Give what the control plane does not have yet."""
        begin, self._position = self._position, self._position + len(data)
        new = data[max(0, self._known - begin) :]
        if new:
            yield LogChunk(LogStream.STDOUT, self._position - len(new), new)

    async def _ended(self, seen: Subscription) -> Over | None:
        """Say whether it is over. That the Job is gone is believed only when the cluster says so itself."""
        uid = self._followed.uid
        if seen.is_suspect(uid) or (self._sight is None and seen.is_fresh):
            found = await self._cluster.find(f"{jobs(self._cluster.namespace)}/{self._followed.name}")
            if found is None or uid_of(found) != uid:
                if self._sight is not None and outcomes.final(self._sight.job):
                    return Over.JOB_ENDED
                return Over.CANCELLED if self._followed.was_ended() else Over.LOST
            seen.put(Resource.JOBS, found)
            self._sight = seen.sight(uid)
        if self._sight is None or not outcomes.final(self._sight.job):
            return None
        if not outcomes.is_complete(self._sight):
            await self._look_at_pods(seen)
        return Over.JOB_ENDED

    async def _look_at_pods(self, seen: Subscription) -> None:
        """Ask for the pods: a Job's end may be seen before theirs."""
        labels = f"{CONTROLLER}={self._followed.uid}"
        found = await self._cluster.get(pods(self._cluster.namespace), labelSelector=labels)
        for each in found.get("items") or []:
            seen.put(Resource.PODS, each)
        self._sight = seen.sight(self._followed.uid) or self._sight

    def _stuck(self) -> Failure | None:
        """Say why the work will not start, when it has been waited for long enough or in vain."""
        if self._sight is None or outcomes.is_working(self._sight):
            self._idle_since = self._time()
            return None
        found = outcomes.obstacle(self._sight)
        waited = timedelta(seconds=self._time() - self._idle_since)
        if not found.row.hopeless and waited < self._followed.start_timeout:
            return None
        return found.failure(self._followed.start_timeout)

    def _result(self) -> ExecutionResult:
        request = self._followed.request
        if self._given_up is not None:
            return ExecutionResult(outcome=Failed(judgement.hidden(self._given_up, request.secrets)))
        if self._over is Over.CANCELLED:
            return ExecutionResult(outcome=outcomes.cancelled())
        if self._over is Over.LOST or self._sight is None:
            return ExecutionResult(outcome=outcomes.lost("its Job is gone, and how it ended cannot be known"))
        if self._in_log is None:
            return results.of_container(self._sight, request)
        return results.of_portable(self._sight, request, self._in_log, self._followed.data)

    async def _read_log(self) -> None:
        """Read the logs of the Job's pods one after the other, from where an earlier reading had come to."""
        done: list[str] = []
        if self._known:
            found = await asyncio.to_thread(self._followed.bookmarks.find, self._followed.name, self._known)
            if found is not None:
                self._resumed, self._taken, self._position = found, found.offset, found.offset
                self._bookmarks.append(found)
                done.extend(found.before)
        try:
            async with self._watch.subscribed(self._followed.name) as seen:
                self._wake_log = seen.changed.set
                await self._followed.own()
                while (pod := await self._next_pod(seen, done)) is not None:
                    await self._read_pod(seen, *pod, tuple(done))
                    done.append(pod[0])
        finally:
            self._log_is_over = True
            self._wake()

    async def _next_pod(self, seen: Subscription, done: Sequence[str]) -> tuple[str, str] | None:
        """Wait for a pod that has a log, and give its uid and name; None when there will be no more.

        They come in the order of their creation, but for the one in which an earlier reading had come to its place.
        """
        first = "" if self._resumed is None else self._resumed.pod
        while True:
            sight = seen.sight(self._followed.uid)
            pods = () if sight is None else sorted(sight.pods, key=lambda each: uid_of(each) != first)
            for pod in pods:
                if uid_of(pod) not in done and sight is not None and outcomes.has_log(pod, sight.main):
                    return uid_of(pod), pod["metadata"]["name"]
            if self._over is not None:
                return None
            await _woken(seen, _TICK_S)

    async def _read_pod(self, seen: Subscription, uid: str, name: str, before: tuple[str, ...]) -> None:
        def has_ended() -> bool:
            sight = seen.sight(self._followed.uid)
            there = () if sight is None else sight.pods
            pod = next((each for each in there if uid_of(each) == uid), None)
            return sight is None or pod is None or seen.is_suspect(uid) or outcomes.has_ended(pod, sight.main)

        async def pause() -> None:
            await _woken(seen, _LOG_PAUSE_S)

        sight = seen.sight(self._followed.uid)
        container = "" if sight is None else sight.main
        reached = None if self._resumed is None or self._resumed.pod != uid else self._resumed.reached
        source = Source(name, container, has_ended, pause, reached)
        async with aclosing(follow(self._cluster, source)) as pieces:
            async for piece in pieces:
                await self._room.acquire()
                self._blocks.append(_Read(piece, uid, before))
                self._wake()


async def _woken(seen: Subscription, at_most_s: float) -> None:
    """Wait until something may be new."""
    with suppress(TimeoutError):
        async with asyncio.timeout(at_most_s):
            await seen.changed.wait()
    seen.changed.clear()
