"""What ends in a cluster ends for good, in its own time, and takes nothing with it that is somebody else's. [stand-in]"""

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.embedded import plane, step_of
from e2e.kubernetes_site import IMAGE, PATIENCE_S, container, events_of, failure, outcome, runtime, send
from flexcore_kubernetes.cluster import Call, Cluster
from flexcore_kubernetes.identity import of_name

from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupScope,
    ExecutionRequest,
    ExecutionScope,
    Progress,
    Succeeded,
    Survey,
)
from flexcore.testing.factories import attempt_id, execution_request
from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.kubernetes.standin import StandIn

pytestmark = pytest.mark.skipif(bool(why_not_boxed()), reason=why_not_boxed())

BESIDE = "/api/v1/namespaces/default"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
SLOW = "slow:1"  # 2 s at this pace


@pytest.fixture(scope="module")
def cluster() -> Iterator[StandIn]:
    with StandIn(scale=0.05) as started:
        yield started


def config_maps(*names: str) -> list[JSON]:
    return [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": each}, "data": {}} for each in names]


async def there(cluster: StandIn, kind: str, *names: str) -> set[str]:
    """Say which of them the cluster has."""
    listed = await send(cluster, "GET", f"{BESIDE}/{kind}")
    return {each["metadata"]["name"] for each in listed["items"]} & set(names)


def scopes(request: ExecutionRequest) -> dict[str, CleanupScope]:
    none = timedelta(0)
    return {
        "attempt": AttemptScope(id=request.id, grace=none),
        "execution": ExecutionScope(execution=request.id.execution, grace=none),
    }


@pytest.mark.parametrize("scope", ["attempt", "execution"])
async def test_nothing_more_is_applied_once_the_step_is_ended(
    cluster: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, scope: str
) -> None:
    names = (f"{scope}-first", f"{scope}-second")
    id = attempt_id(scope)
    request = execution_request({"apply": config_maps(*names)}, kind=StepKind.KUBERNETES, id=id)
    here, asked, may_go, send_it = runtime(cluster, tmp_path), asyncio.Event(), asyncio.Event(), Cluster.send
    done: list[str] = []

    async def send_late(connection: Cluster, call: Call) -> Any:
        if call.method != "PATCH" or "dryRun" in (call.query or {}):
            done.append("asked")
            return await send_it(connection, call)
        asked.set()
        await may_go.wait()
        answer = await send_it(connection, call)
        done.append("applied")
        return answer

    monkeypatch.setattr(Cluster, "send", send_late)
    reading = asyncio.create_task(events_of(here, request))
    await asked.wait()
    done.clear()
    ending = asyncio.create_task(here.cleanup(scopes(request)[scope]))
    asyncio.get_running_loop().call_soon(may_go.set)
    report = await ending
    then = await there(cluster, "configmaps", *names)
    events = await reading

    assert report.gone == {external_name("ours", request.id)}
    assert done[0] == "applied" and done.count("applied") == 1  # the clean-up waits for it before it looks
    assert then == {names[0]}
    assert await there(cluster, "configmaps", *names) == then
    assert failure(events)[0] is ErrorClass.CANCELLED


async def test_an_ended_step_does_not_wait_for_what_it_applied(cluster: StandIn, tmp_path: Path) -> None:
    pod: JSON = {"containers": [{"name": "main", "image": "none:1"}]}
    template: JSON = {"metadata": {"labels": {"app": "never"}}, "spec": pod}
    spec: JSON = {"selector": {"matchLabels": {"app": "never"}}, "template": template}
    deployment: JSON = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "never"}, "spec": spec}
    request = execution_request({"apply": deployment}, kind=StepKind.KUBERNETES, id=attempt_id("never"))
    here = runtime(cluster, tmp_path, start_timeout=600)
    waits = asyncio.Event()

    async def read() -> list[Any]:
        events = []
        async for event in here.execute(request):
            events.append(event)
            if isinstance(event, Progress):
                waits.set()
        return events

    async with asyncio.timeout(PATIENCE_S):
        reading = asyncio.create_task(read())
        await waits.wait()
        await here.cleanup(AttemptScope(id=request.id, grace=timedelta(0)))
        events = await reading

    assert failure(events)[0] is ErrorClass.CANCELLED
    assert "Deployment/never" in (await here.cleanup(Survey("ours"))).retained


