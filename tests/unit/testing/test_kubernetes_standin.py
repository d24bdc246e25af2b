"""[stand-in] What the stand-in cluster does beyond the recorded scenarios, as a real cluster was seen to do it."""

import asyncio
import ipaddress
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest

from flexcore.testing.kubernetes.addresses import Addresses
from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.kubernetes.standin import StandIn
from flexcore.testing.runtime_harness import fresh_name

REASON = why_not_boxed()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

GATE = "trap 'exit 0' TERM; echo begun; sleep 60 & wait"


@pytest.fixture(scope="module")
def cluster() -> Iterator[StandIn]:
    with StandIn(scale=0.02) as standin:
        yield standin


class Client:
    """A namespace of its own."""

    def __init__(self, http: httpx.AsyncClient, namespace: str) -> None:
        self.http = http
        self.jobs = f"/apis/batch/v1/namespaces/{namespace}/jobs"
        self.core = f"/api/v1/namespaces/{namespace}"
        self.namespace = namespace

    async def ask(self, method: str, path: str, body: Any = None, **params: Any) -> httpx.Response:
        return await self.http.request(method, path, json=body, params=params)

    async def get(self, path: str, **params: Any) -> Any:
        return (await self.ask("GET", path, **params)).json()

    async def job(self, script: str, name: str = "", **changes: Any) -> dict[str, Any]:
        answer = await self.ask("POST", self.jobs, job(script, name or fresh_name("j"), **changes))
        assert answer.status_code == 201, answer.text
        made: dict[str, Any] = answer.json()
        return made

    async def pods(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = (await self.get(f"{self.core}/pods"))["items"]
        return found

    async def pod(self, *phases: str) -> dict[str, Any]:
        """Wait for a pod in one of the phases, or for one that runs."""
        return await until(lambda: self._pod(phases or ("Running",)))

    async def _pod(self, phases: Sequence[str]) -> dict[str, Any] | None:
        return next((each for each in await self.pods() if each["status"]["phase"] in phases), None)

    async def ended(self, name: str) -> str:
        """Wait for the last condition of a Job."""

        async def look() -> str:
            status = (await self.get(f"{self.jobs}/{name}"))["status"]
            types = [each["type"] for each in status.get("conditions", [])]
            return next((each for each in types if each in ("Complete", "Failed")), "")

        return await until(look)

    async def watch(self, path: str, **params: Any) -> AsyncGenerator[dict[str, Any], None]:
        async with self.http.stream("GET", path, params={"watch": "1", **params}) as stream:
            assert stream.status_code == 200
            async for line in stream.aiter_lines():
                yield json.loads(line)


def job(script: str, name: str, *, container: dict[str, Any] | None = None, **changes: Any) -> dict[str, Any]:
    pod = changes.pop("pod", {})
    command = {"command": ["bash", "-c", script.replace("$", "$$")]}
    main = {"name": "main", "image": "k8s.local/python:1", **command, **(container or {})}
    spec = {"restartPolicy": "Never", "terminationGracePeriodSeconds": 5, "containers": [main], **pod}
    return {"metadata": {"name": name}, "spec": {"backoffLimit": 0, "template": {"spec": spec}, **changes}}


async def until(look: Callable[[], Awaitable[Any]]) -> Any:
    end = time.monotonic() + 20
    while not (found := await look()):
        assert time.monotonic() < end, "not within 20 s"
        await asyncio.sleep(0.01)
    return found


@pytest.fixture
async def client(cluster: StandIn) -> AsyncIterator[Client]:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    async with httpx.AsyncClient(base_url=cluster.url, headers=headers, timeout=30) as http:
        namespace = fresh_name("t-")
        await http.post("/api/v1/namespaces", json={"metadata": {"name": namespace}})
        yield Client(http, namespace)
        await http.delete(f"/api/v1/namespaces/{namespace}")


async def test_pods_go_on_while_the_api_is_down_and_no_version_of_before_is_served(
    cluster: StandIn, client: Client
) -> None:
    made = await client.job("sleep 0.5; echo still here")
    version = (await client.get(client.jobs))["metadata"]["resourceVersion"]
    watch = client.watch(client.jobs, resourceVersion=version)
    await anext(watch)

    await cluster.kill_api()
    with pytest.raises(httpx.TransportError):
        async for _ in watch:
            pass
    with pytest.raises(httpx.TransportError):
        await client.pods()
    await cluster.start_api()

    assert await client.ended(made["metadata"]["name"]) == "Complete"
    events = [each async for each in client.watch(client.jobs, resourceVersion=version)]
    assert [(each["type"], each["object"]["code"], each["object"]["reason"]) for each in events] == [
        ("ERROR", 410, "Expired")
    ]


async def test_frozen_api_is_deaf_and_loses_nothing(cluster: StandIn, client: Client) -> None:
    path = f"{client.core}/configmaps"
    watch = client.watch(path)
    reading = asyncio.create_task(anext(watch))

    cluster.freeze_api()
    with pytest.raises(httpx.TimeoutException):
        await client.http.get(path, timeout=0.2)
    cluster.thaw_api()
    await client.ask("POST", path, {"metadata": {"name": "c"}})

    assert (await reading)["object"]["metadata"]["name"] == "c"
    await watch.aclose()


async def test_watch_begins_with_what_is_there_and_ends_at_its_time(client: Client) -> None:
    await client.job("true", "first")
    watch = client.watch(client.jobs, timeoutSeconds=1, fieldSelector="metadata.name=first", allowWatchBookmarks="true")

    events = [each async for each in watch]

    assert (events[0]["type"], events[0]["object"]["metadata"]["name"]) == ("ADDED", "first")
    assert events[-1]["type"] == "BOOKMARK"


async def test_label_that_changes_away_looks_like_a_deletion(client: Client) -> None:
    path = f"{client.core}/configmaps"
    await client.ask("POST", path, {"metadata": {"name": "c", "labels": {"a": "1"}}})
    watch = client.watch(path, labelSelector="a=1")
    await anext(watch)

    await client.http.patch(
        f"{path}/c",
        json={"metadata": {"labels": {"a": "2"}}},
        headers={"Content-Type": "application/merge-patch+json"},
    )

    assert (await anext(watch))["type"] == "DELETED"
    assert (await client.ask("GET", f"{path}/c")).status_code == 200
    await watch.aclose()


@pytest.mark.parametrize(
    ("selector", "names"),
    [
        ("n=1", "a"),
        ("n!=1", "bc"),
        ("n in (1,2)", "ab"),
        ("n notin (1,2)", "c"),
        ("n", "ab"),
        ("!n", "c"),
        ("n>1", "b"),
    ],
)
async def test_label_selectors(client: Client, selector: str, names: str) -> None:
    path = f"{client.core}/configmaps"
    for name, labels in {"a": {"n": "1"}, "b": {"n": "2"}, "c": {"x": ""}}.items():
        await client.ask("POST", path, {"metadata": {"name": name, "labels": labels}})

    found = await client.get(path, labelSelector=selector)

    assert names == "".join(each["metadata"]["name"] for each in found["items"])


async def test_bad_selectors_are_refused(client: Client) -> None:
    answers = [
        await client.ask("GET", f"{client.core}/pods", labelSelector="a in b"),
        await client.ask("GET", f"{client.core}/pods", fieldSelector="spec.image=x"),
    ]

    assert [each.status_code for each in answers] == [400, 400]


async def test_pages_have_one_version_and_no_kinds(client: Client) -> None:
    path = f"{client.core}/configmaps"
    for number in range(5):
        await client.ask("POST", path, {"metadata": {"name": f"c{number}"}})

    first = await client.get(path, limit=2)
    await client.ask("DELETE", f"{path}/c4")
    second = await client.get(path, **{"limit": 9, "continue": first["metadata"]["continue"]})

    assert first["metadata"]["remainingItemCount"] == 3
    assert first["metadata"]["resourceVersion"] == second["metadata"]["resourceVersion"]
    names = [each["metadata"]["name"] for each in (*first["items"], *second["items"])]
    assert names == ["c0", "c1", "c2", "c3", "c4"]
    assert "kind" not in first["items"][0]


async def test_stale_update_is_a_conflict_and_a_namesake_is_not(client: Client) -> None:
    path = f"{client.core}/configmaps"
    body = {"metadata": {"name": "c"}, "data": {"a": "1"}}
    made = (await client.ask("POST", path, body)).json()
    await client.ask("PUT", f"{path}/c", {**made, "data": {"a": "2"}})

    stale = (await client.ask("PUT", f"{path}/c", made)).json()
    twice = (await client.ask("POST", path, body)).json()

    assert [(each["code"], each["reason"]) for each in (stale, twice)] == [(409, "Conflict"), (409, "AlreadyExists")]


async def test_what_is_replaced_without_naming_its_namespace_stays_in_it(client: Client) -> None:
    path = f"{client.core}/secrets"
    body = {"metadata": {"name": "s"}, "stringData": {"a": "1"}}
    await client.ask("POST", path, body)

    replaced = (await client.ask("PUT", f"{path}/s", body)).json()
    elsewhere = await client.ask("PUT", f"{path}/s", {"metadata": {"name": "s", "namespace": "default"}})
    renamed = await client.ask("PUT", f"{path}/s", {"metadata": {"name": "t"}})
    deleted = await client.ask("DELETE", f"{path}/s")

    assert replaced["metadata"]["namespace"] == client.namespace
    assert [elsewhere.status_code, renamed.status_code, deleted.status_code] == [400, 400, 200]
    assert (await client.get(path))["items"] == []


def test_no_two_clusters_on_a_machine_give_pods_the_same_address() -> None:
    with Addresses() as one, Addresses() as other:
        given = [each.next() for _ in range(600) for each in (one, other)]

    assert len(set(given)) == len(given)
    assert all(ipaddress.ip_address(each).is_loopback for each in given)


async def test_answer_may_be_lost_although_the_job_was_made(cluster: StandIn, client: Client) -> None:
    await cluster.lose_answer("create", "jobs.batch")

    with pytest.raises(httpx.TransportError):
        await client.ask("POST", client.jobs, job("true", "made"))

    assert (await client.ask("GET", f"{client.jobs}/made")).status_code == 200


async def test_requests_fail_as_told_and_only_so_often(cluster: StandIn, client: Client) -> None:
    await cluster.fail("list", "configmaps", 503)

    answers = [await client.ask("GET", f"{client.core}/configmaps") for _ in range(2)]

    assert [each.status_code for each in answers] == [503, 200]


async def test_missing_permissions_are_told_by_name(cluster: StandIn, client: Client) -> None:
    user = f"system:serviceaccount:{client.namespace}:worker"
    token = await cluster.account(user, ["get pods/log", "watch pods"])
    made = await client.job("true")
    pod = await client.pod("Succeeded")
    client.http.headers["Authorization"] = f"Bearer {token}"

    answers = [
        await client.ask("GET", f"{client.core}/pods"),
        await client.ask("GET", f"{client.core}/pods", watch="1"),
        await client.ask("GET", f"{client.core}/pods/{pod['metadata']['name']}/log"),
        await client.ask("GET", f"{client.jobs}/{made['metadata']['name']}"),
    ]
    client.http.headers["Authorization"] = "Bearer wrong"
    unknown = await client.ask("GET", f"{client.core}/pods")
    client.http.headers["Authorization"] = f"Bearer {cluster.token}"

    assert [each.status_code for each in answers] == [200, 403, 403, 200]
    assert f'User "{user}" cannot get resource "pods/log"' in answers[2].json()["message"]
    assert (unknown.status_code, unknown.json()["reason"]) == (401, "Unauthorized")


async def test_dry_run_of_a_pod_finds_what_that_of_a_job_does_not(client: Client) -> None:
    wanted = job("true", "dry", pod={"serviceAccountName": "nobody"})
    pod = {"metadata": {"name": "dry"}, "spec": wanted["spec"]["template"]["spec"]}

    of_job = await client.ask("POST", client.jobs, wanted, dryRun="All")
    of_pod = await client.ask("POST", f"{client.core}/pods", pod, dryRun="All")

    assert (of_job.status_code, of_pod.status_code) == (201, 403)
    assert 'serviceaccount "nobody" not found' in of_pod.json()["message"]
    assert "resourceVersion" not in of_job.json()["metadata"]
    assert (await client.get(client.jobs))["items"] == []


async def test_log_is_followed_and_read_again_from_a_second(client: Client) -> None:
    await client.job("echo one; sleep 1.2; echo two; printf three")
    pod = await client.pod("Running", "Succeeded")
    path = f"{client.core}/pods/{pod['metadata']['name']}/log"

    lines = (await client.ask("GET", path, follow="true", timestamps="true")).text.splitlines()
    since = lines[1].partition(" ")[0]
    again = (await client.ask("GET", path, sinceTime=since, timestamps="true")).text.splitlines()
    tail = (await client.ask("GET", path, tailLines=1)).text

    assert [each.partition(" ")[2] for each in lines] == ["one", "two", "three"]
    assert (again[-2:], tail) == (lines[-2:], "three")


async def test_what_is_around_a_container(client: Client) -> None:
    await client.ask("POST", f"{client.core}/configmaps", {"metadata": {"name": "c"}, "data": {"f": "from a file"}})
    await client.ask("POST", f"{client.core}/secrets", {"metadata": {"name": "s"}, "data": {"k": "c2VjcmV0"}})
    container = {
        "env": [
            {"name": "A", "value": "x"},
            {"name": "B", "value": "$(A)y $$(A) $(NONE)"},
            {"name": "S", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            {"name": "P", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        ],
        "volumeMounts": [{"name": "v", "mountPath": "/given/here"}],
        "securityContext": {"runAsUser": 65532, "runAsNonRoot": True},
    }
    script = "cat /given/here/f; echo; echo $B $S; [ $P = $(hostname) ] && echo named; id -u; echo $$; ls /tmp | wc -l"
    await client.job(script, container=container, pod={"volumes": [{"name": "v", "configMap": {"name": "c"}}]})
    pod = await client.pod("Succeeded")

    log = (await client.ask("GET", f"{client.core}/pods/{pod['metadata']['name']}/log")).text

    user = "65532" if "65532" in log else "0"  # where the tests are no root, there is only one user
    assert log.splitlines() == ["from a file", "xy $(A) $(NONE) secret", "named", user, "1", "0"]


async def test_termination_message_is_cut_at_4096_bytes(client: Client) -> None:
    await client.job("head -c 5000 /dev/zero | tr '\\0' x > /dev/termination-log; exit 3")
    pod = await client.pod("Failed")

    ended = pod["status"]["containerStatuses"][0]["state"]["terminated"]
    assert (ended["exitCode"], len(ended["message"])) == (3, 4096)


async def test_container_goes_with_all_that_it_began(client: Client) -> None:
    made = await client.job("setsid sleep 7777 & sleep 7777 & trap 'exit 0' TERM; wait")
    await client.pod()

    await client.ask("DELETE", f"{client.jobs}/{made['metadata']['name']}", {"propagationPolicy": "Background"})

    await until(lambda: _none(client))


async def _none(client: Client) -> bool:
    return not await client.pods()


async def test_objects_go_with_the_job_that_owns_them(client: Client) -> None:
    made = await client.job(GATE)
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": made["metadata"]["name"], "uid": made["metadata"]["uid"]}
    path = f"{client.core}/secrets"
    await client.ask("POST", path, {"metadata": {"name": "s", "ownerReferences": [owner]}})

    await client.ask("DELETE", f"{client.jobs}/{made['metadata']['name']}", {"propagationPolicy": "Background"})

    await until(lambda: _is_gone(client, f"{path}/s"))


async def _is_gone(client: Client, path: str) -> bool:
    return (await client.ask("GET", path)).status_code == 404


async def test_eviction_by_the_node_leaves_pod_and_log(cluster: StandIn, client: Client) -> None:
    made = await client.job("echo begun; sleep 60")
    pod = await client.pod()

    await cluster.evict(client.namespace, pod["metadata"]["name"])

    assert await client.ended(made["metadata"]["name"]) == "Failed"
    found = await client.pod("Failed")
    assert found["status"]["reason"] == "Evicted"
    assert (await client.ask("GET", f"{client.core}/pods/{pod['metadata']['name']}/log")).text == "begun\n"


async def test_lost_node_tells_nothing_and_its_work_goes_on(tmp_path: Path) -> None:
    mounts = {"volumeMounts": [{"name": "gates", "mountPath": "/gates"}]}
    volumes = {"volumes": [{"name": "gates", "hostPath": {"path": str(tmp_path)}}]}
    async with StandIn(scale=0.02) as other:
        headers = {"Authorization": f"Bearer {other.token}"}
        async with httpx.AsyncClient(base_url=other.url, headers=headers, timeout=30) as http:
            there = Client(http, "default")
            script = "echo begun; until [ -e /gates/go ]; do sleep 0.05; done; touch /gates/went; exit 4"
            made = await there.job(script, container=mounts, pod=volumes)
            pod = await there.pod()

            await other.lose_node()
            (tmp_path / "go").touch()
            log = await there.ask("GET", f"{there.core}/pods/{pod['metadata']['name']}/log")
            await until(lambda: _is_unready(there))
            await until(lambda: asyncio.to_thread((tmp_path / "went").exists))
            await other.find_node()

            assert log.status_code == 500
            assert await there.ended(made["metadata"]["name"]) == "Failed"
            (found,) = await there.pods()
            assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 4


async def _is_unready(client: Client) -> bool:
    (node,) = (await client.get("/api/v1/nodes"))["items"]
    return bool(node["status"]["conditions"][0]["status"] == "Unknown")


async def test_given_up_pod_is_replaced_while_it_still_runs(client: Client) -> None:
    async with StandIn(scale=0.02) as other:
        headers = {"Authorization": f"Bearer {other.token}"}
        async with httpx.AsyncClient(base_url=other.url, headers=headers, timeout=30) as http:
            there = Client(http, "default")
            await there.job(GATE, backoffLimit=1)
            await there.pod()
            await other.add_node("vm-2")

            await other.lose_node(evicts=True)

            await until(lambda: _are(there, 2))
            reasons = [
                each["status"]["conditions"] for each in await there.pods() if "deletionTimestamp" in each["metadata"]
            ]
            assert "DeletionByTaintManager" in json.dumps(reasons)
            assert len(await other.began()) == 2


async def _are(client: Client, count: int) -> bool:
    return [each["status"]["phase"] for each in await client.pods()] == ["Running"] * count


async def test_restarted_container_backs_off_until_the_limit(client: Client) -> None:
    made = await client.job("exit 1", backoffLimit=2, pod={"restartPolicy": "OnFailure"})

    assert await client.ended(made["metadata"]["name"]) == "Failed"
    await until(lambda: _none(client))


async def test_deployment_becomes_ready_and_its_service_has_an_address(client: Client) -> None:
    pod = {"containers": [{"name": "main", "image": "k8s.local/python:1", "command": ["sleep", "60"]}]}
    labels = {"app": "web"}
    spec = {
        "replicas": 2,
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": pod},
    }
    path = f"/apis/apps/v1/namespaces/{client.namespace}/deployments/web"
    manifest = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}, "spec": spec}

    applied = await client.http.patch(
        path,
        json=manifest,
        headers={"Content-Type": "application/apply-patch+yaml"},
        params={"fieldManager": "test"},
    )
    await client.ask(
        "POST", f"{client.core}/services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    )

    assert applied.status_code == 201
    await until(lambda: _has_available(client, path, 2))
    assert (await client.get(f"{client.core}/services/web"))["spec"]["clusterIP"].startswith("10.")


async def _has_available(client: Client, path: str, count: int) -> bool:
    return bool((await client.get(path))["status"].get("availableReplicas") == count)


async def test_official_client_works_with_the_kubeconfig(cluster: StandIn) -> None:
    def seen() -> str:
        from kubernetes import client, config, watch

        core = client.CoreV1Api(config.new_client_from_config(str(cluster.kubeconfig)))
        try:
            for _ in watch.Watch().stream(core.list_namespaced_pod, "default", resource_version="1"):
                pass
        except client.ApiException as error:
            return f"{error.status} {error.reason}"
        return ""

    assert (await asyncio.to_thread(seen)).startswith("410 Expired: too old resource version: 1 (")
