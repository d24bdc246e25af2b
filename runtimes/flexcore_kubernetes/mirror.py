"""What is known of our Jobs, their pods and what the cluster warns of: merged from lists and watch events. Pure.

An object that a list lacks, or that a watch calls deleted, is only suspected to be gone: a label may have changed, a
list may be older than the object. Whoever waits for it confirms that by asking for the object itself.
"""

from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any

from flexcore_kubernetes.identity import CONTROLLER, name_of, uid_of
from flexcore_kubernetes.outcomes import Sight

Object = Mapping[str, Any]

_EVENTS_KEPT = 2000


class Resource(StrEnum):
    """What is watched."""

    JOBS = "jobs"
    PODS = "pods"
    EVENTS = "events"


class Mirror:
    """The last known state. Methods that change it give the external names for which something changed."""

    def __init__(self) -> None:
        self._jobs: dict[str, Object] = {}  # by uid
        self._pods: dict[str, Object] = {}
        self._events: dict[str, Object] = {}
        self._suspects: set[str] = set()  # uids of Jobs and pods that may be gone

    def replace(self, resource: Resource, items: Iterable[Object]) -> set[str]:
        """Take a whole list. What it lacks is suspected to be gone, not forgotten: its last state may be the end."""
        there = {uid_of(each): each for each in items}
        if resource is Resource.EVENTS:
            self._events = dict(there)
            return self._all_names()
        known = self._of(resource)
        missing = {uid for uid in known if uid not in there}
        changed = {name_of(known[uid]) for uid in missing - self._suspects}
        self._suspects |= missing
        self._suspects -= there.keys()
        known.update(there)  # as it is: after a restore of the cluster, versions may be lower than those we know
        return changed | {name_of(each) for each in there.values()}

    def put(self, resource: Resource, item: Object) -> set[str]:
        """Take an object that was created, read, or changed."""
        uid = uid_of(item)
        if resource is Resource.EVENTS:
            self._events[uid] = item
            while len(self._events) > _EVENTS_KEPT:
                self._events.pop(next(iter(self._events)))
            return self._names_of_event(item)
        known = self._of(resource)
        if uid in known and _version(item) < _version(known[uid]):
            return set()
        self._suspects.discard(uid)
        known[uid] = item
        return {name_of(item)}

    def drop(self, resource: Resource, item: Object) -> set[str]:
        """Take the last state of an object that a watch calls deleted."""
        if resource is Resource.EVENTS:
            return set()
        changed = self.put(resource, item)
        self._suspects.add(uid_of(item))
        return changed | {name_of(item)}

    def forget_gone(self, name: str) -> None:
        """Drop what is gone under a name that nobody follows."""
        for known in (self._jobs, self._pods):
            for uid in [uid for uid in self._suspects & known.keys() if name_of(known[uid]) == name]:
                del known[uid]
                self._suspects.discard(uid)

    def sight(self, uid: str) -> Sight | None:
        """Give what is seen of a Job; None when it was never seen."""
        job = self._jobs.get(uid)
        if job is None:
            return None
        pods = [each for each in self._pods.values() if _controller(each) == uid]
        pods.sort(key=lambda each: (each["metadata"].get("creationTimestamp", ""), each["metadata"]["name"]))
        mine = {uid, *map(uid_of, pods)}
        events = [each for each in self._events.values() if (each.get("involvedObject") or {}).get("uid") in mine]
        return Sight(job, tuple(pods), tuple(events))

    def is_suspect(self, uid: str) -> bool:
        """Whether an object may be gone."""
        return uid in self._suspects

    def _of(self, resource: Resource) -> dict[str, Object]:
        return self._jobs if resource is Resource.JOBS else self._pods

    def _names_of_event(self, event: Object) -> set[str]:
        uid = str((event.get("involvedObject") or {}).get("uid"))
        found = self._jobs.get(uid) or self._pods.get(uid)
        return set() if found is None else {name_of(found)}

    def _all_names(self) -> set[str]:
        return {name_of(each) for each in self._jobs.values()}


def _controller(pod: Object) -> str:
    """Give the uid of a pod's Job. An orphaned pod has only the label left."""
    metadata = pod["metadata"]
    owners = [each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")]
    return str((metadata.get("labels") or {}).get(CONTROLLER) or next(iter(owners), ""))


def _version(item: Object) -> int:
    """Order two states of the same object. Versions are opaque by contract, and numbers in every server there is."""
    text = str(item["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0
