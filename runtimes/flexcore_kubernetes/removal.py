"""Ends work and removes what it left, and says what is there. Never by a name alone: the labels have to be ours.

A Secret or ConfigMap is ours by its own labels, or by those of the Job that it has its name from. The name counts by
itself only where we may not look at them, and nobody else has a Job of that name.
A Job is always deleted in the background with its uid as a precondition. Pods are told separately how long they have,
for a Job's deletion does not say; and nothing counts as gone before its pods are.
"""

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

from flexcore.model.ids import AttemptId, ExecutionId
from flexcore.runtime.interface import CleanupReport
from flexcore_kubernetes import paths
from flexcore_kubernetes.cluster import Call, Cluster, Object, Refused
from flexcore_kubernetes.identity import (
    RETAINED,
    attempt_of,
    name_of,
    of_execution,
    of_installation,
    of_name,
    selector,
    uid_of,
)
from flexcore_kubernetes.manifests import whole_seconds

_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.05, 0.5
_SETTLING = timedelta(seconds=10)


class Removal:
    """What is ours in a namespace, to be found and ended."""

    def __init__(self, cluster: Cluster, installation: str) -> None:
        self._cluster = cluster
        self._installation = installation

    async def end(self, name: str, grace: timedelta) -> CleanupReport:
        """End one attempt by its name, and wait a little longer than the grace until it is gone."""
        only = frozenset({name})
        job = await self._cluster.find(f"{paths.jobs(self._cluster.namespace)}/{name}")
        mine = job if job is not None and self._is_mine(job, name) else None
        if mine is not None:
            await self._end_job(mine)
        gone = await self._end_pods(name, grace)
        if not gone:
            return CleanupReport(pending=only)
        if mine is not None:  # they were made for it: that saves the looking
            await self._remove_namesakes(name)
        else:
            await self.remove_leftovers(name, is_taken=job is not None)
        return CleanupReport(gone=only)

    async def end_all(self, names: Iterable[str], grace: timedelta) -> CleanupReport:
        """End several attempts at the same time."""
        reports = await asyncio.gather(*(self.end(each, grace) for each in names))
        return CleanupReport(
            gone=frozenset[str]().union(*(each.gone for each in reports)),
            pending=frozenset[str]().union(*(each.pending for each in reports)),
        )

    async def of_execution(self, execution: ExecutionId) -> set[str]:
        """Name the attempts of an execution of which anything is there."""
        found = await self._listed(of_execution(self._installation, execution))
        return {name_of(each) for each in found} - {""}

    async def survey(self, installation: str) -> CleanupReport:
        """List what is there of an installation: attempts, and apart from them what is to stay."""
        labels = of_installation(installation)
        found = await self._listed(labels)
        retained = await self._retained(labels)
        attempts: dict[str, AttemptId] = {}
        for each in found:
            attempt = attempt_of(each)
            if attempt is not None and name_of(each):
                attempts[name_of(each)] = attempt
        names = frozenset({name_of(each) for each in found} - {""})
        return CleanupReport(pending=names, attempts=attempts, retained=frozenset(retained))

    async def remove_leftovers(self, name: str, *, is_taken: bool = False) -> None:
        """Remove Secret and ConfigMap of an attempt without a Job. `is_taken`: somebody else has one of its name."""
        await asyncio.gather(*(self._remove_labelled(place, name, is_taken) for place in self._beside()))

    async def _remove_labelled(self, place: str, name: str, is_taken: bool) -> None:
        try:
            listed = await self._cluster.get(place, labelSelector=self._made_for(name))
        except Refused as refused:
            if refused.status not in (403, 404):
                raise
            if not is_taken:
                await self._delete(f"{place}/{name}", {})
            return
        found = [each["metadata"] for each in listed.get("items") or []]
        await asyncio.gather(
            *(self._delete(f"{place}/{each['name']}", {"preconditions": {"uid": each["uid"]}}) for each in found)
        )

    async def _remove_namesakes(self, name: str) -> None:
        await asyncio.gather(*(self._delete(f"{place}/{name}", {}) for place in self._beside()))

    def _beside(self) -> tuple[str, str]:
        return paths.secrets(self._cluster.namespace), paths.config_maps(self._cluster.namespace)

    def _made_for(self, name: str) -> str:
        """Select what was made for an attempt, and not what it applied."""
        return f"{selector(of_name(self._installation, name))},!{RETAINED}"

    async def _end_job(self, job: Object) -> None:
        path = f"{paths.jobs(self._cluster.namespace)}/{job['metadata']['name']}"
        await self._delete(path, {"propagationPolicy": "Background", "preconditions": {"uid": uid_of(job)}})

    async def _end_pods(self, name: str, grace: timedelta) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + (grace + _SETTLING).total_seconds()
        seconds, pause = whole_seconds(grace), _FIRST_LOOK_S
        path = paths.pods(self._cluster.namespace)
        labels = self._made_for(name)
        while True:
            there = (await self._cluster.get(path, labelSelector=labels)).get("items") or []
            if not there:
                return True
            if loop.time() > until:
                return False
            await asyncio.gather(*(self._end_pod(each, seconds) for each in there))
            await asyncio.sleep(pause)
            pause = min(_LONGEST_LOOK_S, pause * 2)

    async def _end_pod(self, pod: Mapping[str, Any], seconds: int) -> None:
        """Delete a pod, unless somebody did already with no more patience than we have."""
        metadata = pod["metadata"]
        given = metadata.get("deletionGracePeriodSeconds")
        if "deletionTimestamp" in metadata and given is not None and given <= seconds:
            return
        path = f"{paths.pods(self._cluster.namespace)}/{metadata['name']}"
        await self._delete(path, {"gracePeriodSeconds": seconds, "preconditions": {"uid": uid_of(pod)}})

    async def _delete(self, path: str, options: Mapping[str, Any]) -> None:
        """Delete one object; one that is gone, is another by now, or is not ours to delete is left alone."""
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **options}
        try:
            await self._cluster.send(Call(method="DELETE", path=path, body=body))
        except Refused as refused:
            if refused.status not in (403, 404, 409):
                raise

    async def _listed(self, labels: Mapping[str, str]) -> list[Object]:
        """List Jobs, pods (also those that somebody orphaned) and, where allowed, what they were given."""
        namespace = self._cluster.namespace
        first = (paths.jobs(namespace), paths.pods(namespace))
        listed = await asyncio.gather(
            *(self._cluster.get(path, labelSelector=selector(labels)) for path in first),
            *(self._allowed(path, labels) for path in self._beside()),
        )
        items: list[Object] = [each for page in listed for each in page.get("items") or []]
        return [each for each in items if RETAINED not in (each["metadata"].get("labels") or {})]

    async def _retained(self, labels: Mapping[str, str]) -> set[str]:
        wanted = {**labels, RETAINED: "true"}
        places = {
            kind: paths.collection(version, word, self._cluster.namespace)
            for version, kind in paths.SURVEYED
            if (word := paths.plural(version, kind)) is not None
        }
        pages = await asyncio.gather(*(self._allowed(path, wanted) for path in places.values()))
        return {
            f"{kind}/{each['metadata']['name']}"
            for kind, page in zip(places, pages, strict=True)
            for each in page.get("items") or []
        }

    async def _allowed(self, path: str, labels: Mapping[str, str]) -> Object:
        """List what we may look at; nothing where we may not, or where the cluster does not know the kind."""
        try:
            return await self._cluster.get(path, labelSelector=selector(labels))
        except Refused as refused:
            if refused.status not in (403, 404):
                raise
            return {}

    def _is_mine(self, item: Mapping[str, Any], name: str) -> bool:
        found = item["metadata"].get("labels") or {}
        return all(found.get(key) == value for key, value in of_name(self._installation, name).items())
