"""Ends work and removes what it left, and says what is there. Never by a name alone: the labels have to be ours.

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
        await self._end_job(name)
        gone = await self._end_pods(name, grace)
        if not gone:
            return CleanupReport(pending=only)
        await self.remove_leftovers(name)
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

    async def remove_leftovers(self, name: str) -> None:
        """Remove the Secret and the ConfigMap of an attempt."""
        namespace = self._cluster.namespace
        places = (paths.secrets(namespace), paths.config_maps(namespace))
        await asyncio.gather(*(self._delete(f"{place}/{name}", {}) for place in places))

    async def _end_job(self, name: str) -> None:
        path = f"{paths.jobs(self._cluster.namespace)}/{name}"
        job = await self._cluster.find(path)
        if job is not None and self._is_mine(job, name):
            await self._delete(path, {"propagationPolicy": "Background", "preconditions": {"uid": uid_of(job)}})

    async def _end_pods(self, name: str, grace: timedelta) -> bool:
        loop = asyncio.get_running_loop()
        until = loop.time() + (grace + _SETTLING).total_seconds()
        seconds, pause = whole_seconds(grace), _FIRST_LOOK_S
        path = paths.pods(self._cluster.namespace)
        labels = f"{selector(of_name(self._installation, name))},!{RETAINED}"  # a pod may have been applied
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
        more = (paths.secrets(namespace), paths.config_maps(namespace))
        listed = await asyncio.gather(
            *(self._cluster.get(path, labelSelector=selector(labels)) for path in first),
            *(self._allowed(path, labels) for path in more),
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
