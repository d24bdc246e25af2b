"""The controller of Jobs: makes pods, counts how they end, and says when a Job is complete or has failed."""

import asyncio
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field

from flexcore.testing.kubernetes.admission import admit
from flexcore.testing.kubernetes.deletion import FOREGROUND, delete
from flexcore.testing.kubernetes.events import Events
from flexcore.testing.kubernetes.pace import Pace
from flexcore.testing.kubernetes.pod_failures import failure_rule
from flexcore.testing.kubernetes.refusal import Refusal
from flexcore.testing.kubernetes.resources import (
    JOB_TRACKING,
    JOBS,
    PODS,
    Item,
    after,
    drop_finalizer,
    finalizers,
    generated_name,
    is_going,
    moment,
    now,
    owner_uids,
    stamp,
    uid,
)
from flexcore.testing.kubernetes.store import Change, Store
from flexcore.testing.kubernetes.validation import with_defaults

_BATCH_S = 1.0
_RETRY_S = 10.0
_OVER = ("Succeeded", "Failed")
_MESSAGES = {
    "BackoffLimitExceeded": "Job has reached the specified backoff limit",
    "DeadlineExceeded": "Job was active longer than specified deadline",
    "CompletionsReached": "Reached expected number of succeeded pods",
}


@dataclass
class _Watched:
    """What is kept of a Job between two looks."""

    uid: str
    namespace: str
    name: str
    poked: asyncio.Event = field(default_factory=asyncio.Event)
    retry_at: float = 0.0  # of the clock that counts waiting
    refused: int = 0


class Jobs:
    """All Jobs."""

    def __init__(self, store: Store, events: Events, pace: Pace) -> None:
        self._store = store
        self._events = events
        self._pace = pace
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._watched: dict[str, _Watched] = {}

    async def run(self) -> None:
        """Follow all Jobs and pods, for ever."""
        try:
            async for change in self._store.changes(self._store.floor):
                self._look(change)
        finally:
            for task in self._tasks.values():
                task.cancel()

    def _look(self, change: Change) -> None:
        identity = uid(change.item)
        if change.resource == PODS:
            for owner in (*owner_uids(change.item), *owner_uids(change.before or change.item)):
                if owner in self._watched:
                    self._watched[owner].poked.set()
        elif change.resource == JOBS and change.type == "DELETED":
            self._let_pods_go(identity)
            if identity in self._tasks:
                self._tasks.pop(identity).cancel()
                del self._watched[identity]
        elif change.resource == JOBS and change.type == "ADDED":
            metadata = change.item["metadata"]
            watched = _Watched(identity, metadata["namespace"], metadata["name"])
            self._watched[identity] = watched
            self._tasks[identity] = asyncio.create_task(self._tend(watched))
        elif change.resource == JOBS and identity in self._watched and _is_news(change):
            if is_going(change.item):
                self._let_pods_go(identity)
            self._watched[identity].poked.set()

    def _let_pods_go(self, job_uid: str) -> None:
        for pod in self._store.items(PODS):
            labels = pod["metadata"].get("labels") or {}
            if labels.get("batch.kubernetes.io/controller-uid") == job_uid:
                self._store.edit(pod, PODS, lambda each: drop_finalizer(each, JOB_TRACKING))

    async def _tend(self, watched: _Watched) -> None:
        while (job := self._store.find(JOBS, watched.namespace, watched.name)) and uid(job) == watched.uid:
            watched.poked.clear()
            wait_s = _Look(self._store, self._events, self._pace, watched, job).take()
            with suppress(TimeoutError):
                async with asyncio.timeout(wait_s):
                    await watched.poked.wait()
                    await self._pace.rest(_BATCH_S)


def _is_news(change: Change) -> bool:
    before = change.before or {}
    return is_going(change.item) or before.get("spec") != change.item.get("spec")


