"""Work in a cluster survives what happens around it: the API server, the control plane, a sweep. [stand-in]"""

import asyncio
import json
import random
import time
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
import yaml
from e2e.kubernetes_site import (
    IMAGE,
    PATIENCE_S,
    container,
    events_of,
    failure,
    job,
    logged,
    outcome,
    pod_of,
    runtime,
    send,
    until_it_began,
    until_log,
)

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.model.workflow import Requirements, StepKind
from flexcore.runtime.interface import AttemptScope, ExecutionScope, Submitted, Succeeded, Survey
from flexcore.testing.command import Site
from flexcore.testing.factories import attempt_id, execution_request
from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.kubernetes.standin import StandIn

pytestmark = pytest.mark.skipif(bool(why_not_boxed()), reason=why_not_boxed())

DOWN_S = 1.0


@pytest.fixture
async def cluster() -> AsyncIterator[StandIn]:
    async with StandIn(scale=0.05) as started:
        yield started


async def test_a_restart_of_the_api_server_in_the_middle_loses_neither_outcome_nor_log(
    cluster: StandIn, tmp_path: Path
) -> None:
    lines = "for n in $(seq 1 60); do echo line $n; sleep 0.05; done; echo '{\"n\": 60}' > $FLEXCORE_RESULT"
    request = container(lines)
    reading = asyncio.create_task(events_of(runtime(cluster, tmp_path), request))
    await until_log(cluster, await pod_of(cluster, request), lambda log: b"line 20\n" in log)

    await cluster.kill_api()
    await asyncio.sleep(DOWN_S)
    await cluster.start_api()
    events = await reading

    assert outcome(events) == Succeeded({"n": 60})
    assert logged(events) == b"".join(b"line %d\n" % number for number in range(1, 61))
    assert len(await cluster.began()) == 1


async def test_a_cluster_that_stays_silent_leaves_the_outcome_open_and_the_work_is_found_again(
    cluster: StandIn, tmp_path: Path
) -> None:
    here = runtime(cluster, tmp_path, patience=1)
    request = container("sleep 2; echo '7' > $FLEXCORE_RESULT")
    reading = asyncio.create_task(events_of(here, request))
    await until_it_began(cluster)
    await cluster.kill_api()
    began = time.monotonic()

    with pytest.raises(RuntimeUnavailable):
        await reading
    silent_s = time.monotonic() - began
    with pytest.raises(RuntimeUnavailable):
        await events_of(here, request)
    await cluster.start_api()
    events = await events_of(here, request)

    assert silent_s < 10  # without `patience` it would be as long at least
    assert outcome(events) == Succeeded(7)
    assert next(each for each in events if isinstance(each, Submitted)).adopted
    assert len(await cluster.began()) == 1


async def test_a_lost_answer_to_the_creation_doubles_nothing(cluster: StandIn, tmp_path: Path) -> None:
    here = runtime(cluster, tmp_path, preflight=False)
    request = container("echo 1 > $FLEXCORE_RESULT")
    await cluster.lose_answer("create", "jobs.batch")

    with pytest.raises(RuntimeUnavailable):
        await events_of(here, request)
    events = await events_of(here, request)

    assert next(each for each in events if isinstance(each, Submitted)).adopted
    assert outcome(events) == Succeeded(1)
    assert len(await cluster.began()) == 1


async def test_what_is_ended_while_it_is_created_does_not_come_to_be_later(cluster: StandIn, tmp_path: Path) -> None:
    here = runtime(cluster, tmp_path)
    requests = [container("sleep 30", f"after-{milliseconds}") for milliseconds in (0, 5, 20, 60)]

    for request, seconds in zip(requests, (0, 0.005, 0.02, 0.06), strict=True):
        reading = asyncio.create_task(events_of(here, request))
        await asyncio.sleep(seconds)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        report = await here.cleanup(AttemptScope(id=request.id, grace=timedelta(0)))
        assert report.gone == {external_name("ours", request.id)}

    assert (await here.cleanup(Survey("ours"))).pending == frozenset()


