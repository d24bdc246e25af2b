"""Events: what the parts of a cluster say about objects. The same said again only counts up."""

import time

from flexcore.testing.kubernetes.resources import EVENTS, Item, after
from flexcore.testing.kubernetes.store import Store


class Events:
    """Writes events into the store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[tuple[str, str, str, str], str] = {}

    def normal(self, about: Item, reason: str, message: str, *, container: str = "", counted: bool = True) -> None:
        """Say that something went as it should."""
        self._say("Normal", about, reason, message, container, counted)

    def warning(self, about: Item, reason: str, message: str, *, container: str = "", counted: bool = True) -> None:
        """Say that something did not go well."""
        self._say("Warning", about, reason, message, container, counted)

    def _say(self, type: str, about: Item, reason: str, message: str, container: str, counted: bool) -> None:
        metadata = about["metadata"]
        namespace = metadata.get("namespace", "default")
        key = (metadata["uid"], reason, message, container)
        if counted and (known := self._known.get(key)) and self._store.find(EVENTS, namespace, known):
            self._store.change(EVENTS, namespace, known, _again)
            return
        fields = {"kind": about["kind"], "name": metadata["name"], "uid": metadata["uid"]}
        involved = {**fields, "apiVersion": about["apiVersion"], "resourceVersion": metadata["resourceVersion"]}
        if "namespace" in metadata:
            involved["namespace"] = namespace
        if container:
            involved["fieldPath"] = container
        name = f"{metadata['name']}.{time.time_ns():x}"  # so that they are listed in their order
        event: Item = {
            "metadata": {"name": name, "namespace": namespace},
            "involvedObject": involved,
            "type": type,
            "reason": reason,
            "message": message,
            "firstTimestamp": after(0),
            "lastTimestamp": after(0),
        }
        if counted:
            event["count"] = 1
        self._store.add(EVENTS, event)
        self._known[key] = name


def _again(event: Item) -> None:
    event["count"] += 1
    event["lastTimestamp"] = after(0)
