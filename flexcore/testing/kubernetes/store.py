"""All objects of the stand-in, with the history that watches are served from.

Objects are never changed in place: who changes one works on a copy, and the store keeps the copy under a new version.
"""

import asyncio
import copy
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from flexcore.testing.kubernetes.refusal import not_found
from flexcore.testing.kubernetes.resources import (
    Item,
    Resource,
    finalizers,
    is_going,
    new_uid,
    now,
    stamp,
)

Key = tuple[Resource, str, str]  # kind, namespace, name
_REMEMBERED = 50_000


@dataclass(frozen=True, slots=True)
class Change:
    """One write: the object after it, and before it if it was there."""

    version: int
    type: Literal["ADDED", "MODIFIED", "DELETED"]
    resource: Resource
    item: Item
    before: Item | None


class Store:
    """Objects by kind, namespace and name."""

    def __init__(self) -> None:
        self.version = 1000
        self.floor = self.version  # older versions cannot be watched from
        self._items: dict[Key, Item] = {}
        self._history: list[Change] = []
        self._changed = asyncio.Event()

    def get(self, resource: Resource, namespace: str, name: str) -> Item:
        """Read one, or refuse with 404."""
        found = self.find(resource, namespace, name)
        if found is None:
            raise not_found(resource, name)
        return found

    def find(self, resource: Resource, namespace: str, name: str) -> Item | None:
        """Read one if it is there."""
        return self._items.get((resource, namespace, name))

    def items(self, resource: Resource, namespace: str = "") -> list[Item]:
        """List a kind, in the order of namespace and name; all namespaces if none is given."""
        keys = sorted(
            ((key[1], key[2]) for key in self._items if key[0] == resource and namespace in ("", key[1])),
        )
        return [self._items[resource, *key] for key in keys]

    def everything(self) -> Iterator[tuple[Key, Item]]:
        """Go through all objects as they are now."""
        return iter(list(self._items.items()))

    def by_uid(self, identity: str) -> tuple[Key, Item] | None:
        """Find an object by its identity."""
        found = ((key, item) for key, item in self._items.items() if item["metadata"]["uid"] == identity)
        return next(found, None)

    def add(self, resource: Resource, item: Item) -> Item:
        """Keep a new object, whose name is free; gives it its identity."""
        kept = completed(resource, item)
        metadata = kept["metadata"]
        key = (resource, metadata.get("namespace", ""), metadata["name"])
        self._write("ADDED", key, kept, None)
        return kept

    def change(self, resource: Resource, namespace: str, name: str, edit: Callable[[Item], None]) -> Item:
        """Edit an object; nothing is written if the edit changes nothing. One that may go now, goes."""
        before = self.get(resource, namespace, name)
        item = copy.deepcopy(before)
        edit(item)
        if item == before:
            return before
        if is_going(item) and not finalizers(item) and is_released(item):
            # With its last finalizer an object goes as it was; a pod whose grace is over shows that first.
            if finalizers(before):
                self.remove(resource, namespace, name)
                return before
            self._write("MODIFIED", (resource, namespace, name), item, before)
            self.remove(resource, namespace, name)
            return item
        if item.get("spec") != before.get("spec"):
            item["metadata"]["generation"] = item["metadata"].get("generation", 1) + 1
        self._write("MODIFIED", (resource, namespace, name), item, before)
        return item

    def edit(self, item: Item, resource: Resource, edit: Callable[[Item], None]) -> Item | None:
        """Edit the object if it is still the very same."""
        metadata = item["metadata"]
        found = self.find(resource, metadata.get("namespace", ""), metadata["name"])
        if found is None or found["metadata"]["uid"] != metadata["uid"]:
            return None
        return self.change(resource, metadata.get("namespace", ""), metadata["name"], edit)

    def remove(self, resource: Resource, namespace: str, name: str) -> None:
        """Take an object away, whatever holds it."""
        key = (resource, namespace, name)
        before = self._items[key]
        self._write("DELETED", key, copy.deepcopy(before), before)

    def forget_history(self) -> None:
        """Serve no version of before, as an API server that was started anew."""
        self.version += 1
        self.floor = self.version

    def since(self, version: int) -> list[Change]:
        """Give what was written after a version."""
        low, high = 0, len(self._history)
        while low < high:
            middle = (low + high) // 2
            if self._history[middle].version <= version:
                low = middle + 1
            else:
                high = middle
        return self._history[low:]

    async def changes(self, version: int) -> AsyncGenerator[Change, None]:
        """Follow all writes after a version, for ever."""
        while True:
            waiting = self._changed
            for change in self.since(version):
                version = change.version
                yield change
            if waiting is self._changed:
                await waiting.wait()

    async def wait(self) -> None:
        """Wait for the next write."""
        await self._changed.wait()

    def _write(self, type: Literal["ADDED", "MODIFIED", "DELETED"], key: Key, item: Item, before: Item | None) -> None:
        self.version += 1
        item["metadata"]["resourceVersion"] = str(self.version)
        if type == "DELETED":
            del self._items[key]
        else:
            self._items[key] = item
        self._history.append(Change(self.version, type, key[0], item, before))
        if len(self._history) > 2 * _REMEMBERED:
            self._history = self._history[_REMEMBERED:]
            self.floor = self._history[0].version
        self._changed.set()
        self._changed = asyncio.Event()


def completed(resource: Resource, item: Item) -> Item:
    """Give a new object its identity, on a copy."""
    kept = {"kind": resource.kind, "apiVersion": resource.api_version, **copy.deepcopy(item)}
    metadata = kept["metadata"]
    metadata.pop("resourceVersion", None)
    identity = {"uid": metadata.get("uid") or new_uid(), "creationTimestamp": stamp(now())}
    kept["metadata"] = {**metadata, **identity}
    if resource.kind not in ("ConfigMap", "Secret", "Event", "ServiceAccount"):
        kept["metadata"]["generation"] = 1
    return kept


def is_released(item: Item) -> bool:
    """Say whether nobody needs more time to end what the object stands for."""
    return int(item["metadata"].get("deletionGracePeriodSeconds", 0)) == 0
