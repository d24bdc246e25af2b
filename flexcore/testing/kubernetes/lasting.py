"""The controllers of what lasts: Deployments and StatefulSets keep pods running, Services get an address."""

import asyncio
import copy

from flexcore.testing.kubernetes.admission import admit
from flexcore.testing.kubernetes.deletion import delete
from flexcore.testing.kubernetes.events import Events
from flexcore.testing.kubernetes.pace import Pace
from flexcore.testing.kubernetes.refusal import Refusal
from flexcore.testing.kubernetes.resources import (
    DEPLOYMENTS,
    PODS,
    SERVICES,
    STATEFUL_SETS,
    Item,
    Resource,
    after,
    generated_name,
    is_going,
    owner_uids,
    uid,
)
from flexcore.testing.kubernetes.store import Change, Store
from flexcore.testing.kubernetes.validation import with_defaults

_SETS = (DEPLOYMENTS, STATEFUL_SETS)


class Lasting:
    """Looks at every set of pods after each change of it or of a pod of it."""

    def __init__(self, store: Store, events: Events, pace: Pace) -> None:
        self._store = store
        self._events = events
        self._pace = pace
        self._addresses = 0

    async def run(self) -> None:
        """Follow all changes, for ever."""
        async for change in self._store.changes(self._store.floor):
            self._look(change)
            await asyncio.sleep(0)

    def _look(self, change: Change) -> None:
        if change.resource == SERVICES and change.type == "ADDED":
            self._serve(change.item)
        if change.resource in _SETS and change.type != "DELETED":
            self._tend(change.resource, change.item)
        if change.resource == PODS:
            for owner in owner_uids(change.item):
                if (found := self._store.by_uid(owner)) and found[0][0] in _SETS:
                    self._tend(found[0][0], found[1])

    def _serve(self, service: Item) -> None:
        self._addresses += 1
        address = f"10.96.0.{self._addresses}"

        def edit(item: Item) -> None:
            spec = item.setdefault("spec", {})
            if spec.get("clusterIP") is None:
                spec |= {"clusterIP": address, "clusterIPs": [address]}
            kind = spec.setdefault("type", "ClusterIP")
            ingress = (
                {"loadBalancer": {"ingress": [{"ip": address}]}} if kind == "LoadBalancer" else {"loadBalancer": {}}
            )
            item.setdefault("status", ingress)

        self._store.edit(service, SERVICES, edit)

    def _tend(self, resource: Resource, item: Item) -> None:
        current = self._store.find(resource, item["metadata"]["namespace"], item["metadata"]["name"])
        if current is None or uid(current) != uid(item) or is_going(current):
            return
        pods = [each for each in self._pods(current) if not is_going(each)]
        fresh = [each for each in pods if _made_from(each, current)]
        for pod in [each for each in pods if each not in fresh] + fresh[current["spec"].get("replicas", 1) :]:
            delete(self._store, PODS, pod, {})
        for _ in range(current["spec"].get("replicas", 1) - len(fresh)):
            if not self._make(resource, current):
                break
        self._store.edit(
            current, resource, lambda each: _count(each, [pod for pod in self._pods(current) if not is_going(pod)])
        )

    def _pods(self, item: Item) -> list[Item]:
        return [
            each for each in self._store.items(PODS, item["metadata"]["namespace"]) if uid(item) in owner_uids(each)
        ]

    def _make(self, resource: Resource, item: Item) -> bool:
        template = copy.deepcopy(item["spec"]["template"])
        metadata, prefix = template.setdefault("metadata", {}), f"{item['metadata']['name']}-"
        owner = {"apiVersion": resource.api_version, "kind": resource.kind, "name": item["metadata"]["name"]}
        metadata |= {"generateName": prefix, "name": generated_name(prefix)}
        metadata["ownerReferences"] = [{**owner, "uid": uid(item), "controller": True, "blockOwnerDeletion": True}]
        metadata.setdefault("annotations", {})["template"] = _print(item)
        pod = with_defaults(PODS, template, item["metadata"]["namespace"])
        try:
            admit(self._store, PODS, pod)
        except Refusal as refusal:
            self._events.warning(item, "FailedCreate", f"Error creating: {refusal.message}")
            return False
        self._store.add(PODS, pod)
        return True


def _print(item: Item) -> str:
    return str(hash(repr(item["spec"]["template"])))


def _made_from(pod: Item, item: Item) -> bool:
    return bool((pod["metadata"].get("annotations") or {}).get("template") == _print(item))


def _count(item: Item, pods: list[Item]) -> None:
    ready = sum(_is_ready(each) for each in pods)
    wanted = item["spec"].get("replicas", 1)
    before = item.get("status") or {}
    status: Item = {
        "observedGeneration": item["metadata"]["generation"],
        "replicas": len(pods),
        "updatedReplicas": len(pods),
    }
    if ready:
        status |= {"readyReplicas": ready, "availableReplicas": ready}
    if ready < wanted:
        status["unavailableReplicas"] = wanted - ready
    available = "True" if ready >= wanted else "False"
    reason = "MinimumReplicasAvailable" if ready >= wanted else "MinimumReplicasUnavailable"
    known = {each["type"]: each for each in before.get("conditions", [])}
    kept = known.get("Available")
    at = kept["lastTransitionTime"] if kept and kept["status"] == available else after(0)
    status["conditions"] = [{"type": "Available", "status": available, "reason": reason, "lastTransitionTime": at}]
    item["status"] = status


def _is_ready(pod: Item) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
