"""The status of a pod as its node reports it: phase, conditions and the states of its containers."""

from dataclasses import dataclass, field
from typing import Literal

from flexcore.testing.kubernetes.containers import Container
from flexcore.testing.kubernetes.resources import Item, now, stamp

Phase = Literal["Pending", "Running", "Succeeded", "Failed"]


@dataclass
class Slot:
    """One container of a pod, through all its runs."""

    spec: Item
    is_init: bool = False
    state: Item = field(default_factory=dict)
    last_state: Item = field(default_factory=dict)
    is_ready: bool = False
    is_started: bool = False
    restarts: int = 0
    run: Container | None = None
    logged: list[Container] = field(default_factory=list)  # all runs, for their logs

    @property
    def name(self) -> str:
        """The name of the container."""
        return str(self.spec["name"])

    @property
    def is_sidecar(self) -> bool:
        """Say whether it accompanies the others instead of coming before them."""
        return self.is_init and self.spec.get("restartPolicy") == "Always"

    @property
    def field_path(self) -> str:
        """Name the container as events do."""
        return f"spec.{'initContainers' if self.is_init else 'containers'}{{{self.name}}}"

    @property
    def exit_code(self) -> int | None:
        """The exit code, once it has ended."""
        ended = self.state.get("terminated")
        return None if ended is None else int(ended["exitCode"])

    def wait_for(self, reason: str, message: str = "") -> bool:
        """Say what it waits for; tells whether that is news."""
        waiting = {"reason": reason, **({"message": message} if message else {})}
        changed = self.state != {"waiting": waiting}
        self.state = {"waiting": waiting}
        return changed

    def status(self) -> Item:
        """Give its part of the pod's status."""
        status: Item = {
            "name": self.name,
            "state": self.state,
            "lastState": self.last_state,
            "ready": self.is_ready,
            "restartCount": self.restarts,
            "image": self.spec["image"],
            "imageID": "" if "waiting" in self.state else f"{self.spec['image']}@sha256:{'0' * 64}",
            "started": self.is_started,
        }
        identity = _identity(self.state)
        return {**status, "containerID": identity} if identity else status


def _identity(state: Item) -> str | None:
    return next((each.get("containerID") for each in state.values()), None)


@dataclass
class PodState:
    """All that a node knows of a pod. `ending` is the reason of the conditions once the outcome is clear."""

    inits: list[Slot]
    mains: list[Slot]
    phase: Phase = "Pending"
    is_boxed: bool = False  # PodReadyToStartContainers
    is_initialized: bool = False
    ending: Literal["", "PodCompleted", "PodFailed"] = ""
    reason: str = ""
    message: str = ""
    started_at: str = ""
    address: str = ""
    since: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def slots(self) -> list[Slot]:
        """All containers."""
        return [*self.inits, *self.mains]

    @property
    def ordinary(self) -> list[Slot]:
        """The containers whose end is the pod's end: all but sidecars."""
        return [each for each in self.slots if not each.is_sidecar]

    def failed(self) -> bool:
        """Say whether any container ended badly, or never came to run."""
        return any(each.exit_code != 0 for each in self.ordinary)

    def apply(self, pod: Item) -> None:
        """Write the status into a pod."""
        before = pod.get("status") or {}
        status: Item = {"phase": self.phase, "qosClass": before.get("qosClass", "BestEffort")}
        status["conditions"] = self._conditions(before.get("conditions") or [])
        if self.message:
            status["message"] = self.message
        if self.reason:
            status["reason"] = self.reason
        status["startTime"] = self.started_at
        status |= {"hostIP": "127.0.0.1", "podIP": self.address, "podIPs": [{"ip": self.address}]}
        if self.inits:
            status["initContainerStatuses"] = [each.status() for each in self.inits]
        status["containerStatuses"] = [each.status() for each in self.mains]
        pod["status"] = status

    def _conditions(self, before: list[Item]) -> list[Item]:
        others = [each for each in before if each["type"] == "DisruptionTarget"]
        unready = [each.name for each in self.mains if not each.is_ready]
        incomplete = [each.name for each in self.inits if not (each.is_started or each.exit_code == 0)]
        reason = self.ending or ("ContainersNotReady" if unready else "")
        is_ready = not reason
        message = f"containers with unready status: [{' '.join(unready)}]" if unready and not self.ending else ""
        initialized = (
            ("", "")
            if self.is_initialized
            else ("ContainersNotInitialized", f"containers with incomplete status: [{' '.join(incomplete)}]")
        )
        if self.ending == "PodCompleted":
            initialized = ("PodCompleted", "")
        return [
            *others,
            self._condition("PodReadyToStartContainers", self.is_boxed),
            self._condition("Initialized", self.is_initialized, *initialized),
            self._condition("Ready", is_ready, reason, message),
            self._condition("ContainersReady", is_ready, reason, message),
            self._condition("PodScheduled", True),
        ]

    def _condition(self, type: str, status: bool, reason: str = "", message: str = "") -> Item:
        text = str(status)
        changed = self.since.setdefault((type, text), stamp(now()))
        for key in [key for key in self.since if key[0] == type and key[1] != text]:
            del self.since[key]
        found = {"type": type, "status": text, "lastProbeTime": None, "lastTransitionTime": changed}
        if reason:
            found["reason"] = reason
        return {**found, "message": message} if message else found


def scheduled(is_scheduled: bool, message: str = "") -> Item:
    """Give the condition that the scheduler writes."""
    found = {
        "type": "PodScheduled",
        "status": str(is_scheduled),
        "lastProbeTime": None,
        "lastTransitionTime": stamp(now()),
    }
    return found if is_scheduled else {**found, "reason": "Unschedulable", "message": message}