async def test_what_cannot_start_fails_in_time_with_its_cause_and_leaves_nothing(
    cluster: StandIn, tmp_path: Path
) -> None:
    here, hasty = runtime(cluster, tmp_path), runtime(cluster, tmp_path, start_timeout=2)
    nothing = {"command": ["true"]}
    asked = {
        "image": ({"image": "none:1", **nothing}, {}),
        "name": ({"image": "No Image", **nothing}, {}),
        "cpu": ({"image": IMAGE, **nothing}, {"requirements": Requirements(cpu=500)}),
        "volume": ({"image": IMAGE, **nothing, "mounts": [{"path": "/x", "secret": "nope"}]}, {}),
        "command": ({"image": IMAGE, "command": ["/no/such/program"]}, {}),
    }
    requests = {
        path: execution_request(parameters, kind=StepKind.CONTAINER, id=attempt_id(path), **changes)
        for path, (parameters, changes) in asked.items()
    }
    waiting = {"image", "cpu", "volume"}

    reading = [events_of(hasty if path in waiting else here, each) for path, each in requests.items()]
    found = await asyncio.gather(*reading)

    classes = {path: failure(events)[0] for path, events in zip(asked, found, strict=True)}
    assert classes == {
        "image": ErrorClass.IMAGE,
        "name": ErrorClass.IMAGE,
        "cpu": ErrorClass.QUOTA,
        "volume": ErrorClass.INPUT,
        "command": ErrorClass.INPUT,
    }
    assert "Insufficient cpu" in failure(found[2])[1]
    assert "nope" in failure(found[3])[1]
    await here.cleanup(ExecutionScope(execution=requests["image"].id.execution, grace=timedelta(0)))
    assert (await here.cleanup(Survey("ours"))).pending == frozenset()


async def test_missing_permissions_and_namespaces_are_told_before_anything_is_created(
    cluster: StandIn, tmp_path: Path
) -> None:
    token = await cluster.account("reader", ["create secrets", "get pods/log"])
    reader = runtime(cluster, tmp_path, kubeconfig=str(cluster.kubeconfig_for(token)))
    elsewhere = runtime(cluster, tmp_path, namespace="nowhere")
    request = container("true", env={"A": "b"})

    forbidden = failure(await events_of(reader, request))
    missing = failure(await events_of(elsewhere, request))

    assert forbidden[0] is missing[0] is ErrorClass.INPUT
    assert "create secrets" in forbidden[1] and "get pods/log" in forbidden[1] and "'default'" in forbidden[1]
    assert 'namespaces "nowhere" not found' in missing[1]
    assert await cluster.began() == []


async def test_ends_that_the_cluster_brings_about_have_their_class(cluster: StandIn, tmp_path: Path) -> None:
    here = runtime(cluster, tmp_path)
    evicted, deleted = container("sleep 30", "evicted"), container("sleep 30", "deleted")
    reading = asyncio.gather(*(events_of(here, each) for each in (evicted, deleted)))
    pods = [await pod_of(cluster, each) for each in (evicted, deleted)]

    await cluster.evict("default", pods[0])
    await send(cluster, "DELETE", f"/api/v1/namespaces/default/pods/{pods[1]}", {"gracePeriodSeconds": 1})
    found = [failure(events) for events in await reading]

    assert [each[0] for each in found] == [ErrorClass.EVICTED, ErrorClass.EVICTED]
    assert "low on resource: memory" in found[0][1]
    assert "deleted from outside" in found[1][1]
    assert len(await cluster.began()) == 2


async def test_a_full_quota_is_told_before_anything_is_created(cluster: StandIn, tmp_path: Path) -> None:
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "0"}}}
    await send(cluster, "POST", "/api/v1/namespaces/default/resourcequotas", quota)
    here = runtime(cluster, tmp_path)

    error_class, message = failure(await events_of(here, container("true")))

    assert error_class is ErrorClass.QUOTA
    assert "exceeded quota: q" in message
    assert (await here.cleanup(Survey("ours"))).pending == frozenset()


async def test_a_users_job_is_checked_strictly_and_its_sidecar_holds_nothing_up(
    cluster: StandIn, tmp_path: Path
) -> None:
    side = {"name": "side", "image": IMAGE, "command": ["sleep", "60"], "restartPolicy": "Always"}
    script = "echo done; echo '[1, 2]' > /dev/termination-log"
    work = {"name": "work", "image": IMAGE, "command": ["sh", "-c", script]}
    pod = {"initContainers": [side], "containers": [work], "terminationGracePeriodSeconds": 1}
    here = runtime(cluster, tmp_path)
    right, wrong = job(pod, "right"), job(pod, "wrong", nosuch=1)

    ran, refused = await asyncio.gather(events_of(here, right), events_of(here, wrong))

    assert outcome(ran) == Succeeded([1, 2])
    assert logged(ran) == b"done\n"
    assert failure(refused)[0] is ErrorClass.INPUT
    assert 'unknown field "spec.nosuch"' in failure(refused)[1]
    assert len(await cluster.began()) == 1


