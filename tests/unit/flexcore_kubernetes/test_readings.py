"""Small readings of what the cluster says: quantities, nodes, readiness, the mirror's doubts."""

from typing import Any

import pytest
from flexcore_kubernetes.identity import CONTROLLER
from flexcore_kubernetes.mirror import Mirror, Resource
from flexcore_kubernetes.nodes import limits, quantity
from flexcore_kubernetes.outcomes import Sight, failure_of, is_complete
from flexcore_kubernetes.readiness import endpoint_of, waits_for

from flexcore.runtime.interface import Resources


def job(version: int, uid: str = "u1", **more: Any) -> dict[str, Any]:
    metadata = {"name": "fx-1", "uid": uid, "resourceVersion": str(version), "labels": {"flexcore.io/name": "fx-1"}}
    return {"metadata": metadata, "spec": {}, "status": {}, **more}


@pytest.mark.parametrize(
    ("text", "value"), [("500m", 0.5), ("4", 4), ("16Gi", 16 << 30), ("1k", 1000), ("1.5", 1.5), ("2Ki", 2048)]
)
def test_quantities_are_read(text: str, value: float) -> None:
    assert quantity(text) == value


def test_no_quantity_is_refused() -> None:
    with pytest.raises(ValueError, match="is not a quantity"):
        quantity("many")


def test_the_largest_node_that_takes_work_is_the_limit() -> None:
    def node(cpu: str, memory: str, **spec: Any) -> dict[str, Any]:
        return {"spec": spec, "status": {"allocatable": {"cpu": cpu, "memory": memory}}}

    found = limits([node("2", "1Gi"), node("1500m", "4Gi"), node("64", "64Gi", unschedulable=True)], "nvidia.com/gpu")

    assert found == Resources(cpu=2.0, memory=4 << 30, gpu=0.0)
    assert limits([], "nvidia.com/gpu") == Resources()


@pytest.mark.parametrize(
    ("item", "says"),
    [
        ({"kind": "Deployment", "spec": {"replicas": 2}, "status": {}}, "its controller"),
        (
            {
                "kind": "Deployment",
                "spec": {"replicas": 2},
                "status": {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 1},
            },
            "1 of 2 ready",
        ),
        (
            {
                "kind": "Deployment",
                "spec": {"replicas": 2},
                "status": {"observedGeneration": 1, "updatedReplicas": 2, "availableReplicas": 2},
            },
            "",
        ),
        ({"kind": "StatefulSet", "spec": {}, "status": {"readyReplicas": 1}}, ""),
        ({"kind": "DaemonSet", "status": {"desiredNumberScheduled": 3, "numberReady": 1}}, "1 of 3"),
        ({"kind": "Service", "spec": {"type": "LoadBalancer"}}, "an address"),
        ({"kind": "Service", "spec": {}}, ""),
        ({"kind": "PersistentVolumeClaim", "status": {"phase": "Pending"}}, "its volume"),
        (
            {"kind": "Model", "status": {"conditions": [{"type": "Ready", "status": "False", "reason": "Loading"}]}},
            "Loa",
        ),
        ({"kind": "ConfigMap"}, ""),
    ],
)
def test_readiness_says_what_is_waited_for(item: dict[str, Any], says: str) -> None:
    found = waits_for({"metadata": {"name": "x", "generation": 1}, **item})

    assert (says in found) if says else found == ""


def test_the_endpoint_is_in_the_cluster_or_of_the_load_balancer() -> None:
    service = {"kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 443}]}}

    outside = {**service, "status": {"loadBalancer": {"ingress": [{"ip": "192.0.2.1"}]}}}

    assert endpoint_of(service, "ns") == "https://web.ns.svc:443"
    assert endpoint_of(outside, "ns") == "https://192.0.2.1:443"


def test_what_a_list_lacks_is_suspected_and_not_forgotten() -> None:
    mirror = Mirror()
    mirror.replace(Resource.JOBS, [job(5, status={"active": 1})])

    changed = mirror.replace(Resource.JOBS, [])

    sight = mirror.sight("u1")
    assert changed == {"fx-1"}
    assert mirror.is_suspect("u1")
    assert sight is not None and sight.job["status"] == {"active": 1}


def test_an_older_state_does_not_replace_a_newer_one_and_news_end_the_doubt() -> None:
    mirror = Mirror()
    mirror.put(Resource.JOBS, job(7, status={"succeeded": 1}))
    mirror.drop(Resource.JOBS, job(7, status={"succeeded": 1}))

    mirror.put(Resource.JOBS, job(6, status={"active": 1}))
    still = mirror.is_suspect("u1")
    mirror.put(Resource.JOBS, job(8, status={"succeeded": 1}))

    sight = mirror.sight("u1")
    assert still
    assert not mirror.is_suspect("u1")
    assert sight is not None and sight.job["status"] == {"succeeded": 1}


def test_what_is_gone_is_forgotten_once_nobody_follows_it() -> None:
    mirror = Mirror()
    mirror.put(Resource.JOBS, job(7))
    mirror.drop(Resource.JOBS, job(8))

    mirror.forget_gone("fx-1")

    assert mirror.sight("u1") is None


FAILED_JOB = job(1, status={"conditions": [{"type": "Failed", "status": "True", "reason": "BackoffLimitExceeded"}]})


def ended_pod(name: str, code: int, phase: str = "") -> dict[str, Any]:
    state = {"terminated": {"exitCode": code, "reason": "Error" if code else "Completed"}}
    status = {
        "phase": phase or ("Failed" if code else "Succeeded"),
        "containerStatuses": [{"name": "main", "state": state}],
    }
    return {"metadata": {"name": name, "uid": name}, "spec": {}, "status": status}


def test_the_end_of_a_failed_job_is_that_of_the_pod_that_failed() -> None:
    for pods in ([ended_pod("a", 3), ended_pod("b", 0)], [ended_pod("a", 0), ended_pod("b", 3)]):
        assert failure_of(Sight(FAILED_JOB, tuple(pods))).name == "exit 3"


def test_the_end_of_a_container_is_not_taken_for_that_of_its_pod() -> None:
    """Which of several pods failed is told by their phases, which may be seen after the end of the Job."""
    early = Sight(FAILED_JOB, (ended_pod("a", 3, phase="Running"), ended_pod("b", 0)))
    late = Sight(FAILED_JOB, (ended_pod("a", 3), ended_pod("b", 0)))

    assert not is_complete(early)
    assert is_complete(late)


def test_pods_and_events_are_found_with_their_job_and_forgotten_with_it() -> None:
    mirror = Mirror()
    pod = {"metadata": {**job(1, "p1")["metadata"], "labels": {"flexcore.io/name": "fx-1", CONTROLLER: "u1"}}}
    about = {"metadata": {"uid": "e1"}, "involvedObject": {"uid": "p1"}, "reason": "FailedMount"}
    mirror.put(Resource.JOBS, job(1))
    mirror.put(Resource.PODS, pod)
    mirror.put(Resource.EVENTS, about)
    mirror.put(Resource.EVENTS, {"metadata": {"uid": "e2"}, "involvedObject": {"uid": "other"}})

    sight = mirror.sight("u1")
    mirror.replace(Resource.EVENTS, [])
    after = mirror.sight("u1")
    for resource, item in ((Resource.PODS, pod), (Resource.JOBS, job(2))):
        mirror.drop(resource, item)
    mirror.forget_gone("fx-1")
    mirror.put(Resource.JOBS, job(3))

    assert sight == Sight(job(1), (pod,), (about,))
    assert after == Sight(job(1), (pod,), ())
    assert mirror.sight("u1") == Sight(job(3))
