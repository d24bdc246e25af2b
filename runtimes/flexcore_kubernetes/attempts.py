"""Drives attempts that are Jobs: look, ask, create or adopt, follow, judge.

It keeps nothing in memory that counts: the cluster knows. Whoever stops reading detaches.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.interface import ExecutionEvent, ExecutionRequest, ExecutionResult, Failed, Finished, Submitted
from flexcore.runtime.plugin import Link, RuntimeContext
from flexcore.runtime.portable import judgement
from flexcore.runtime.portable.data import VALID, DataLinks, step_data
from flexcore.runtime.portable.delivery import mark_of
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters
from flexcore.runtime.underway import EndedBefore, Underway
from flexcore_kubernetes import identity, outcomes, paths, preflight, refusals, steps
from flexcore_kubernetes.bookmarks import Bookmarks
from flexcore_kubernetes.cluster import Call, Cluster, Object, Refused
from flexcore_kubernetes.config import ContainerParameters, KubernetesConfig, KubernetesParameters
from flexcore_kubernetes.following import Followed, Following
from flexcore_kubernetes.manifests import LARGEST_BYTES, Place, Work
from flexcore_kubernetes.mirror import Resource
from flexcore_kubernetes.preflight import Preflight
from flexcore_kubernetes.removal import Removal
from flexcore_kubernetes.watching import SharedWatch, Subscription

_NO_DATA = DataLinks()


@dataclass(frozen=True, slots=True)
class Made:
    """A Job that is there. `adopted`: it was there before."""

    job: Object
    adopted: bool
    data: DataLinks


class Attempts:
    """The attempts of one instance that are Jobs."""

    def __init__(
        self,
        config: KubernetesConfig,
        context: RuntimeContext,
        cluster: Cluster,
        removal: Removal,
        underway: Underway,
    ) -> None:
        self._config = config
        self._context = context
        self._cluster = cluster
        self._removal = removal
        self._underway = underway
        self._preflight = Preflight(cluster)
        self.bookmarks = Bookmarks(context.state_folder / "bookmarks")
        self._watch = SharedWatch(cluster, context.installation, config.resync)
        self.start_latency: timedelta | None = None

    async def execute(self, request: ExecutionRequest, parameters: BaseModel) -> AsyncGenerator[ExecutionEvent, None]:
        """Run a step as a Job; closing it detaches."""
        place = self._place(request)
        with self._underway.read(place.name, request.id.execution):
            async with self._watch.subscribed(place.name) as seen:
                made = await self._begun(place, parameters)
                if isinstance(made, Failure):
                    yield _finished(judgement.hidden(made, request.secrets))
                    return
                seen.put(Resource.JOBS, made.job)
                yield Submitted(identity.handle_of(made.job, self._config.namespace), made.adopted, prepares=True)
                async with contextlib.aclosing(self._followed(place, parameters, made, seen)) as events:
                    async for event in events:
                        yield event

    async def _begun(self, place: Place, parameters: BaseModel) -> Made | Failure:
        try:
            return await self._underway.made(place.name, lambda: self._made(place, parameters))
        except EndedBefore:
            return outcomes.cancelled().failure

    def _place(self, request: ExecutionRequest) -> Place:
        left = None if request.deadline is None else request.deadline - self._context.now()
        return Place(config=self._config, installation=self._context.installation, request=request, time_left=left)

    async def _made(self, place: Place, parameters: BaseModel) -> Made | Failure:
        """Find the attempt's Job, or make it. A stored handle means a Job that has to be there."""
        request = place.request
        job = await self._cluster.find(f"{paths.jobs(self._config.namespace)}/{place.name}")
        if request.handle is not None and (job is None or identity.uid_of(job) != request.handle.identity):
            return outcomes.lost("the attempt's Job is gone, and how it ended cannot be known").failure
        data = await self._data(request, parameters)
        if isinstance(data, Failure):
            return data
        if job is not None:
            return self._adopted(place, job, data)
        return await self._created(place, parameters, data)

    def _adopted(self, place: Place, job: Object, data: DataLinks) -> Made | Failure:
        if identity.is_ours(job, self._context.installation, place.request):
            return Made(job, True, data)
        return outcomes.lost(f"the Job {place.name} belongs to another attempt, and not to this one").failure

    async def _data(self, request: ExecutionRequest, parameters: BaseModel) -> DataLinks | Failure:
        if not isinstance(parameters, PythonParameters | BashParameters):
            return _NO_DATA
        data = await step_data(parameters, self._context.artifacts, request.id)
        if isinstance(data, Failure) or self._config.shares_files:
            return data
        links = [*(each.link for each in data.inputs.values()), *(each.offer.link for each in data.outputs.values())]
        return _unreachable("the step's data is") if any(map(_is_file, links)) else data

    async def _created(self, place: Place, parameters: BaseModel, data: DataLinks) -> Made | Failure:
        began = self._context.now()
        work = await self._work(place, parameters, data)
        if isinstance(work, Failure):
            return work
        try:
            if self._config.preflight and (failure := await self._checked(work)) is not None:
                return failure
            await asyncio.gather(
                self._put(paths.secrets(self._config.namespace), work.secret),
                self._put(paths.config_maps(self._config.namespace), work.config_map),
            )
            made = await self._post(place, work, data)
        except Refused as refused:
            if await self._cluster.find(f"{paths.jobs(self._config.namespace)}/{place.name}") is None:
                await self._removal.remove_leftovers(place.name)
            return refusals.failure_of(refused, "the work")
        self.start_latency = self._context.now() - began
        return made

    async def _work(self, place: Place, parameters: BaseModel, data: DataLinks) -> Work | Failure:
        match parameters:
            case PythonParameters() | BashParameters():
                return await self._portable(place, parameters, data)
            case ContainerParameters():
                return await asyncio.to_thread(steps.container_work, place, parameters)
            case KubernetesParameters():
                return await asyncio.to_thread(steps.own_work, place, parameters)
            case _:
                raise AssertionError(f"no such parameters: {type(parameters).__name__}")

    async def _portable(
        self, place: Place, parameters: PythonParameters | BashParameters, data: DataLinks
    ) -> Work | Failure:
        packed = await asyncio.to_thread(steps.packed, place, parameters, data)
        if isinstance(packed, Failure):
            return packed
        link: Link | None = None
        if len(packed.files) > LARGEST_BYTES - (4 << 10):
            ref = await self._context.artifacts.put(packed.files, format="tar.gz")
            link = await self._context.artifacts.link(ref, VALID)
            if _is_file(link) and not self._config.shares_files:
                size = f"{len(packed.files) >> 10} KiB packed"
                return _unreachable(f"the workflow's files are too large for a ConfigMap ({size}), and")
        return await asyncio.to_thread(steps.portable_work, place, packed, link)

    async def _checked(self, work: Work) -> Failure | None:
        rights = [*preflight.JOBS, *preflight.PODS]
        rights += preflight.SECRETS if work.secret is not None else ()
        rights += preflight.CONFIG_MAPS if work.config_map is not None else ()
        missing = await self._preflight.permission(tuple(rights))
        return missing or await self._preflight.dry_run(work.job, work.dry_pod)

    async def _put(self, path: str, item: dict[str, Any] | None) -> None:
        """Create an object, or replace the one that an earlier try left."""
        if item is None:
            return
        try:
            await self._cluster.send(Call(method="POST", path=path, body=item))
        except Refused as refused:
            if refused.reason != "AlreadyExists":
                raise
            await self._cluster.send(Call(method="PUT", path=f"{path}/{item['metadata']['name']}", body=item))

    async def _post(self, place: Place, work: Work, data: DataLinks) -> Made | Failure:
        path = paths.jobs(self._config.namespace)
        query = {"fieldValidation": "Strict"}
        try:
            return Made(
                await self._cluster.send(Call(method="POST", path=path, query=query, body=work.job)), False, data
            )
        except Refused as refused:
            if refused.reason != "AlreadyExists":
                raise
        job = await self._cluster.find(f"{path}/{place.name}")
        if job is None or "deletionTimestamp" in job["metadata"]:
            raise RuntimeUnavailable(
                f"the Job {place.name} is being deleted", hint="it is created again once it is gone"
            )
        return self._adopted(place, job, data)

    def _followed(
        self, place: Place, parameters: BaseModel, made: Made, seen: Subscription
    ) -> AsyncGenerator[ExecutionEvent, None]:
        request, name = place.request, place.name
        is_portable = isinstance(parameters, PythonParameters | BashParameters)

        async def give_up() -> None:
            report = await self._removal.end(name, timedelta(0))
            if report.pending:  # it may start yet: whoever says that it failed would have two of it
                raise RuntimeUnavailable(f"{name} does not start, and is not gone yet", hint="it is looked at again")

        followed = Followed(
            request=request,
            uid=identity.uid_of(made.job),
            name=name,
            mark=mark_of(self._context.installation, request.id, request.token) if is_portable else "",
            data=made.data,
            bookmarks=self.bookmarks,
            start_timeout=timedelta(seconds=self._config.start_timeout),
            patience=timedelta(seconds=self._config.patience),
            was_ended=lambda: self._underway.was_ended(name),
            give_up=give_up,
            own=lambda: self._own(made.job),
        )
        return Following(self._cluster, self._watch, followed, self._context.now).events(seen)

    async def _own(self, job: Object) -> None:
        """Let Secret and ConfigMap go with the Job, should we never come back. Without the permission, they stay."""
        name = job["metadata"]["name"]
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": identity.uid_of(job)}
        body = {"metadata": {"ownerReferences": [owner]}}
        for place in (paths.secrets(self._config.namespace), paths.config_maps(self._config.namespace)):
            call = Call(method="PATCH", path=f"{place}/{name}", body=body, content_type="application/merge-patch+json")
            with contextlib.suppress(Refused, RuntimeUnavailable):
                await self._cluster.send(call)


def _finished(failure: Failure) -> Finished:
    return Finished(ExecutionResult(outcome=Failed(failure)))


def _is_file(link: Link) -> bool:
    return link.url.startswith("file:")


def _unreachable(what: str) -> Failure:
    return Failure(
        message=f"{what} in a folder of the control plane, which pods do not see",
        error_class=ErrorClass.INPUT,
        name="DataUnreachable",
        hint="keep artifacts in an object store (settings `artifacts`), or set shares_files if pods share the folder",
    )