async def test_renewed_credentials_are_read_again(cluster: StandIn, tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(cluster.kubeconfig.read_text().replace(cluster.token, "old-token"))
    here = runtime(cluster, tmp_path, kubeconfig=str(kubeconfig))

    with pytest.raises(RuntimeUnavailable, match="does not let us in"):
        await events_of(here, container("true"))
    kubeconfig.write_text(cluster.kubeconfig.read_text())

    assert isinstance(outcome(await events_of(here, container("true"))), Succeeded)


async def test_large_files_need_a_store_that_pods_reach(cluster: StandIn, tmp_path: Path) -> None:
    (tmp_path / "large.bin").write_bytes(random.Random(1).randbytes(2 << 20))
    parameters = {"script": "ls -l large.bin", "files": ["large.bin"]}
    request = execution_request(parameters, kind=StepKind.BASH, folder=tmp_path)

    error_class, message = failure(await events_of(runtime(cluster, tmp_path / "state"), request))

    assert error_class is ErrorClass.INPUT
    assert "too large for a ConfigMap" in message


async def test_what_was_applied_stays_when_everything_is_cleaned_up(cluster: StandIn, tmp_path: Path) -> None:
    here = runtime(cluster, tmp_path, start_timeout=10)
    pod = {"containers": [{"name": "web", "image": IMAGE, "command": ["sleep", "60"]}]}
    template = {"metadata": {"labels": {"app": "web"}}, "spec": pod}
    spec = {"replicas": 1, "selector": {"matchLabels": {"app": "web"}}, "template": template}
    deployment = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}
    ports = {"selector": {"app": "web"}, "ports": [{"port": 8080}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": ports}
    alone = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "alone"}, "spec": pod}
    request = execution_request({"apply": [deployment, service, alone]}, kind=StepKind.KUBERNETES)

    events = await events_of(here, request)
    await here.cleanup(AttemptScope(id=request.id))
    await here.cleanup(ExecutionScope(execution=request.id.execution))
    left = await here.cleanup(Survey("ours"))

    found = outcome(events)
    assert isinstance(found, Succeeded) and isinstance(found.output, dict)
    assert found.output["endpoint"] == "http://web.default.svc:8080"
    assert left.retained == {"Deployment/web", "Service/web"}
    assert "deletionTimestamp" not in (await send(cluster, "GET", "/api/v1/namespaces/default/pods/alone"))["metadata"]
    assert left.pending == frozenset()
    assert (await runtime(cluster, tmp_path, "theirs").cleanup(Survey("theirs"))).retained == frozenset()


async def test_a_killed_control_plane_finds_its_work_again(cluster: StandIn, tmp_path: Path) -> None:
    site = Site(tmp_path)
    named = {"type": "kubernetes", "kubeconfig": str(cluster.kubeconfig), "security": "none"}
    (tmp_path / "flexcore.yaml").write_text(yaml.safe_dump({"runtimes": {"cloud": named}}))
    script = "echo began; sleep 3; echo ended; echo 42 > $FLEXCORE_RESULT"
    step = {"id": "far", "type": "container", "with": {"image": IMAGE, "command": ["sh", "-c", script]}}
    (tmp_path / "far.yaml").write_text(json.dumps({"name": "far", "steps": [step]}))
    owner = site.start("workflow", "execute", "far")
    async with asyncio.timeout(PATIENCE_S):
        while not await cluster.began():
            await asyncio.sleep(0.05)

    assert owner.kill(group=True)
    resumed = await asyncio.to_thread(site.run, "workflow", "resume")
    (listed,) = await asyncio.to_thread(site.ask, "execution", "list")
    shown = await asyncio.to_thread(site.ask, "execution", "show", listed["id"])

    assert resumed.code == 0, resumed.err
    assert shown["status"] == "succeeded", shown
    assert shown["steps"][0]["result"] == 42
    assert shown["steps"][0]["attempt"] == 1
    assert len(await cluster.began()) == 1
