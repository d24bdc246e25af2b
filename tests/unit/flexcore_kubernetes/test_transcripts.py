"""What was recorded from a real cluster is judged as it was: 25 scenarios, played through the mirror event by event."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from flexcore_kubernetes import outcomes, refusals
from flexcore_kubernetes.cluster import Refused
from flexcore_kubernetes.mirror import Mirror, Resource
from flexcore_kubernetes.outcomes import Sight

from flexcore.model.failure import ErrorClass
from flexcore.runtime.interface import Succeeded

FOLDER = Path(__file__).parents[2] / "data" / "kubernetes"


@dataclass(frozen=True)
class Played:
    """A scenario at its end. `finals` has each final condition that was seen, in order, without repetitions."""

    sights: list[Sight]
    finals: list[str]


def recorded(scenario: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / f"{scenario}.json").read_text())
    return found


def played(scenario: str) -> Played:
    transcript, mirror = recorded(scenario), Mirror()
    entries = [(each["t"], Resource.JOBS, each) for each in transcript.get("watch_jobs", [])]
    entries += [(each["t"], Resource.PODS, each) for each in transcript.get("watch_pods", [])]
    named = {each["object"]["metadata"]["name"]: each["object"]["metadata"]["uid"] for _, _, each in entries}
    uids: list[str] = []
    finals: list[str] = []
    for _, resource, entry in sorted(entries, key=lambda each: each[0]):
        change = mirror.drop if entry["type"] == "DELETED" else mirror.put
        change(resource, entry["object"])
        uid = entry["object"]["metadata"]["uid"]
        if resource is Resource.JOBS and uid not in uids:
            uids.append(uid)
        if resource is Resource.JOBS and (final := outcomes.final(entry["object"])) and final not in finals:
            finals.append(final)
    for step in transcript["steps"]:
        if step["request"].endswith("/events"):
            warnings = [each for each in step["response"]["items"] if each["type"] == "Warning"]
            for number, each in enumerate(warnings):
                about = {**each["involvedObject"], "uid": named[each["involvedObject"]["name"]]}
                mirror.put(Resource.EVENTS, {**each, "metadata": {"uid": f"event-{number}"}, "involvedObject": about})
    sights = [sight for uid in uids if (sight := mirror.sight(uid)) is not None]
    return Played(sights, finals)


FAILURES = {
    "backoff": (ErrorClass.USER, "exit 1"),
    "deadline": (ErrorClass.TIMEOUT, "DeadlineExceeded"),
    "eviction": (ErrorClass.EVICTED, "EvictionByEvictionAPI"),
    "exit_code": (ErrorClass.USER, "exit 7"),
    "init_fail": (ErrorClass.USER, "exit 3"),
    "oom": (ErrorClass.OOM, "OOMKilled"),
    "pod_deadline": (ErrorClass.TIMEOUT, "DeadlineExceeded"),
    "start_error": (ErrorClass.INPUT, "StartError"),
}


@pytest.mark.parametrize("scenario", FAILURES)
def test_failed_jobs_have_their_class_and_name(scenario: str) -> None:
    end = played(scenario)

    failure = outcomes.failure_of(end.sights[0])

    assert (failure.error_class, failure.name) == FAILURES[scenario]
    assert end.finals == ["Failed"]


SUCCESSES = {
    "delete_background": {"exit_code": 0, "message": ""},  # the one that came after it, under the same name
    "sidecar": {"exit_code": 0, "message": ""},
    "signal": {"exit_code": 0, "message": ""},  # `$$` reached the shell as `$`: nothing was killed
    "success": {"answer": 42},
    "ttl_zero": {"exit_code": 0, "message": ""},  # judged by what the deletion still showed
}


@pytest.mark.parametrize("scenario", SUCCESSES)
def test_complete_jobs_have_their_result(scenario: str) -> None:
    end = played(scenario)

    assert outcomes.final(end.sights[-1].job) == "Complete"
    assert outcomes.result_of(end.sights[-1]) == Succeeded(SUCCESSES[scenario])
    assert end.finals == ["Complete"]


OBSTACLES = {
    "config_error": (ErrorClass.INPUT, "CreateContainerConfigError", 'secret "nope" not found'),
    "image_never": (ErrorClass.IMAGE, "ErrImageNeverPull", "not present with pull policy of Never"),
    "image_pull": (ErrorClass.IMAGE, "ImagePullBackOff", "Back-off pulling image"),
    "pod_quota": (ErrorClass.QUOTA, "Quota", "exceeded quota: q"),
    "service_account_missing": (ErrorClass.INPUT, "FailedCreate", 'serviceaccount "nope" not found'),
    "unschedulable": (ErrorClass.QUOTA, "Unschedulable", "Insufficient cpu"),
    "volume_missing": (ErrorClass.INPUT, "FailedMount", 'secret "nope" not found'),
}


@pytest.mark.parametrize("scenario", OBSTACLES)
def test_what_never_starts_has_its_cause(scenario: str) -> None:
    (sight,) = played(scenario).sights

    found = outcomes.obstacle(sight)

    assert not outcomes.is_working(sight)
    assert outcomes.has_started(sight) is None
    assert (found.row.error_class, found.row.reason) == OBSTACLES[scenario][:2]
    assert OBSTACLES[scenario][2] in found.message


@pytest.mark.parametrize("scenario", ["delete_background", "delete_default", "delete_foreground"])
def test_deleted_jobs_have_no_outcome_and_are_suspect(scenario: str) -> None:
    transcript, mirror = recorded(scenario), Mirror()
    for entry in transcript["watch_jobs"]:
        (mirror.drop if entry["type"] == "DELETED" else mirror.put)(Resource.JOBS, entry["object"])
    uid = transcript["watch_jobs"][0]["object"]["metadata"]["uid"]

    sight = mirror.sight(uid)

    assert sight is not None
    assert outcomes.final(sight.job) == ""
    assert mirror.is_suspect(uid)


REFUSALS = {
    ("create_errors", "bad name"): (ErrorClass.INPUT, "Invalid"),
    ("create_errors", "64 characters"): (ErrorClass.INPUT, "Invalid"),
    ("create_errors", "restartPolicy Always"): (ErrorClass.INPUT, "Invalid"),
    ("create_errors", "unknown field, strict"): (ErrorClass.INPUT, "Invalid"),
    ("create_errors", "missing namespace"): (ErrorClass.INPUT, "NamespaceMissing"),
    ("create_errors", "missing job"): (ErrorClass.INPUT, "NotFound"),
    ("create_errors", "same name"): (ErrorClass.DEPENDENCY, "Conflict"),
    ("delete_background", "wrong uid"): (ErrorClass.DEPENDENCY, "Conflict"),
    ("delete_foreground", "same name again at once"): (ErrorClass.DEPENDENCY, "Conflict"),
    ("forbidden", "create job"): (ErrorClass.INPUT, "Forbidden"),
    ("job_quota", "create job"): (ErrorClass.QUOTA, "QuotaExceeded"),
}


@pytest.mark.parametrize(("scenario", "what"), REFUSALS)
def test_refusals_have_their_class(scenario: str, what: str) -> None:
    step = next(each for each in recorded(scenario)["steps"] if each["what"] == what)
    answer = step["response"]
    refused = Refused(step["status"], answer["reason"], answer["message"], answer.get("details") or {})

    failure = refusals.failure_of(refused, "the Job")

    assert (failure.error_class, failure.name) == REFUSALS[scenario, what]
    assert answer["message"] in failure.message


def test_every_recorded_scenario_is_judged() -> None:
    judged = {*FAILURES, *SUCCESSES, *OBSTACLES, "delete_default", "delete_foreground"}

    assert {path.stem for path in FOLDER.glob("*.json")} == judged | {scenario for scenario, _ in REFUSALS}
