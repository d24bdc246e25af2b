"""From what the cluster shows of a Job and its pods to what that means: three tables. Pure.

Only the conditions Complete and Failed are final; exit codes are in the pod alone. Never go by the order of
conditions, by exit code 137 alone, or by the reason OOMKilled alone.
"""

import signal
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import msgspec

from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.runtime.interface import Failed, Succeeded
from flexcore_kubernetes.manifests import main_container

Object = Mapping[str, Any]

_LONGEST = 500
_SHELLS_SIGNALS = 128
_QUOTA = ("exceeded quota", "failed quota", "must specify")


@dataclass(frozen=True, slots=True)
class Sight:
    """What is seen of one attempt: its Job, the Job's pods in the order of their creation, Warning events."""

    job: Object
    pods: tuple[Object, ...] = ()
    events: tuple[Object, ...] = ()

    @property
    def pod(self) -> Object | None:
        """The pod that counts: the last of those that ended as the Job did, else the last one."""
        phase = "Failed" if final(self.job) == "Failed" else "Succeeded"
        known = [each for each in self.pods if _status(each).get("phase") == phase] or self.pods
        return known[-1] if known else None

    @property
    def main(self) -> str:
        """The container whose end is the step's."""
        return main_container(self.job)


@dataclass(frozen=True, slots=True, kw_only=True)
class End:
    """What the table says of a pod's end, as facts. Empty and None where there is nothing."""

    condition: str = ""  # reason of the Job's Failed condition
    condition_message: str = ""
    has_pod: bool = False
    pod_reason: str = ""
    pod_message: str = ""
    disruption: str = ""
    disruption_message: str = ""
    is_deleted: bool = False  # the pod, by somebody else
    init: str = ""  # the init container that failed
    init_code: int = 0
    code: int | None = None
    reason: str = ""
    message: str = ""
    other: str = ""  # a container beside the main one that failed
    other_code: int = 0

    @property
    def signal(self) -> str:
        """The signal that the exit code stands for."""
        number = (self.code or 0) - _SHELLS_SIGNALS
        return signal.Signals(number).name if number in set(signal.Signals) else ""


@dataclass(frozen=True, slots=True)
class EndRow:
    """One way to fail: when it applies, its class, a name, a message over the end, a hint."""

    applies: Callable[[End], bool]
    error_class: ErrorClass
    name: str
    message: str
    hint: str = ""


def _disrupted(*reasons: str) -> Callable[[End], bool]:
    return lambda end: end.disruption in reasons


ENDS: tuple[EndRow, ...] = (
    EndRow(
        lambda end: "DeadlineExceeded" in (end.condition, end.pod_reason),
        ErrorClass.TIMEOUT,
        "DeadlineExceeded",
        "over its time limit",
    ),
    EndRow(
        lambda end: end.pod_reason in ("Evicted", "Preempting"),
        ErrorClass.EVICTED,
        "{pod_reason}",
        "the node put the pod out: {pod_message}",
        "raise requirements.disk or memory if the step used more than it declared",
    ),
    EndRow(
        _disrupted("DeletionByTaintManager", "DeletionByPodGC"),
        ErrorClass.LOST,
        "{disruption}",
        "its node went away: {disruption_message}",
    ),
    EndRow(
        lambda end: bool(end.disruption),
        ErrorClass.EVICTED,
        "{disruption}",
        "the cluster took the pod away: {disruption_message}",
    ),
    EndRow(
        lambda end: end.pod_reason in ("NodeLost", "NodeShutdown", "Terminated", "NodeAffinity", "Shutdown"),
        ErrorClass.LOST,
        "{pod_reason}",
        "its node went away: {pod_message}",
    ),
    EndRow(
        lambda end: not end.has_pod,
        ErrorClass.LOST,
        "{condition}",
        "its pod is gone, and how it ended cannot be known: {condition_message}",
    ),
    EndRow(
        lambda end: bool(end.init),
        ErrorClass.USER,
        "exit {init_code}",
        "the init container '{init}' ended with exit code {init_code}",
    ),
    EndRow(
        lambda end: end.reason == "OOMKilled" and end.code != 0,
        ErrorClass.OOM,
        "OOMKilled",
        "used more memory than its limit",
        "raise requirements.memory",
    ),
    EndRow(
        lambda end: end.reason in ("StartError", "ContainerCannotRun"),
        ErrorClass.INPUT,
        "{reason}",
        "the command cannot be started: {message}",
        "check command, args and workdir against what is in the image",
    ),
    EndRow(
        lambda end: end.reason == "ContainerStatusUnknown" or (end.code is None and not end.other),
        ErrorClass.LOST,
        "{reason}",
        "its node does not know any more how the container ended: {condition_message}",
    ),
    EndRow(
        lambda end: end.is_deleted and end.code != 0,
        ErrorClass.EVICTED,
        "PodDeleted",
        "its pod was deleted from outside",
    ),
    EndRow(
        lambda end: end.code == _SHELLS_SIGNALS + signal.SIGKILL,
        ErrorClass.USER,
        "SIGKILL",
        "ended by SIGKILL",
        "the cluster tells no memory limit and no eviction: the step killed itself, or one of its processes did",
    ),
    EndRow(lambda end: bool(end.signal), ErrorClass.USER, "{signal}", "ended by {signal}"),
    EndRow(
        lambda end: end.code == _SHELLS_SIGNALS - 1,
        ErrorClass.USER,
        "exit 127",
        "ended with exit code 127",
        "a command was not found",
    ),
    EndRow(
        lambda end: end.code != 0 and end.code is not None,
        ErrorClass.USER,
        "exit {code}",
        "ended with exit code {code}",
    ),
    EndRow(
        lambda end: bool(end.other),
        ErrorClass.USER,
        "exit {other_code}",
        "the container '{other}' ended with exit code {other_code}",
    ),
    EndRow(lambda end: True, ErrorClass.INTERNAL, "{condition}", "the Job failed: {condition_message}"),
)
"""The first row that applies says why a Job failed."""


