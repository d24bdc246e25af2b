"""One pod on its node, from its binding to its removal: volumes, containers in their order, ends and reports."""

import asyncio
import secrets
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from flexcore.testing.kubernetes.containers import CannotStart, Container, Order
from flexcore.testing.kubernetes.events import Events
from flexcore.testing.kubernetes.images import SYNC_S, Images
from flexcore.testing.kubernetes.logs import ContainerLog
from flexcore.testing.kubernetes.pace import Pace
from flexcore.testing.kubernetes.pod_status import PodState, Slot, scheduled
from flexcore.testing.kubernetes.resources import PODS, Item, now, quantity, stamp
from flexcore.testing.kubernetes.store import Store
from flexcore.testing.kubernetes.surroundings import (
    Surroundings,
    Unconfigured,
    command_of,
)

_MOST_TOLD = 4096
_MOST_TOLD_OF_LOG = 2048
_NO_START = (
    "failed to create containerd task: failed to create shim task: OCI runtime create failed: runc create failed: "
    "unable to start container process: "
)
_DEADLINE = "Pod was active on the node longer than the specified deadline"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a pod keeps its files, and the address that it may listen on."""

    folder: Path
    address: str


class PodRun:
    """A pod being run."""

    def __init__(self, store: Store, events: Events, pace: Pace, pod: Item, place: Place, rotate_bytes: int) -> None:
        self.pod = pod
        self.namespace: str = pod["metadata"]["namespace"]
        self.name: str = pod["metadata"]["name"]
        self.state = PodState(
            inits=[Slot(each, is_init=True) for each in pod["spec"].get("initContainers") or []],
            mains=[Slot(each) for each in pod["spec"]["containers"]],
            address=place.address,
        )
        self.is_told_to_go = asyncio.Event()
        self.is_removed = asyncio.Event()
        self.is_evicted = asyncio.Event()
        self.grace_s = 0.0
        self._eviction = ""
        self._store = store
        self._events = events
        self._pace = pace
        self._place = place
        self._rotate_bytes = rotate_bytes
        self._node_is_up = asyncio.Event()
        self._images = Images(events, pace, pod, self.report)

    def bind(self, node: str) -> None:
        """Take the scheduler's choice."""

        def edit(pod: Item) -> None:
            pod["spec"]["nodeName"] = node
            pod["status"]["conditions"] = [scheduled(True)]

        self._store.edit(self.pod, PODS, edit)
        message = f"Successfully assigned {self.namespace}/{self.name} to {node}"
        self._events.normal(self.pod, "Scheduled", message, counted=False)

    def cannot_be_scheduled(self, why: str) -> None:
        """Take the scheduler's refusal."""

        def edit(pod: Item) -> None:
            if not pod["status"].get("conditions"):
                pod["status"]["conditions"] = [scheduled(False, why)]

        self._store.edit(self.pod, PODS, edit)
        self._events.warning(self.pod, "FailedScheduling", why, counted=False)

    async def run(self, node_is_up: asyncio.Event) -> None:
        """Run the pod to its end, and remove it when it was told to go."""
        self._node_is_up = node_is_up
        self.state.started_at = stamp(now())
        if not await self._unless_told(self._work()):
            await self._obey()
        await self._wait_to_go()

    def report(self) -> None:
        """Write the status, unless the node is cut off; then it is written when the node is back."""
        if self._node_is_up.is_set() and self.state.started_at:
            self._store.edit(self.pod, PODS, self.state.apply)

    def evict(self, message: str) -> None:
        """End the pod for lack of something on the node."""
        self._eviction = message
        self.is_evicted.set()

    async def kill(self) -> None:
        """End all processes."""
        await asyncio.gather(*(each.run.end(0) for each in self.state.slots if each.run is not None))

    async def _unless_told(self, work: Coroutine[None, None, None]) -> bool:
        """Do the work until it is done (true), or until the pod has to end for another reason (false)."""
        doing = asyncio.create_task(work)
        told = asyncio.create_task(self._told())
        try:
            await asyncio.wait({doing, told}, return_when=asyncio.FIRST_COMPLETED)
            if not doing.done():
                return False
            await doing
            return True
        finally:
            for task in (doing, told):
                task.cancel()
            await asyncio.gather(doing, told, return_exceptions=True)

    async def _told(self) -> None:
        waits = [self.is_told_to_go.wait(), self.is_removed.wait(), self.is_evicted.wait(), self._deadline()]
        tasks = [asyncio.create_task(each) for each in waits]
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            await self._node_is_up.wait()
        finally:
            for task in tasks:
                task.cancel()

    async def _deadline(self) -> None:
        seconds = self.pod["spec"].get("activeDeadlineSeconds")
        if seconds is None:
            await asyncio.Event().wait()
        await asyncio.sleep(float(seconds or 0))

    async def _obey(self) -> None:
        """End the containers for the reason that there is, and report the end."""
        grace_s = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        reason, message = "", ""
        if self.is_removed.is_set():
            grace_s = 0
        elif self.is_told_to_go.is_set():
            grace_s = self.grace_s
        elif self.is_evicted.is_set():
            grace_s, reason, message = 0, "Evicted", self._eviction
        else:
            reason, message = "DeadlineExceeded", _DEADLINE
            self._events.normal(self.pod, "DeadlineExceeded", _DEADLINE)
            self.state.ending = "PodFailed"
            self.report()
        await self._end_containers(grace_s)
        self.state.reason, self.state.message = reason, message
        self.state.is_boxed = False
        self.state.ending = "PodFailed" if reason or self.state.failed() else "PodCompleted"
        self.state.phase = "Failed" if self.state.ending == "PodFailed" else "Succeeded"
        self.report()

    async def _end_containers(self, grace_s: float) -> None:
        running = [each for each in self.state.slots if each.run is not None and "running" in each.state]
        for slot in running:
            self._events.normal(self.pod, "Killing", f"Stopping container {slot.name}", container=slot.field_path)
        await asyncio.gather(*(self._end(each, grace_s) for each in running))
        await self.kill()

    async def _end(self, slot: Slot, grace_s: float) -> None:
        assert slot.run is not None
        code = await slot.run.end(grace_s)
        self._terminated(slot, code)

    async def _wait_to_go(self) -> None:
        waits = {asyncio.create_task(each.wait()) for each in (self.is_told_to_go, self.is_removed)}
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for task in waits:
            task.cancel()
        await self._node_is_up.wait()
        await self._pace.rest(0.3)

        def let_go(pod: Item) -> None:
            pod["metadata"]["deletionGracePeriodSeconds"] = 0
            pod["metadata"]["deletionTimestamp"] = stamp(now())

        self._store.edit(self.pod, PODS, let_go)

    async def _work(self) -> None:
        state = self.state
        state.is_initialized = not state.inits
        for slot in state.slots:
            slot.wait_for("PodInitializing" if state.inits else "ContainerCreating")
        self.report()
        surroundings = await self._volumes()
        await self._pace.rest(0.4)
        state.is_boxed = True
        self.report()
        async with asyncio.TaskGroup() as group:
            sidecars = []
            for slot in state.inits:
                if slot.is_sidecar:
                    await self._start(slot, surroundings)
                    sidecars.append(group.create_task(self._see_through(slot, surroundings, is_running=True)))
                elif not await self._initialize(slot, surroundings):
                    await self._end_sidecars(sidecars)
                    await self._settle("PodFailed")
                    return
            state.is_initialized = True
            if sidecars:
                self.report()
            await asyncio.gather(*(self._see_through(each, surroundings) for each in state.mains))
            if sidecars:
                self.report()
                await self._end_sidecars(sidecars)
                state.is_boxed = False
        await self._settle("PodFailed" if state.failed() else "PodCompleted")

    async def _volumes(self) -> Surroundings:
        found = self._store.find(PODS, self.namespace, self.name) or self.pod
        with_address = {**found, "status": {**found["status"], "podIP": self.state.address}}
        surroundings = Surroundings(self._store, with_address, self._place.folder)
        wait_s = 0.5
        while True:
            try:
                surroundings.make_volumes()
            except Unconfigured as error:
                self._events.warning(self.pod, "FailedMount", str(error))
                await self._pace.rest(wait_s)
                wait_s = min(wait_s * 2, 122)
            else:
                return surroundings

    async def _initialize(self, slot: Slot, surroundings: Surroundings) -> bool:
        await self._see_through(slot, surroundings)
        if slot.exit_code != 0:
            return False
        slot.is_ready = True
        self.report()
        return True

    async def _settle(self, ending: Literal["PodCompleted", "PodFailed"]) -> None:
        self.state.ending = ending
        self.report()
        await self._pace.rest(1)
        self.state.is_boxed = False
        self.state.phase = "Succeeded" if ending == "PodCompleted" else "Failed"
        self.report()

    async def _end_sidecars(self, tasks: list[asyncio.Task[None]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        grace_s = float(self.pod["spec"].get("terminationGracePeriodSeconds", 30))
        await self._end_containers(grace_s)

    async def _see_through(self, slot: Slot, surroundings: Surroundings, *, is_running: bool = False) -> None:
        """Run a container until it has ended for good."""
        wait_s = 10.0
        while True:
            if is_running or await self._start(slot, surroundings):
                assert slot.run is not None
                self._terminated(slot, await slot.run.wait())
            is_running = False
            if not self._restarts(slot):
                if not slot.is_init and any(each.exit_code is None for each in self.state.mains):
                    self.report()
                return
            await self._back_off(slot, wait_s)
            wait_s = min(wait_s * 2, 300)

    def _restarts(self, slot: Slot) -> bool:
        policy = "Always" if slot.is_sidecar else self.pod["spec"]["restartPolicy"]
        if slot.is_init and not slot.is_sidecar and slot.exit_code == 0:
            return False
        return bool(policy == "Always" or (policy == "OnFailure" and slot.exit_code != 0))

    async def _back_off(self, slot: Slot, wait_s: float) -> None:
        self.report()
        slot.last_state, slot.restarts = slot.state, slot.restarts + 1
        if slot.restarts > 1:
            slot.wait_for("CrashLoopBackOff", f"back-off {wait_s:g}s restarting failed container={slot.name}")
            self.report()
            self._events.warning(self.pod, "BackOff", f"Back-off restarting failed container {slot.name}")
            await self._pace.rest(wait_s)

    async def _start(self, slot: Slot, surroundings: Surroundings) -> bool:
        """Start a container once its image and its environment are there. False if it cannot be run."""
        await self._images.pull(slot)
        env = await self._environment(slot, surroundings)
        folder = self._place.folder / f"{slot.name}-{slot.restarts}"
        (folder / "scratch").mkdir(parents=True)
        termination = folder / "termination-log"
        termination.touch()
        termination.chmod(0o666)
        security = surroundings.security(slot.spec)
        order = Order(
            command=command_of(slot.spec, env),
            env=env,
            folder=slot.spec.get("workingDir") or "/",
            mounts=tuple(surroundings.mounts(slot.spec, termination)),
            scratch=str(folder / "scratch"),
            host_name=self.name[:63],
            user=security.get("runAsUser"),
            group=security.get("runAsGroup") or 0,
            more_groups=surroundings.groups(),
            is_root_read_only=bool(security.get("readOnlyRootFilesystem")),
        )
        limit = slot.spec["resources"].get("limits", {}).get("memory")
        log = ContainerLog(folder / "log", self._rotate_bytes)
        slot.run = Container(order, log, None if limit is None else quantity(limit))
        slot.logged.append(slot.run)
        self._events.normal(self.pod, "Created", "Container created", container=slot.field_path)
        return await self._started(slot)

    async def _started(self, slot: Slot) -> bool:
        assert slot.run is not None
        identity = f"containerd://{secrets.token_hex(32)}"
        try:
            await slot.run.start()
        except CannotStart as error:
            message = _NO_START + str(error)
            self._events.warning(self.pod, "Failed", f"Error: {message}", container=slot.field_path)
            times = {"startedAt": "1970-01-01T00:00:00Z", "finishedAt": stamp(now()), "containerID": identity}
            slot.state = {"terminated": {"exitCode": 128, "reason": "StartError", "message": message, **times}}
            return False
        slot.state = {"running": {"startedAt": stamp(now()), "containerID": identity}}
        slot.is_started = True
        slot.is_ready = not slot.is_init or slot.is_sidecar
        self._events.normal(self.pod, "Started", "Container started", container=slot.field_path)
        if not slot.is_init:
            self.state.phase = "Running"
            if any("waiting" in each.state for each in self.state.mains):
                return True
        elif slot.is_sidecar:
            self.state.is_initialized = all(each.is_sidecar or each.exit_code == 0 for each in self.state.inits)
        self.report()
        return True

    async def _environment(self, slot: Slot, surroundings: Surroundings) -> dict[str, str]:
        while True:
            try:
                return surroundings.environment(slot.spec)
            except Unconfigured as error:
                if slot.wait_for("CreateContainerConfigError", str(error)):
                    self.report()
                self._events.warning(self.pod, "Failed", f"Error: {error}", container=slot.field_path)
                await self._pace.rest(SYNC_S)

    def _terminated(self, slot: Slot, code: int) -> None:
        assert slot.run is not None
        reason = "Completed" if code == 0 else "Error"
        if slot.run.out_of_memory:
            reason = "OOMKilled"
        running = slot.state.get("running", {})
        ended: Item = {"exitCode": code, "reason": reason}
        if message := self._last_words(slot, code):
            ended["message"] = message
        ended |= {"startedAt": running.get("startedAt"), "finishedAt": stamp(now())}
        slot.state = {"terminated": {**ended, "containerID": running.get("containerID")}}
        slot.is_ready = slot.is_started = False

    def _last_words(self, slot: Slot, code: int) -> str:
        assert slot.run is not None
        folder = self._place.folder / f"{slot.name}-{slot.restarts}"
        told = (folder / "termination-log").read_bytes()[:_MOST_TOLD]
        if not told and code != 0 and slot.spec["terminationMessagePolicy"] == "FallbackToLogsOnError":
            told = slot.run.log.tail_bytes(_MOST_TOLD_OF_LOG)
        return told.decode(errors="replace")
