"""The nodes and the scheduler: every pod of the store gets a task that runs it."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

from flexcore.testing.kubernetes.addresses import Addresses
from flexcore.testing.kubernetes.events import Events
from flexcore.testing.kubernetes.pace import Pace
from flexcore.testing.kubernetes.pod import Place, PodRun
from flexcore.testing.kubernetes.resources import (
    NODE,
    NODES,
    PODS,
    Item,
    is_going,
    now,
    quantity,
    stamp,
    uid,
)
from flexcore.testing.kubernetes.store import Change, Store

_UNNOTICED_S = 40.0
_TOLERATED_S = 5.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Capacity:
    """What a node has: cores and bytes."""

    cpu: float = 8
    memory_bytes: float = 16 * 2**30


@dataclass
class Nodes:
    """All nodes, and the pods on them. A node that is down goes on running what it runs and tells nothing."""

    store: Store
    events: Events
    pace: Pace
    folder: Path
    capacity: Capacity
    rotate_bytes: int
    runs: dict[str, PodRun] = field(default_factory=dict)
    tasks: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    up: dict[str, asyncio.Event] = field(default_factory=dict)
    addresses: Addresses = field(default_factory=Addresses)
    began: list[Item] = field(default_factory=list)

    def add_node(self, name: str = NODE) -> None:
        """Bring a node up."""
        self.up.setdefault(name, asyncio.Event()).set()
        if self.store.find(NODES, "", name) is None:
            amounts = {"cpu": f"{self.capacity.cpu:g}", "memory": f"{int(self.capacity.memory_bytes)}", "pods": "110"}
            node = {"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}}
            self.store.add(NODES, {**node, "status": {"capacity": amounts, "allocatable": amounts}})
        self._say_ready(name, "True")

    async def run(self) -> None:
        """Follow all pods, for ever."""
        async for change in self.store.changes(self.store.floor):
            if change.resource == PODS:
                self._look(change)

    async def stop(self) -> None:
        """End all containers."""
        for task in self.tasks.values():
            task.cancel()
        await asyncio.gather(*self.tasks.values(), return_exceptions=True)
        for run in self.runs.values():
            await run.kill()

    async def lose(self, name: str, *, evicts: bool) -> None:
        """Let a node fall silent; with `evicts`, its pods are given up after a while, as where other nodes are left."""
        self.up[name].clear()
        await self.pace.rest(_UNNOTICED_S)
        if self.up[name].is_set():
            return
        self._say_ready(name, "Unknown")
        lost = [each for each in self.store.items(PODS) if each["spec"].get("nodeName") == name]
        for pod in lost:
            self.store.edit(pod, PODS, _unready)
        if evicts:
            await self.pace.rest(_TOLERATED_S)
            for pod in lost:
                self.store.edit(pod, PODS, _give_up)

    def find_back(self, name: str) -> None:
        """Let a node speak again."""
        self.up[name].set()
        self._say_ready(name, "True")
        for run in self.runs.values():
            run.report()

    def choose(self, pod: Item) -> tuple[str, str]:
        """Choose a node: its name, or nothing and the reason."""
        healthy = [name for name, event in self.up.items() if event.is_set()]
        total = len(self.up)
        if claims := [each for each in pod["spec"].get("volumes") or [] if "persistentVolumeClaim" in each]:
            missing = claims[0]["persistentVolumeClaim"]["claimName"]
            return "", f'0/{total} nodes are available: persistentvolumeclaim "{missing}" not found. not found'
        if not healthy:
            return "", f"0/{total} nodes are available: {total} node(s) had untolerated taint(s)."
        lacking = list(self._lacking(pod, healthy[0]))
        if not lacking:
            return healthy[0], ""
        rest = (
            "no new claims to deallocate, preemption: "
            if any("Insufficient" in each for each in lacking)
            else "preemption: "
        )
        why = ", ".join(f"{total} {each}" for each in lacking)
        text = f"0/{total} nodes are available: {why}. {rest}0/{total} nodes are available: "
        return "", f"{text}{total} Preemption is not helpful for scheduling."

    def _lacking(self, pod: Item, node: str) -> list[str]:
        spec = pod["spec"]
        labels = self.store.get(NODES, "", node)["metadata"]["labels"]
        wanted = spec.get("nodeSelector") or {}
        found = []
        if any(labels.get(key) != value for key, value in wanted.items()):
            found.append("node(s) didn't match Pod's node affinity/selector")
        there = [each for each in self.store.items(PODS) if each["spec"].get("nodeName") == node]
        used = [each for each in there if each["status"]["phase"] not in ("Succeeded", "Failed")]
        free = {"cpu": self.capacity.cpu, "memory": self.capacity.memory_bytes}
        for kind in sorted(_kinds(pod)):
            if _requested(pod, kind) > free.get(kind, 0) - sum(_requested(each, kind) for each in used):
                found.append(f"Insufficient {kind}")
        return found

    def _look(self, change: Change) -> None:
        pod, identity = change.item, uid(change.item)
        run = self.runs.get(identity)
        if change.type == "DELETED":
            if run is not None:
                run.is_removed.set()
        elif run is None:
            place = Place(folder=self.folder / "pods" / identity, address=self.addresses.next())
            run = PodRun(self.store, self.events, self.pace, pod, place, self.rotate_bytes)
            self.runs[identity] = run
            self.tasks[identity] = asyncio.create_task(self._tend(run))
        if run is not None and is_going(pod):
            run.grace_s = float(pod["metadata"]["deletionGracePeriodSeconds"])
            run.is_told_to_go.set()

    async def _tend(self, run: PodRun) -> None:
        with suppress(asyncio.CancelledError):
            node = await self._schedule(run)
            if node is not None:
                self.began.append(run.pod)
                await run.run(self.up[node])

    async def _schedule(self, run: PodRun) -> str | None:
        """Wait for a node. Nothing if the pod goes before it has one."""
        while not run.is_removed.is_set():
            found = self.store.find(PODS, run.namespace, run.name)
            if found is None or uid(found) != uid(run.pod):
                return None
            node, why = str(found["spec"].get("nodeName", "")), ""
            if not node:
                node, why = self.choose(found)
            if node:
                run.bind(node)
                return node
            run.cannot_be_scheduled(why)
            with suppress(TimeoutError):
                async with asyncio.timeout(self.pace.scaled(10)):
                    await run.is_removed.wait()
        return None

    def _say_ready(self, name: str, status: str) -> None:
        reason = {"True": "KubeletReady", "Unknown": "NodeStatusUnknown"}[status]
        condition = {"type": "Ready", "status": status, "reason": reason, "lastTransitionTime": stamp(now())}

        def edit(node: Item) -> None:
            node["status"]["conditions"] = [condition]
            taint = {"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}
            node["spec"] = {} if status == "True" else {"taints": [taint]}

        self.store.change(NODES, "", name, edit)


def _kinds(pod: Item) -> set[str]:
    return {kind for each in pod["spec"]["containers"] for kind in each["resources"].get("requests") or {}}


def _requested(pod: Item, kind: str) -> float:
    amounts = [(each["resources"].get("requests") or {}).get(kind, 0) for each in pod["spec"]["containers"]]
    return sum(map(quantity, amounts))


def _unready(pod: Item) -> None:
    for condition in pod["status"].get("conditions", []):
        if condition["type"] == "Ready" and pod["status"]["phase"] == "Running":
            condition["status"] = "False"


def _give_up(pod: Item) -> None:
    message = "Taint manager: deleting due to NoExecute taint"
    disrupt(pod, "DeletionByTaintManager", message)
    grace = int(pod["spec"].get("terminationGracePeriodSeconds", 30))
    pod["metadata"]["deletionTimestamp"] = stamp(now() + timedelta(seconds=grace))
    pod["metadata"]["deletionGracePeriodSeconds"] = grace


def disrupt(pod: Item, reason: str, message: str) -> None:
    """Write the condition that says who ended a pod."""
    condition = {
        "type": "DisruptionTarget",
        "status": "True",
        "lastProbeTime": None,
        "lastTransitionTime": stamp(now()),
    }
    pod["status"].setdefault("conditions", []).append({**condition, "reason": reason, "message": message})
