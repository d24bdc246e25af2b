"""Drives attempts that are jobs of a cluster: look, submit, follow, judge, and end them.

There is one submission for an attempt, whoever asks and however often: a job's name follows from the attempt, Ray takes
a name once, and what is there under our name is ours only if its label says so. Nothing that matters is kept here: a
new instance finds everything in the cluster. A cluster that cannot be reached is never a failed attempt.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Handle
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, external_name
from flexcore.runtime.interface import (
    CleanupReport,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    Submitted,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.underway import EndedBefore, Underway
from flexcore_ray import outcomes
from flexcore_ray.capacity import Capacity, capacity
from flexcore_ray.client import AlreadyThere, Dashboard, Job, Refused
from flexcore_ray.clusters import Cluster, LocalCluster, RemoteCluster
from flexcore_ray.config import RayConfig, Scaling
from flexcore_ray.following import Followed, Following
from flexcore_ray.handle import SESSION, Label, handle_of, label_of
from flexcore_ray.removing import Removals
from flexcore_ray.steps import Step, Submission, marks_of, step_of, submission_of

_NAME = re.compile("fx-[a-z2-7]{32}")  # see `external_name`
_LOOK_AGAIN_S = 0.1
_STOP_MARGIN_S = 3.0  # beyond the grace, before a cleanup answers that the end is pending
_READER_S = 2.0  # how long a removal waits for a reader in this process to have read the end


@dataclass(frozen=True, slots=True)
class Begun:
    """An attempt's job that is there, where, and how it is told of."""

    dashboard: Dashboard
    step: Step
    job: Job
    submitted: Submitted


