"""Has the cluster forget jobs that are over, in the background, and not before it has let go of them.

Ray looks after a job once a second, and for a moment longer than the job lives. A job that is deleted in that moment
comes back as a record without a label, `FAILED`, under the same name, which nobody could tell whose it was. So the
record stays, with its label on it, until Ray has noted that it is done with the job, or has had the time to.
"""

import asyncio
import contextlib
from datetime import datetime, timedelta
from typing import Protocol

from flexcore.model.errors import FlexCoreError
from flexcore_ray.client import Dashboard, Job

_LOOK_S = 0.3
_LETS_GO_S = 4.0  # after the end; Ray takes three of its rounds at the most
_COMES_BACK_S = 2.0  # for so long a record may come back that had to be deleted without Ray's word
_LONG_AGO = timedelta(minutes=1)  # no clock of a cluster is so wrong, and no round so long
_CLOSE_S = 5.0


class Reading(Protocol):
    """Somebody in this process who reads the job's log, and needs it until the end was read."""

    async def __call__(self, name: str) -> None:
        """Wait until it was read, for a bounded time."""
        ...


class Removals:
    """The removals under way in this process. What a crash leaves of them, a sweep finds by its label."""

    def __init__(self, is_read: Reading) -> None:
        self._is_read = is_read
        self._tasks: dict[str, asyncio.Task[None]] = {}

    @property
    def names(self) -> frozenset[str]:
        """The jobs that are being removed: of those, nothing runs."""
        return frozenset(self._tasks)

    def begin(self, dashboard: Dashboard, job: Job, now: datetime) -> None:
        """Remove a job that is over. Returns at once; a cluster that cannot be reached keeps the record."""
        if job.id not in self._tasks:
            task = self._tasks[job.id] = asyncio.ensure_future(self._removed(dashboard, job, now))
            task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    async def over(self, name: str) -> None:
        """Wait until a job is no longer being removed."""
        if (task := self._tasks.get(name)) is not None:
            await asyncio.wait({task})

    async def close(self) -> None:
        """Let those under way finish, for a bounded time."""
        tasks = list(self._tasks.values())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=_CLOSE_S)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _removed(self, dashboard: Dashboard, job: Job, now: datetime) -> None:
        with contextlib.suppress(FlexCoreError):
            await self._is_read(job.id)
            let_go = _ended_long_ago(job, now) or await _let_go(dashboard, job)
            await dashboard.delete(job.id)
            if not let_go:
                await _deleted_again(dashboard, job)


def _ended_long_ago(job: Job, now: datetime) -> bool:
    return job.ended_at is not None and now - job.ended_at > _LONG_AGO


async def _let_go(dashboard: Dashboard, job: Job) -> bool:
    """Wait until Ray notes that it is done with a job; False when it did not say so in time."""
    until = asyncio.get_running_loop().time() + _LETS_GO_S
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(_LOOK_S)
        if await dashboard.is_done_with(job.id):
            return True
    return False


async def _deleted_again(dashboard: Dashboard, job: Job) -> None:
    until = asyncio.get_running_loop().time() + _COMES_BACK_S
    while asyncio.get_running_loop().time() < until:
        await asyncio.sleep(_LOOK_S)
        if await dashboard.job(job.id) is not None:
            await dashboard.delete(job.id)
            return