class _Look:
    """One look at a Job: what is written, what is made, and how long until the next look is due."""

    def __init__(self, store: Store, events: Events, pace: Pace, watched: _Watched, job: Item) -> None:
        self._store = store
        self._events = events
        self._pace = pace
        self._watched = watched
        self._job = job
        self._spec = job["spec"]

    def take(self) -> float | None:
        """Do what is due; give the seconds to the next look, or nothing if only a change can bring news."""
        if is_going(self._job):
            self._go()
            return None
        if _condition(self._job, "Complete") or _condition(self._job, "Failed"):
            return self._expire()
        if self._spec.get("suspend"):
            self._suspend()
            return None
        if "startTime" not in self._job["status"]:
            self._edit(lambda status: status.update(startTime=stamp(now())), quietly=True)
        if self._settle():
            return self._expire() if self._is_final() else None
        return self._make_pods()

    def _pods(self) -> list[Item]:
        return [
            each for each in self._store.items(PODS, self._watched.namespace) if self._watched.uid in owner_uids(each)
        ]

    def _active(self) -> list[Item]:
        return [each for each in self._pods() if each["status"]["phase"] not in _OVER and not is_going(each)]

    def _go(self) -> None:
        for pod in self._pods():
            self._store.edit(pod, PODS, lambda each: drop_finalizer(each, JOB_TRACKING))
        if FOREGROUND in finalizers(self._job) and not self._active():
            self._edit(lambda status: self._count(status, [], []))

    def _expire(self) -> float | None:
        seconds = self._spec.get("ttlSecondsAfterFinished")
        if seconds is None:
            return None
        found = _condition(self._job, "Complete") or _condition(self._job, "Failed") or {}
        left = float(seconds) - (now() - moment(found["lastTransitionTime"])).total_seconds()
        if left > 0:
            return left
        delete(self._store, JOBS, self._job, {"propagationPolicy": "Foreground"})
        return None

    def _suspend(self) -> None:
        for pod in self._active():
            delete(self._store, PODS, pod, {})

        def edit(status: Item) -> None:
            status.pop("startTime", None)
            self._count(status, [], [])
            if not _condition(self._job, "Suspended"):
                self._add_condition(status, "Suspended", "JobSuspended", "Job suspended")

        self._edit(edit)

    def _settle(self) -> bool:
        """Count what has ended. Tells whether the outcome is clear, so that no pod is to be made any more."""
        succeeded, failed = self._uncounted()
        verdict = self._verdict(succeeded, failed)
        if verdict is not None and verdict[0] == "FailureTarget":
            for pod in self._active():
                delete(self._store, PODS, pod, {})
                if verdict[1] == "DeadlineExceeded":
                    self._events.normal(self._job, "SuccessfulDelete", f"Deleted pod: {pod['metadata']['name']}")
            succeeded, failed = self._uncounted()
        if verdict is None and not succeeded and not failed and not self._ignored():
            return False
        if failed:
            self._watched.retry_at = time.monotonic() + self._pace.scaled(self._retry_s(len(failed)))

        def begin(status: Item) -> None:
            self._count(status, succeeded, failed)
            if verdict is not None and not _condition(self._job, verdict[0]):
                self._add_condition(status, *verdict)

        self._edit(begin)
        for pod in (*succeeded, *failed, *self._ignored()):
            self._store.edit(pod, PODS, lambda each: drop_finalizer(each, JOB_TRACKING))
        self._finish(succeeded, failed)
        return verdict is not None

    def _is_final(self) -> bool:
        return bool(_condition(self._job, "Complete") or _condition(self._job, "Failed"))

    def _finish(self, succeeded: list[Item], failed: list[Item]) -> None:
        interim = _condition(self._job, "SuccessCriteriaMet") or _condition(self._job, "FailureTarget")
        status = self._job["status"]
        is_over = interim is not None and not self._active() and not status.get("terminating")

        def end(status: Item) -> None:
            for key, pods in (("succeeded", succeeded), ("failed", failed)):
                if pods:
                    status[key] = status.get(key, 0) + len(pods)
            status["uncountedTerminatedPods"] = {}
            if interim is not None and is_over:
                final = "Complete" if interim["type"] == "SuccessCriteriaMet" else "Failed"
                self._add_condition(status, final, interim["reason"], interim["message"])
                if final == "Complete":
                    status["completionTime"] = stamp(now())

        self._edit(end)
        if interim is not None and is_over:
            if interim["type"] == "SuccessCriteriaMet":
                self._events.normal(self._job, "Completed", "Job completed")
            else:
                self._events.warning(self._job, interim["reason"], interim["message"])

    def _uncounted(self) -> tuple[list[Item], list[Item]]:
        tracked = [each for each in self._pods() if JOB_TRACKING in finalizers(each)]
        waits = self._spec["podReplacementPolicy"] == "Failed"
        succeeded = [each for each in tracked if each["status"]["phase"] == "Succeeded"]
        failed = [
            each
            for each in tracked
            if each["status"]["phase"] == "Failed" or (is_going(each) and not waits and each not in succeeded)
        ]
        return succeeded, [each for each in failed if self._rule(each)[0] != "Ignore"]

    def _ignored(self) -> list[Item]:
        tracked = [each for each in self._pods() if JOB_TRACKING in finalizers(each)]
        ended = [each for each in tracked if each["status"]["phase"] == "Failed"]
        return [each for each in ended if self._rule(each)[0] == "Ignore"]

    def _rule(self, pod: Item) -> tuple[str, str]:
        return failure_rule(self._spec.get("podFailurePolicy") or {}, pod)

    def _verdict(self, succeeded: list[Item], failed: list[Item]) -> tuple[str, str, str] | None:
        status = self._job["status"]
        for type in ("SuccessCriteriaMet", "FailureTarget"):
            if found := _condition(self._job, type):
                return type, found["reason"], found["message"]
        for pod in failed:
            action, message = self._rule(pod)
            if action == "FailJob":
                return "FailureTarget", "PodFailurePolicy", message
        if self._deadline_s() <= 0:
            return "FailureTarget", "DeadlineExceeded", _MESSAGES["DeadlineExceeded"]
        limit = self._spec["backoffLimit"]
        if status.get("failed", 0) + len(failed) > limit or self._restarts() > max(limit - 1, 0):
            return "FailureTarget", "BackoffLimitExceeded", _MESSAGES["BackoffLimitExceeded"]
        if status.get("succeeded", 0) + len(succeeded) >= (self._spec.get("completions") or 1):
            return "SuccessCriteriaMet", "CompletionsReached", _MESSAGES["CompletionsReached"]
        return None

    def _restarts(self) -> int:
        if self._spec["template"]["spec"]["restartPolicy"] != "OnFailure":
            return 0
        statuses = (each["status"].get("containerStatuses", []) for each in self._active())
        return sum(each["restartCount"] for listed in statuses for each in listed)

    def _deadline_s(self) -> float:
        seconds, started = self._spec.get("activeDeadlineSeconds"), self._job["status"].get("startTime")
        if seconds is None or started is None:
            return float("inf")
        return float(seconds) - (now() - moment(started)).total_seconds()

    def _make_pods(self) -> float | None:
        status = self._job["status"]
        wanted = min(self._spec["parallelism"], (self._spec.get("completions") or 1) - status.get("succeeded", 0))
        replaced = 0
        if self._spec["podReplacementPolicy"] == "Failed":
            replaced = sum(is_going(each) and each["status"]["phase"] not in _OVER for each in self._pods())
        missing = wanted - len(self._active()) - replaced
        left = self._watched.retry_at - time.monotonic()
        if missing > 0 and left <= 0:
            left = self._make(missing)
        self._edit(lambda status: self._count(status, [], []))
        waits = [each for each in (left if missing > 0 else 0, self._deadline_s()) if 0 < each < float("inf")]
        return min(waits, default=None)

    def _make(self, missing: int) -> float:
        """Make pods. Gives the seconds to the next try if that is refused."""
        for _ in range(missing):
            pod = with_defaults(PODS, self._pod(), self._watched.namespace)
            try:
                admit(self._store, PODS, pod)
            except Refusal as refusal:
                self._events.warning(self._job, "FailedCreate", f"Error creating: {refusal.message}")
                self._watched.refused += 1
                wait_s = self._pace.scaled(min(2.0 ** (self._watched.refused - 1), 60))
                self._watched.retry_at = time.monotonic() + wait_s
                return wait_s
            made = self._store.add(PODS, pod)
            self._watched.refused = 0
            self._events.normal(self._job, "SuccessfulCreate", f"Created pod: {made['metadata']['name']}")
        return 0.0

    def _pod(self) -> Item:
        template = self._spec["template"]
        prefix = f"{self._watched.name}-"
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": self._watched.name, "uid": self._watched.uid}
        metadata = {
            **template["metadata"],
            "generateName": prefix,
            "name": generated_name(prefix),
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
            "finalizers": [JOB_TRACKING],
        }
        return {"metadata": metadata, "spec": template["spec"]}

    def _retry_s(self, more: int) -> float:
        failures = self._job["status"].get("failed", 0) + more
        return float(min(_RETRY_S * 2.0 ** (failures - 1), 600))

    def _count(self, status: Item, succeeded: Iterable[Item], failed: Iterable[Item]) -> None:
        """Write the figures of now; those that have just ended are named until they are counted."""
        active = self._active()
        status.pop("active", None)
        if active:
            status["active"] = len(active)
        pods = self._pods()
        status["terminating"] = sum(is_going(each) and each["status"]["phase"] not in _OVER for each in pods)
        named = (("succeeded", [uid(each) for each in succeeded]), ("failed", [uid(each) for each in failed]))
        status["uncountedTerminatedPods"] = {key: uids for key, uids in named if uids}
        status["ready"] = sum(_is_ready(each) for each in active)

    def _add_condition(self, status: Item, type: str, reason: str, message: str) -> None:
        at = after(0)
        found = {"type": type, "status": "True", "lastProbeTime": at, "lastTransitionTime": at}
        status.setdefault("conditions", []).append({**found, "reason": reason, "message": message})

    def _edit(self, edit: Callable[[Item], None], *, quietly: bool = False) -> None:
        """Write the status; quietly means together with the next write."""
        if quietly:
            self._job = {**self._job, "status": {**self._job["status"]}}
            edit(self._job["status"])
            return
        pending = {key: value for key, value in self._job["status"].items() if key == "startTime"}

        def write(job: Item) -> None:
            for key, value in pending.items():
                job["status"].setdefault(key, value)
            edit(job["status"])

        self._job = self._store.edit(self._job, JOBS, write) or self._job


def _condition(job: Item, type: str) -> Item | None:
    found = (each for each in job["status"].get("conditions", []) if each["type"] == type and each["status"] == "True")
    return next(found, None)


def _is_ready(pod: Item) -> bool:
    conditions = pod["status"].get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
