"""How objects go: preconditions, propagation, finalizers, and the collector of what has lost its owner."""

from collections.abc import Mapping
from typing import Any

from flexcore.testing.kubernetes.pace import Pace
from flexcore.testing.kubernetes.refusal import conflict
from flexcore.testing.kubernetes.resources import (
    JOBS,
    NAMESPACES,
    PODS,
    Item,
    Resource,
    after,
    drop_finalizer,
    finalizers,
    is_going,
    owner_uids,
    uid,
)
from flexcore.testing.kubernetes.store import Change, Store

FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"
KEPT_CHILDREN = (
    "child pods are preserved by default when jobs are deleted; "
    "set propagationPolicy=Background to remove them or set propagationPolicy=Orphan to suppress this warning"
)
_NOTICED_S = 0.1
_OVER = ("Succeeded", "Failed")


def delete(store: Store, resource: Resource, item: Item, options: Mapping[str, Any]) -> Item | None:
    """Begin to delete an object; gives it as it is then, or nothing if it is gone."""
    metadata = item["metadata"]
    _check(resource, item, options.get("preconditions") or {})
    namespace, name = metadata.get("namespace", ""), metadata["name"]
    policy = options.get("propagationPolicy") or ("Orphan" if resource == JOBS else "Background")
    finalizer = {"Foreground": FOREGROUND, "Orphan": ORPHAN}.get(policy)
    grace = _grace(resource, item, options)
    held = bool(finalizer) and (resource == JOBS or _has_dependents(store, item))

    def begin(going: Item) -> None:
        metadata = going["metadata"]
        if finalizer and held and finalizer not in finalizers(going):
            metadata["finalizers"] = [*finalizers(going), finalizer]
        if "deletionTimestamp" not in metadata or grace < metadata["deletionGracePeriodSeconds"]:
            metadata["deletionTimestamp"] = after(grace)
            metadata["deletionGracePeriodSeconds"] = grace
        if resource == NAMESPACES:
            _terminate(going)

    if resource == NAMESPACES:
        return store.change(resource, namespace, name, begin)
    if resource != PODS and not held and not finalizers(item):
        store.remove(resource, namespace, name)
        return None
    return store.change(resource, namespace, name, begin)


def _check(resource: Resource, item: Item, preconditions: Mapping[str, Any]) -> None:
    metadata = item["metadata"]
    for key, title in (("uid", "UID"), ("resourceVersion", "ResourceVersion")):
        wanted = preconditions.get(key)
        if wanted is not None and wanted != metadata[key]:
            message = (
                f"the {title} in the precondition ({wanted}) does not match the {title} in record ({metadata[key]}). "
                "The object might have been deleted and then recreated"
            )
            raise conflict(resource, metadata["name"], message, kind=resource.kind)


def _grace(resource: Resource, item: Item, options: Mapping[str, Any]) -> int:
    if resource != PODS:
        return 0
    if not item["spec"].get("nodeName") or item["status"].get("phase") in _OVER:
        return 0
    wanted = options.get("gracePeriodSeconds")
    return int(item["spec"].get("terminationGracePeriodSeconds", 30) if wanted is None else wanted)


def _has_dependents(store: Store, item: Item) -> bool:
    return any(uid(item) in owner_uids(each) for _, each in store.everything())


def _terminate(namespace: Item) -> None:
    namespace["status"] = {"phase": "Terminating"}
    namespace["metadata"].setdefault("finalizers", ["kubernetes"])


class Collector:
    """Ends what has lost its owner, and lets owners go that wait for what they own."""

    def __init__(self, store: Store, pace: Pace) -> None:
        self._store = store
        self._pace = pace

    async def run(self) -> None:
        """Follow all changes, for ever."""
        async for change in self._store.changes(self._store.version):
            if change.type == "DELETED" or is_going(change.item):
                await self._pace.rest(_NOTICED_S)  # other controllers are faster
            self._look(change)

    def _look(self, change: Change) -> None:
        found = self._store.by_uid(uid(change.item))
        if change.type == "DELETED":
            self._collect_dependents(uid(change.item))
            self._release_owners(change.item)
            self._release_namespace(change.item["metadata"].get("namespace", ""))
        elif found is not None:
            (resource, _, _), item = found
            if change.type == "ADDED" and any(self._store.by_uid(each) is None for each in owner_uids(item)):
                delete(self._store, resource, item, {"propagationPolicy": "Background"})
            elif is_going(item):
                self._tend(resource, item)

    def _tend(self, resource: Resource, item: Item) -> None:
        if resource == NAMESPACES:
            self._empty(item["metadata"]["name"])
        if ORPHAN in finalizers(item):
            for kind, each in self._dependents(uid(item)):
                self._store.edit(each, kind, lambda going: _disown(going, uid(item)))
            self._store.edit(item, resource, lambda going: drop_finalizer(going, ORPHAN))
        elif FOREGROUND in finalizers(item):
            for kind, each in self._dependents(uid(item)):
                if not is_going(each):
                    delete(self._store, kind, each, {"propagationPolicy": "Background"})
            if not self._dependents(uid(item)):
                self._store.edit(item, resource, lambda going: drop_finalizer(going, FOREGROUND))

    def _dependents(self, identity: str) -> list[tuple[Resource, Item]]:
        return [(key[0], item) for key, item in self._store.everything() if identity in owner_uids(item)]

    def _collect_dependents(self, identity: str) -> None:
        for kind, each in self._dependents(identity):
            if not is_going(each) and all(self._store.by_uid(owner) is None for owner in owner_uids(each)):
                delete(self._store, kind, each, {"propagationPolicy": "Background"})

    def _release_owners(self, item: Item) -> None:
        for owner in owner_uids(item):
            if (found := self._store.by_uid(owner)) and is_going(found[1]):
                self._tend(found[0][0], found[1])

    def _empty(self, namespace: str) -> None:
        for key, item in self._store.everything():
            if key[1] == namespace and not is_going(item):
                delete(self._store, key[0], item, {"propagationPolicy": "Background"})
        self._release_namespace(namespace)

    def _release_namespace(self, namespace: str) -> None:
        found = self._store.find(NAMESPACES, "", namespace)
        if found and is_going(found) and all(key[1] != namespace for key, _ in self._store.everything()):
            self._store.change(NAMESPACES, "", namespace, lambda going: drop_finalizer(going, "kubernetes"))


def _disown(item: Item, owner: str) -> None:
    left = [each for each in item["metadata"].get("ownerReferences", []) if each["uid"] != owner]
    if left:
        item["metadata"]["ownerReferences"] = left
    else:
        item["metadata"].pop("ownerReferences", None)
