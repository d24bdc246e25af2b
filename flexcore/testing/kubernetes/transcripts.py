"""What matters in a stream of watch events: phases, conditions, reasons, container states, and their order.

Names, identities and times are left out, and so are steps that a watcher cannot tell apart, so that a stream of the
stand-in can be compared with one that was recorded from a real cluster.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from flexcore.testing.kubernetes.resources import JOB_TRACKING, Item

View = tuple[object, ...]


@dataclass(frozen=True, slots=True)
class Transcript:
    """A recorded scenario: what was asked, and what two watches gave, with the seconds of each."""

    scenario: str
    steps: list[Item]
    jobs: list[Item]
    pods: list[Item]

    @classmethod
    def read(cls, path: Path) -> "Transcript":
        """Read a file of `tests/data/kubernetes`."""
        content = json.loads(path.read_text())
        return cls(content["scenario"], content["steps"], content["watch_jobs"], content["watch_pods"])


def views_of_jobs(events: Iterable[Item]) -> list[list[View]]:
    """Give for each Job, in the order of their creation, how it looked."""
    return _by_identity(events, _job)


def views_of_pods(events: Iterable[Item]) -> list[list[View]]:
    """Give for each pod, in the order of their creation, how it looked."""
    return _by_identity(events, _pod)


def views_of_events(items: Iterable[Item]) -> list[list[View]]:
    """Give for each object what was said of it, in its order, each thing once; pods have chance for their order."""
    found: dict[str, list[View]] = {}
    for each in items:
        about = each["involvedObject"]
        view = (about["kind"], each["type"], each["reason"])
        said = found.setdefault(f"{about['kind']} {about['name']}", [])
        if view not in said:
            said.append(view)
    return sorted(found.values(), key=repr)


def _by_identity(events: Iterable[Item], view: Callable[[Item], View]) -> list[list[View]]:
    found: dict[str, list[View]] = {}
    for event in events:
        seen = found.setdefault(event["object"]["metadata"]["uid"], [])
        look: View = (event["type"] if event["type"] == "DELETED" else "", *view(event["object"]))
        if not seen or seen[-1] != look:
            seen.append(look)
    return list(found.values())


def _job(item: Item) -> View:
    status, metadata = item.get("status") or {}, item["metadata"]
    uncounted = status.get("uncountedTerminatedPods") or {}
    return (
        tuple(metadata.get("finalizers", ())),
        *(status.get(each, 0) for each in ("active", "succeeded", "failed", "terminating")),
        tuple(sorted((key, len(value)) for key, value in uncounted.items())),
        tuple((each["type"], each["status"], each.get("reason", "")) for each in status.get("conditions", ())),
        "startTime" in status,
        "completionTime" in status,
    )


def _pod(item: Item) -> View:
    status, metadata = item.get("status") or {}, item["metadata"]
    return (
        JOB_TRACKING in metadata.get("finalizers", ()),
        metadata.get("deletionGracePeriodSeconds"),
        status["phase"],
        status.get("reason", ""),
        frozenset((each["type"], each["status"], each.get("reason", "")) for each in status.get("conditions", ())),
        tuple(map(_container, status.get("initContainerStatuses", ()))),
        tuple(map(_container, status.get("containerStatuses", ()))),
    )


def _container(status: Item) -> View:
    ((kind, state),) = status["state"].items()
    told = (
        kind,
        state.get("reason", ""),
        state.get("exitCode"),
        state.get("message", "") if kind == "terminated" else "",
    )
    return (status["name"], *told, status["restartCount"], status["ready"], status["started"])
