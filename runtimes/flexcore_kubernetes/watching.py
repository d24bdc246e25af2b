"""The shared watch of an instance: one for Jobs, one for pods, one for warnings, however many steps there are.

Each is a list, then a watch from there, over and over: after a clean end, an expired version, a broken connection,
and in any case after `resync`, for a watch may be deaf without knowing. Runs while somebody is subscribed.
"""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any

from flexcore.model.errors import RuntimeUnavailable
from flexcore_kubernetes.cluster import Call, Cluster, Refused
from flexcore_kubernetes.identity import of_installation, selector
from flexcore_kubernetes.mirror import Mirror, Resource
from flexcore_kubernetes.outcomes import Sight
from flexcore_kubernetes.paths import events, jobs, pods

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 2.0
_SILENCE_S = 10.0  # after the time at which the server has to end a watch
_PAGE = 500


class Subscription:
    """One reader's view of one name. `changed` is set whenever there may be something new."""

    def __init__(self, watch: "SharedWatch", name: str) -> None:
        self.changed = asyncio.Event()
        self.name = name
        self._watch = watch

    def sight(self, uid: str) -> Sight | None:
        """Give what is seen of a Job."""
        return self._watch.mirror.sight(uid)

    def is_suspect(self, uid: str) -> bool:
        """Whether an object may be gone."""
        return self._watch.mirror.is_suspect(uid)

    def put(self, resource: Resource, item: Mapping[str, Any]) -> None:
        """Take an object that the reader learnt of by itself."""
        self._watch.mirror.put(resource, item)

    @property
    def is_fresh(self) -> bool:
        """Whether there was a list of Jobs since this watch began."""
        return Resource.JOBS in self._watch.listed

    @property
    def silent_s(self) -> float:
        """How long the cluster has not answered; 0 while it does."""
        return self._watch.silent_s


class SharedWatch:
    """Keeps the mirror up to date and wakes whoever it concerns."""

    def __init__(self, cluster: Cluster, installation: str, resync_s: float) -> None:
        self.mirror = Mirror()
        self.listed: set[Resource] = set()
        self._cluster = cluster
        self._labels = selector(of_installation(installation))
        self._resync_s = max(1, round(resync_s))
        self._subscribed: dict[str, list[Subscription]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._failing_since: dict[Resource, float] = {}

    @property
    def silent_s(self) -> float:
        """How long Jobs or pods cannot be seen. Raises what a watch died of, which is a bug."""
        for task in self._tasks:
            if task.done():
                task.result()
        if not self._failing_since:
            return 0.0
        return asyncio.get_running_loop().time() - min(self._failing_since.values())

    @asynccontextmanager
    async def subscribed(self, name: str) -> AsyncGenerator[Subscription, None]:
        """Follow a name. The first one to come starts the watch, the last one to go ends it."""
        mine = Subscription(self, name)
        self._subscribed.setdefault(name, []).append(mine)
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._keep(each)) for each in Resource]
        try:
            yield mine
        finally:
            self._subscribed[name].remove(mine)
            if not self._subscribed[name]:
                del self._subscribed[name]
                self.mirror.forget_gone(name)
            if not self._subscribed:
                await self._stop()

    async def _stop(self) -> None:
        tasks, self._tasks = self._tasks, []
        self.mirror = Mirror()
        self.listed.clear()
        self._failing_since.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _keep(self, resource: Resource) -> None:
        pause, clock = _FIRST_PAUSE_S, asyncio.get_running_loop().time
        while True:
            began, wait = clock(), pause
            try:
                await self._round(resource)
            except (RuntimeUnavailable, Refused, ValueError) as error:  # the last: an answer cut off
                if resource is not Resource.EVENTS:
                    self._failing_since.setdefault(resource, clock())
                elif isinstance(error, Refused):
                    wait = self._resync_s  # events may be forbidden: causes are less clear then, and that is all
            # Also after a clean end: something in between may end every watch at once.
            pause = _FIRST_PAUSE_S if clock() - began > _LONGEST_PAUSE_S else min(_LONGEST_PAUSE_S, pause * 2)
            await asyncio.sleep(wait)
            self._wake({*self._subscribed})

    async def _round(self, resource: Resource) -> None:
        """List, then watch from there until the server ends it."""
        path, query = self._place(resource)
        items, version = await self._listed(path, query)
        self._failing_since.pop(resource, None)
        self.listed.add(resource)
        self._wake(self.mirror.replace(resource, items))
        watch = {**query, "watch": "true", "resourceVersion": version, "allowWatchBookmarks": "true"}
        call = Call(
            method="GET",
            path=path,
            query={**watch, "timeoutSeconds": self._resync_s},
            timeout_s=self._resync_s + _SILENCE_S,
        )
        async with contextlib.aclosing(self._cluster.stream(call)) as blocks:
            async for event in _lines(blocks):
                if event.get("type") == "ERROR":  # 410 above all: what we know is too old, list again
                    return
                self._wake(self._merged(resource, event))

    async def _listed(self, path: str, query: Mapping[str, str]) -> tuple[list[dict[str, Any]], str]:
        items: list[dict[str, Any]] = []
        token: str | None = None
        while True:
            page = await self._cluster.get(path, **query, **{"limit": _PAGE, "continue": token})
            items.extend(page.get("items") or [])
            metadata = page.get("metadata") or {}
            token = metadata.get("continue") or None
            if token is None:
                return items, str(metadata.get("resourceVersion", ""))

    def _place(self, resource: Resource) -> tuple[str, dict[str, str]]:
        namespace = self._cluster.namespace
        match resource:
            case Resource.JOBS:
                return jobs(namespace), {"labelSelector": self._labels}
            case Resource.PODS:
                return pods(namespace), {"labelSelector": self._labels}
            case Resource.EVENTS:
                return events(namespace), {"fieldSelector": "type=Warning"}

    def _merged(self, resource: Resource, event: Mapping[str, Any]) -> set[str]:
        match event.get("type"):
            case "ADDED" | "MODIFIED":
                return self.mirror.put(resource, event["object"])
            case "DELETED":
                return self.mirror.drop(resource, event["object"])
            case _:
                return set()

    def _wake(self, names: set[str]) -> None:
        for name in names:
            if name not in self._subscribed:
                self.mirror.forget_gone(name)
            for each in self._subscribed.get(name, ()):
                each.changed.set()


async def _lines(blocks: AsyncGenerator[bytes, None]) -> AsyncGenerator[dict[str, Any], None]:
    rest = b""
    async for block in blocks:
        *whole, rest = (rest + block).split(b"\n")
        for line in whole:
            if line.strip():
                yield json.loads(line)
