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
        self._pods_of: dict[str, dict[str, Object]] = {}  # by the uid of their Job
        self._events: dict[str, Object] = {}
        self._events_of: dict[str, dict[str, Object]] = {}  # by the uid of what they are about
        self._suspects: set[str] = set()  # uids of Jobs and pods that may be gone

    def replace(self, resource: Resource, items: Iterable[Object]) -> set[str]:
        """Take a whole list. What it lacks is suspected to be gone, not forgotten: its last state may be the end."""
        there = {uid_of(each): each for each in items}
        if resource is Resource.EVENTS:
            self._events, self._events_of = {}, {}
            for each in there.values():
                self._put_event(each)
            return self._all_names()
        known = self._of(resource)
        missing = {uid for uid in known if uid not in there}
        changed = {name_of(known[uid]) for uid in missing - self._suspects}
        self._suspects |= missing
        self._suspects -= there.keys()
        for each in there.values():  # as it is: after a restore of the cluster, versions may be lower than known
            self._keep(resource, each)
        return changed | {name_of(each) for each in there.values()}

    def put(self, resource: Resource, item: Object) -> set[str]:
        """Take an object that was created, read, or changed."""
        uid = uid_of(item)
        if resource is Resource.EVENTS:
            self._put_event(item)
            return self._names_of_event(item)
        known = self._of(resource)
        if uid in known and _version(item) < _version(known[uid]):
            return set()
        self._suspects.discard(uid)
        self._keep(resource, item)
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
                gone = known.pop(uid)
                self._suspects.discard(uid)
                _take(self._pods_of, _controller(gone), uid)

    def sight(self, uid: str) -> Sight | None:
        """Give what is seen of a Job; None when it was never seen."""
        job = self._jobs.get(uid)
        if job is None:
            return None
        pods = list(self._pods_of.get(uid, {}).values())
        pods.sort(key=lambda each: (each["metadata"].get("creationTimestamp", ""), each["metadata"]["name"]))
        mine = (uid, *map(uid_of, pods))
        events = [event for each in mine for event in self._events_of.get(each, {}).values()]
        return Sight(job, tuple(pods), tuple(events))

    def is_suspect(self, uid: str) -> bool:
        """Whether an object may be gone."""
        return uid in self._suspects

    def _of(self, resource: Resource) -> dict[str, Object]:
        return self._jobs if resource is Resource.JOBS else self._pods

    def _keep(self, resource: Resource, item: Object) -> None:
        uid = uid_of(item)
        self._of(resource)[uid] = item
        if resource is Resource.PODS:
            self._pods_of.setdefault(_controller(item), {})[uid] = item

    def _put_event(self, event: Object) -> None:
        uid = uid_of(event)
        self._events[uid] = event
        self._events_of.setdefault(_about(event), {})[uid] = event
        while len(self._events) > _EVENTS_KEPT:
            oldest = next(iter(self._events))
            _take(self._events_of, _about(self._events.pop(oldest)), oldest)

    def _names_of_event(self, event: Object) -> set[str]:
        uid = _about(event)
        found = self._jobs.get(uid) or self._pods.get(uid)
        return set() if found is None else {name_of(found)}

    def _all_names(self) -> set[str]:
        return {name_of(each) for each in self._jobs.values()}


def _about(event: Object) -> str:
    return str((event.get("involvedObject") or {}).get("uid", ""))


def _take(groups: dict[str, dict[str, Object]], group: str, uid: str) -> None:
    """Take one out of its group, and the group with the last."""
    members = groups.get(group, {})
    members.pop(uid, None)
    if not members:
        groups.pop(group, None)


def _controller(pod: Object) -> str:
    """Give the uid of a pod's Job. An orphaned pod has only the label left."""
    metadata = pod["metadata"]
    owners = [each["uid"] for each in metadata.get("ownerReferences") or () if each.get("controller")]
    return str((metadata.get("labels") or {}).get(CONTROLLER) or next(iter(owners), ""))


def _version(item: Object) -> int:
    """Order two states of the same object. Versions are opaque by contract, and numbers in every server there is."""
    text = str(item["metadata"].get("resourceVersion", "0"))
    return int(text) if text.isdecimal() else 0