class RayAttempts:
    """The attempts of one instance."""

    def __init__(self, config: RayConfig, context: RuntimeContext) -> None:
        self.start_latency: timedelta | None = None
        self._config = config
        self._context = context
        is_local = config.cluster is not None
        self._cluster: Cluster = LocalCluster(config, context.state_folder) if is_local else RemoteCluster(config)
        self._reading: dict[str, asyncio.Event] = {}
        self._removals = Removals(self._is_read)
        self._underway = Underway()

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Run a step as a job; closing it detaches."""
        begun = await self._begun(request)
        if isinstance(begun, Failure):
            yield _failed(begun)
            return
        yield begun.submitted
        async with contextlib.aclosing(self._follow(begun.dashboard, request, begun.step, begun.job)) as events:
            async for event in events:
                yield event

    async def end(self, attempt: AttemptId, handle: Handle | None, grace: timedelta) -> CleanupReport:
        """End one attempt, wait until it has ended, and begin to have the cluster forget it."""
        name = external_name(self._context.installation, attempt)
        await self._underway.ending(name)
        dashboard = await self._cluster.dashboard(start=False)
        job = await dashboard.job(name) if dashboard is not None else None
        if dashboard is not None and job is not None and job.is_trace:
            await dashboard.delete(name)
        if dashboard is None or job is None or not self._is_meant(job, handle):
            return CleanupReport(gone=frozenset({name}))
        return await self._end(dashboard, job, grace)

    async def end_all(self, execution: ExecutionId, grace: timedelta) -> CleanupReport:
        """End all attempts of an execution, at the same time."""
        beginning = self._underway.of_execution(execution)
        await asyncio.gather(*map(self._underway.ending, beginning))
        dashboard = await self._cluster.dashboard(start=False)
        if dashboard is None:
            return CleanupReport(gone=beginning)
        ours = [job for job, label in await self._ours(dashboard) if label.execution == execution]
        await asyncio.gather(*(self._underway.ending(job.id) for job in ours))
        reports = await asyncio.gather(*(self._end(dashboard, job, grace) for job in ours))
        pending = frozenset[str]().union(*(report.pending for report in reports))
        gone = beginning.union(*(report.gone for report in reports)) - pending
        return CleanupReport(gone=gone, pending=pending)

    async def survey(self, installation: str) -> CleanupReport:
        """List the jobs of an installation, running or waiting to be read."""
        dashboard = await self._cluster.dashboard(start=False)
        if dashboard is None or installation != self._context.installation:
            return CleanupReport()
        ours = [(job, label) for job, label in await self._ours(dashboard) if job.id not in self._removals.names]
        return CleanupReport(
            pending=frozenset(job.id for job, _ in ours), attempts={job.id: label.attempt for job, label in ours}
        )

    async def dashboard(self) -> Dashboard | None:
        """Give the dashboard; None where a local cluster would have to be started first."""
        return await self._cluster.dashboard(start=False)

    async def close(self) -> None:
        """Let submissions and removals under way finish, and close connections."""
        await self._underway.close()
        await self._removals.close()
        await self._cluster.close()

    # --- finding and submitting

    async def _begun(self, request: ExecutionRequest) -> Begun | Failure:
        name = external_name(self._context.installation, request.id)
        with self._underway.read(name, request.id.execution):
            step = await step_of(request, self._config, self._context)
            if isinstance(step, Failure):
                return step
            dashboard = await self._cluster.dashboard(start=request.handle is None)
            if dashboard is None:
                return outcomes.lost("the local cluster it ran on has ended")
            found = await self._found(dashboard, request, step)
        if isinstance(found, Failure):
            return found
        job, label, adopted = found
        session = (await dashboard.version()).get("session_name", "")
        return Begun(dashboard, step, job, Submitted(handle_of(job, label, session), adopted, prepares=True))

    async def _found(
        self, dashboard: Dashboard, request: ExecutionRequest, step: Step
    ) -> tuple[Job, Label, bool] | Failure:
        """Find the attempt's job, or submit it if it never was: look, submit, look again."""
        name = external_name(self._context.installation, request.id)
        await self._removals.over(name)
        job = await dashboard.job(name)
        if job is not None:
            return self._adopted(job, request)
        if request.handle is not None:
            return await self._gone(dashboard, request.handle)
        submission = await self._submission(dashboard, request, step)
        if isinstance(submission, Failure):
            return submission
        try:
            await self._submit(dashboard, name, submission)
        except EndedBefore:
            return outcomes.ENDED_BEFORE
        except Refused as error:
            return Failure(message=f"Ray refuses the job: {error}", error_class=ErrorClass.INPUT, name="Refused")
        except AlreadyThere:
            pass  # by another control plane that has the same attempt; whose it is, its label says
        job = await dashboard.job(name)
        if job is None:
            raise RuntimeUnavailable(f"job {name} was submitted, and Ray does not know it (yet)")
        adopted = self._adopted(job, request)
        if isinstance(adopted, Failure):
            return adopted
        return job, adopted[1], adopted[1].nonce != submission.label.nonce

    def _adopted(self, job: Job, request: ExecutionRequest) -> tuple[Job, Label, bool] | Failure:
        if job.is_trace:
            return outcomes.lost("it had ended, and the cluster was told to forget it")
        label = label_of(job)
        if label is None or not label.means(request, self._context.installation):
            return outcomes.lost(f"under its name {job.id} there is a job that somebody else submitted")
        if request.handle is not None and request.handle.identity != label.identity:
            return outcomes.lost(f"the job under its name {job.id} is another one")
        return job, label, True

    async def _gone(self, dashboard: Dashboard, handle: Handle) -> Failure:
        session = (await dashboard.version()).get("session_name", "")
        before = handle.data.get(SESSION)
        if before and before != session:
            return outcomes.lost(f"the cluster was started anew (it was {before}, and is {session} now)")
        return outcomes.lost("the cluster does not know it any more")

    async def _submission(self, dashboard: Dashboard, request: ExecutionRequest, step: Step) -> Submission | Failure:
        size = await self.capacity(dashboard)
        shortage = size.shortage(request.requirements, step.resources)
        if shortage and not size.autoscales:
            hint = "lower what the step requires, or enlarge the cluster"
            return Failure(message=shortage, error_class=ErrorClass.QUOTA, name="Infeasible", hint=hint)
        return await submission_of(request, step, self._config, self._context, size.tags)

    async def capacity(self, dashboard: Dashboard) -> Capacity:
        """Ask how large the cluster is; with `scaling: none`, what it may become does not count."""
        nodes = await dashboard.nodes()
        return capacity(nodes, await dashboard.status() if self._config.scaling is Scaling.AUTO else {})

    async def _submit(self, dashboard: Dashboard, name: str, submission: Submission) -> None:
        self._underway.check(name)  # what is uploaded for nothing would stay in the cluster
        packed = submission.packed
        if not await dashboard.has_package(packed.program.name):
            await dashboard.put_package(packed.program.name, packed.program.content)
        await dashboard.put_package(packed.order.name, packed.order.content)
        await self._underway.made(name, lambda: dashboard.submit(name, submission.job))

    # --- following and ending

    async def _follow(
        self, dashboard: Dashboard, request: ExecutionRequest, step: Step, job: Job
    ) -> AsyncGenerator[ExecutionEvent, None]:
        read = self._reading[job.id] = asyncio.Event()
        followed = Followed(
            request=request,
            data=step.data,
            marks=marks_of(self._context.installation, request),
            start_timeout=timedelta(seconds=self._config.start_timeout),
            now=self._context.now,
        )
        following, asked = Following(dashboard, job, followed), self._context.now()
        try:
            async with contextlib.aclosing(following.events()) as events:
                async for event in events:
                    if isinstance(event, Finished):
                        read.set()  # before it is given: whoever removes the job waits for its reading, not for more
                    yield event
                    if following.began is not None and request.handle is None:
                        self.start_latency = following.began - asked
        finally:
            read.set()
            self._reading.pop(job.id, None)

    async def _end(self, dashboard: Dashboard, job: Job, grace: timedelta) -> CleanupReport:
        name = frozenset({job.id})
        found: Job | None = job
        if not job.is_over:
            await dashboard.stop(job.id)
            found = await self._stopped(dashboard, job, grace.total_seconds() + _STOP_MARGIN_S)
        if found is not None and not found.is_over:
            return CleanupReport(pending=name)
        if found is not None:
            self._removals.begin(dashboard, found, self._context.now())
        return CleanupReport(gone=name)

    async def _is_read(self, name: str) -> None:
        if (reading := self._reading.get(name)) is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(reading.wait(), _READER_S)

    async def _stopped(self, dashboard: Dashboard, job: Job, patience_s: float) -> Job | None:
        """Look until the job is over or patience is; None when it is not there any more."""
        until = asyncio.get_running_loop().time() + patience_s
        found: Job | None = job
        while found is not None and not found.is_over and asyncio.get_running_loop().time() < until:
            await asyncio.sleep(_LOOK_AGAIN_S)
            found = await dashboard.job(job.id)
        return found

    async def _ours(self, dashboard: Dashboard) -> list[tuple[Job, Label]]:
        found = [(job, label_of(job)) for job in await self._jobs(dashboard)]
        ours = self._context.installation
        return [(job, label) for job, label in found if label is not None and label.installation == ours]

    async def _jobs(self, dashboard: Dashboard) -> list[Job]:
        """List the jobs, and delete what is left of names like ours: no work, and nobody can tell whose it was."""
        jobs = await dashboard.jobs()
        traces = [job for job in jobs if job.is_trace and _NAME.fullmatch(job.id)]
        for job in traces:
            await dashboard.delete(job.id)
        return [job for job in jobs if not job.is_trace]

    def _is_meant(self, job: Job, handle: Handle | None) -> bool:
        """Whether a job under our name is ours to end, and the one that the handle means."""
        label = label_of(job)
        if label is None or label.installation != self._context.installation:
            return False
        return handle is None or handle.identity == label.identity


def _failed(failure: Failure) -> Finished:
    return Finished(ExecutionResult(outcome=Failed(failure)))