async def test_a_slow_pull_takes_nothing_from_the_time_of_the_work(cluster: StandIn, tmp_path: Path) -> None:
    until = datetime.now(UTC) + timedelta(seconds=1)
    parameters = {"image": SLOW, "command": ["sh", "-c", "sleep 0.5; echo 1 > $FLEXCORE_RESULT"]}
    request = execution_request(parameters, kind=StepKind.CONTAINER, id=attempt_id("slow"), deadline=until)

    events = await events_of(runtime(cluster, tmp_path, start_timeout=30), request)

    assert outcome(events) == Succeeded(1)


async def test_the_cluster_ends_work_that_nobody_else_ended_in_time(cluster: StandIn, tmp_path: Path) -> None:
    # Long past, so that the pod has two seconds although it may take thirty until it runs.
    until = datetime.now(UTC) - timedelta(seconds=28)
    request = container("sleep 60", "endless", deadline=until)

    events = await events_of(runtime(cluster, tmp_path, start_timeout=30), request)

    assert failure(events) == (ErrorClass.TIMEOUT, "over its time limit")


async def test_the_engines_own_limit_comes_before_the_clusters(cluster: StandIn, tmp_path: Path) -> None:
    named = {"type": "kubernetes", "kubeconfig": str(cluster.kubeconfig), "security": "none"}
    (tmp_path / "flexcore.yaml").write_text(yaml.safe_dump({"runtimes": {"cloud": named}}))
    work = {"image": SLOW, "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 60 & wait"]}
    step = {"id": "over", "type": "container", "runtime": "cloud", "timeout": "500ms", "with": work}

    async with plane(tmp_path) as here, asyncio.timeout(PATIENCE_S):
        document = await here.execute(json.dumps({"name": "work", "steps": [step]}))

    assert step_of(document, "over")["error"]["class"] == "timeout"
    assert "DeadlineExceeded" not in json.dumps(document)


async def put_beside(cluster: StandIn, name: str, labels: dict[str, str]) -> None:
    metadata = {"name": name, "labels": labels}
    await asyncio.gather(
        *(send(cluster, "POST", f"{BESIDE}/{kind}", {"metadata": metadata}) for kind in ("secrets", "configmaps"))
    )


async def left(cluster: StandIn, name: str) -> set[str]:
    return {kind for kind in ("secrets", "configmaps") if await there(cluster, kind, name)}


async def put_job(cluster: StandIn, name: str) -> None:
    pod = {"containers": [{"name": "main", "image": IMAGE, "command": ["true"]}], "restartPolicy": "Never"}
    await send(cluster, "POST", JOBS, {"metadata": {"name": name}, "spec": {"template": {"spec": pod}}})


@pytest.mark.parametrize("has_job", [True, False])
@pytest.mark.parametrize("is_ours", [True, False])
async def test_what_has_the_name_of_an_attempt_is_removed_only_with_our_labels(
    cluster: StandIn, tmp_path: Path, has_job: bool, is_ours: bool
) -> None:
    id = attempt_id(f"strange-{has_job}-{is_ours}")
    name = external_name("ours", id)
    await put_beside(cluster, name, of_name("ours", name) if is_ours else {"app": "theirs"})
    if has_job:
        await put_job(cluster, name)

    report = await runtime(cluster, tmp_path).cleanup(AttemptScope(id=id, grace=timedelta(0)))

    assert report.gone == {name}
    assert await left(cluster, name) == (set() if is_ours else {"secrets", "configmaps"})


@pytest.mark.parametrize("has_job", [True, False])
async def test_where_labels_may_not_be_read_the_name_counts_unless_somebody_else_has_it(
    cluster: StandIn, tmp_path: Path, has_job: bool
) -> None:
    token = await cluster.account(f"blind-{has_job}", ["list secrets", "list configmaps"])
    blind = runtime(cluster, tmp_path, kubeconfig=str(cluster.kubeconfig_for(token)))
    id = attempt_id(f"blind-{has_job}")
    name = external_name("ours", id)
    await put_beside(cluster, name, of_name("ours", name))
    if has_job:
        await put_job(cluster, name)

    await blind.cleanup(AttemptScope(id=id, grace=timedelta(0)))

    assert await left(cluster, name) == ({"secrets", "configmaps"} if has_job else set())


async def test_a_secret_that_was_applied_is_not_taken_for_the_steps_own(cluster: StandIn, tmp_path: Path) -> None:
    secret: JSON = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "kept"}, "data": {}}
    request = execution_request({"apply": secret}, kind=StepKind.KUBERNETES, id=attempt_id("secret"))
    here = runtime(cluster, tmp_path)

    await events_of(here, request)
    await here.cleanup(AttemptScope(id=request.id, grace=timedelta(0)))

    assert await there(cluster, "secrets", "kept") == {"kept"}
    assert external_name("ours", request.id) not in (await here.cleanup(Survey("ours"))).pending