@dataclass(frozen=True, slots=True)
class StartRow:
    """One way not to start: the machine's word, its class; `hopeless`: waiting cannot help."""

    reason: str
    error_class: ErrorClass
    hint: str = ""
    hopeless: bool = False


_IMAGE_HINT = "check the image's name, and pull_secrets of the runtime"

STARTS: Mapping[str, StartRow] = {
    row.reason: row
    for row in (
        StartRow("InvalidImageName", ErrorClass.IMAGE, "write it as registry/name:tag", hopeless=True),
        StartRow(
            "ErrImageNeverPull", ErrorClass.IMAGE, "allow pulling, or load the image onto the nodes", hopeless=True
        ),
        StartRow("ErrImagePull", ErrorClass.IMAGE, _IMAGE_HINT),
        StartRow("ImagePullBackOff", ErrorClass.IMAGE, _IMAGE_HINT),
        StartRow("ImageInspectError", ErrorClass.IMAGE, _IMAGE_HINT),
        StartRow("RegistryUnavailable", ErrorClass.IMAGE, _IMAGE_HINT),
        StartRow("CreateContainerConfigError", ErrorClass.INPUT, "make what it names, or correct the name"),
        StartRow("CreateContainerError", ErrorClass.INPUT),
        StartRow("RunContainerError", ErrorClass.INPUT),
        StartRow("FailedMount", ErrorClass.INPUT, "make what it names, or correct the mount"),
        StartRow("FailedAttachVolume", ErrorClass.DEPENDENCY),
        StartRow("Unschedulable", ErrorClass.QUOTA, "ask for less, or give the cluster a node that fits"),
        StartRow("Quota", ErrorClass.QUOTA, "wait until others are done, or have the quota raised"),
        StartRow("FailedCreate", ErrorClass.INPUT, "see the message; the namespace's rules do not let the pod in"),
        StartRow("NoPod", ErrorClass.DEPENDENCY, "look at the Job's events; its controller made no pod"),
        StartRow("Starting", ErrorClass.DEPENDENCY, "raise start_timeout of the runtime if its nodes are slow"),
    )
}
"""What each cause comes to, once there is no more time to wait, or at once where it is hopeless."""


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why work does not start. `message` quotes the cluster."""

    row: StartRow
    message: str

    def failure(self, waited: timedelta) -> Failure:
        """Make the failure of an attempt that was given up on."""
        after = "" if self.row.hopeless else f" within {waited.total_seconds():g} s"
        return Failure(
            message=f"did not start{after}: {self.row.reason}: {self.message}",
            error_class=self.row.error_class,
            name=self.row.reason,
            hint=self.row.hint,
        )


def final(job: Object) -> str:
    """Give `Complete` or `Failed` when the Job has ended, else nothing."""
    found = {each["type"] for each in _conditions(job) if each.get("status") == "True"}
    return next((each for each in ("Complete", "Failed") if each in found), "")


def has_started(sight: Sight) -> datetime | None:
    """Say since when the step's containers run, or ran; None: not yet. Init containers are the step's too."""
    times = [_begun(each) for pod in sight.pods for each in _of_step(pod, sight.main)]
    return min((each for each in times if each is not None), default=None)


def is_working(sight: Sight) -> bool:
    """Whether the main container runs or ran, or one before it runs now: no reason for impatience."""
    for pod in sight.pods:
        if has_log(pod, sight.main) or _is_over(pod):
            return True
        if any("running" in (each.get("state") or {}) for each in _of_step(pod, sight.main)):
            return True
    return bool(final(sight.job))


def has_ended(pod: Object, container: str) -> bool:
    """Whether a container of a pod, or the pod as a whole, has ended: its log does not grow any more."""
    return "terminated" in _state(pod, container) or _is_over(pod)


def is_complete(sight: Sight) -> bool:
    """Whether the ends of all pods of an ended Job are seen too. A container's end is not the pod's yet."""
    return bool(sight.pods) and all(_is_over(each) for each in sight.pods)


def has_log(pod: Object, container: str) -> bool:
    """Whether a container runs or ran, so that there is a log."""
    return any(key in _state(pod, container) for key in ("running", "terminated"))


def obstacle(sight: Sight) -> Obstacle:
    """Say why the work has not started yet, as well as it can be told. Ask only while it has not."""
    pod = sight.pods[-1] if sight.pods else None
    if pod is None:
        return _without_pod(sight)
    for each in _containers(pod):
        waiting = (each.get("state") or {}).get("waiting") or {}
        if waiting.get("reason") in STARTS:
            return Obstacle(STARTS[waiting["reason"]], _cut(waiting.get("message") or "no reason is given"))
    for condition in _conditions(pod):
        if condition["type"] == "PodScheduled" and condition.get("reason") == "Unschedulable":
            return Obstacle(STARTS["Unschedulable"], _cut(condition.get("message", "")))
    told = [each for each in sight.events if each.get("reason") in ("FailedMount", "FailedAttachVolume")]
    if told:
        return Obstacle(STARTS[told[-1]["reason"]], _cut(told[-1].get("message", "")))
    return Obstacle(STARTS["Starting"], f"the pod is {_status(pod).get('phase', 'not there yet')}")


def failure_of(sight: Sight) -> Failure:
    """Judge a Job that failed by the table."""
    end = end_of(sight)
    row = next(row for row in ENDS if row.applies(end))
    facts = {name: getattr(end, name) for name in (*end.__slots__, "signal")}
    message = row.message.format(**facts).rstrip(": ")
    if row.error_class is ErrorClass.USER and end.message.strip():
        message = f"{message}: {_last_line(end.message)}"
    return Failure(message=message, error_class=row.error_class, name=row.name.format(**facts), hint=row.hint)


def is_plain_exit(failure: Failure) -> bool:
    """Whether a failure is no more than an exit code, about which the step itself may know better."""
    return failure.error_class is ErrorClass.USER


def end_of(sight: Sight) -> End:
    """Gather what the table asks for."""
    condition = next((each for each in _conditions(sight.job) if each["type"] == "Failed"), {})
    told = {"condition": condition.get("reason", ""), "condition_message": condition.get("message", "")}
    pod = sight.pod
    if pod is None:
        return End(**told)
    status = _status(pod)
    disrupted = next((each for each in _conditions(pod) if each["type"] == "DisruptionTarget"), {})
    ended = _state(pod, sight.main).get("terminated") or {}
    init = _failed_container(status.get("initContainerStatuses"), _sidecars(pod))
    other = _failed_container(status.get("containerStatuses"), {sight.main})
    return End(
        **told,
        has_pod=True,
        pod_reason=status.get("reason", ""),
        pod_message=_cut(status.get("message", "")),
        disruption=disrupted.get("reason", "") if disrupted.get("status") == "True" else "",
        disruption_message=_cut(disrupted.get("message", "")),
        is_deleted="deletionTimestamp" in pod["metadata"],
        init=init[0],
        init_code=init[1],
        code=ended.get("exitCode"),
        reason=ended.get("reason", ""),
        message=_cut(ended.get("message", "")),
        other=other[0],
        other_code=other[1],
    )


def told(sight: Sight) -> str:
    """Give the termination message of the main container; empty when there is none."""
    pod = sight.pod
    return "" if pod is None else str((_state(pod, sight.main).get("terminated") or {}).get("message") or "")


def result_of(sight: Sight) -> Succeeded:
    """Make the result of a container that succeeded: the JSON value in its termination message, else what it says."""
    message = told(sight)
    try:
        value: JSON = msgspec.json.decode(message) if message.strip() else {"exit_code": 0, "message": ""}
    except msgspec.DecodeError:
        value = {"exit_code": 0, "message": message}
    return Succeeded(value)


def phases_of(sight: Sight) -> dict[Phase, timedelta]:
    """How long the pod waited for a node, for its start, and how long the main container ran. Whole seconds."""
    pod = sight.pod
    if pod is None:
        return {}
    created = pod["metadata"].get("creationTimestamp")
    placed = next((each.get("lastTransitionTime") for each in _conditions(pod) if each["type"] == "PodScheduled"), None)
    ended = _state(pod, sight.main).get("terminated") or {}
    points = [created, placed, ended.get("startedAt"), ended.get("finishedAt")]
    spans = zip((Phase.QUEUE, Phase.START, Phase.RUN), points, points[1:], strict=False)
    found = {phase: moment(end) - moment(begin) for phase, begin, end in spans if begin and end}
    return {phase: span for phase, span in found.items() if timedelta(0) <= span < timedelta(days=3650)}


def cancelled() -> Failed:
    """The end of work that we ended."""
    return Failed(Failure(message="cancelled", error_class=ErrorClass.CANCELLED))


def lost(message: str) -> Failed:
    """The end of work that is gone."""
    return Failed(Failure(message=message, error_class=ErrorClass.LOST))


def moment(text: str) -> datetime:
    """Read a time of the API."""
    return datetime.fromisoformat(text)


def _without_pod(sight: Sight) -> Obstacle:
    refused = [each for each in sight.events if each.get("reason") == "FailedCreate"]
    if not refused:
        return Obstacle(STARTS["NoPod"], "no pod was made, and no event says why")
    message = _cut(refused[-1].get("message", ""))
    return Obstacle(STARTS["Quota" if any(each in message for each in _QUOTA) else "FailedCreate"], message)


def _failed_container(statuses: Iterable[Object] | None, aside: set[str]) -> tuple[str, int]:
    for each in statuses or ():
        code = ((each.get("state") or {}).get("terminated") or {}).get("exitCode", 0)
        if code and each.get("name") not in aside:
            return str(each.get("name")), int(code)
    return "", 0


def _sidecars(pod: Object) -> set[str]:
    """Native sidecars: init containers that run beside the main one, and whose end is no matter."""
    inits = pod.get("spec", {}).get("initContainers") or []
    return {each["name"] for each in inits if each.get("restartPolicy") == "Always"}


def _of_step(pod: Object, main: str) -> list[Object]:
    """The main container and the init containers before it, but not the sidecars."""
    aside = _sidecars(pod)
    inits = [each for each in _status(pod).get("initContainerStatuses") or () if each.get("name") not in aside]
    return [*inits, *(each for each in _status(pod).get("containerStatuses") or () if each.get("name") == main)]


def _begun(status: Object) -> datetime | None:
    state = status.get("state") or {}
    at = (state.get("running") or state.get("terminated") or {}).get("startedAt")
    return moment(at) if at and not at.startswith("1970") else None  # 1970: it could not be started


def _status(item: Object) -> Object:
    found: Object = item.get("status") or {}
    return found


def _is_over(pod: Object) -> bool:
    return _status(pod).get("phase") in ("Succeeded", "Failed")


def _conditions(item: Object) -> Sequence[Object]:
    found: Sequence[Object] = _status(item).get("conditions") or ()
    return found


def _containers(pod: Object) -> list[Object]:
    status = _status(pod)
    return [*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())]


def _state(pod: Object, container: str) -> Object:
    statuses = _status(pod).get("containerStatuses") or ()
    found: Object = next((each.get("state") or {} for each in statuses if each.get("name") == container), {})
    return found


def _last_line(text: str) -> str:
    return text.strip().splitlines()[-1][:_LONGEST]


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
