"""Work in a stand-in cluster, asked for and looked at as tests of the Kubernetes runtime do."""

import asyncio
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
from flexcore_kubernetes.identity import NAME
from flexcore_kubernetes.plugin import PLUGIN

from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    Failed,
    Finished,
    LogChunk,
    Runtime,
    Succeeded,
)
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import attempt_id, execution_request, runtime_context
from flexcore.testing.kubernetes.standin import StandIn

IMAGE = "busybox:1"
PATIENCE_S = 60.0
PODS = "/api/v1/namespaces/default/pods"


def runtime(cluster: StandIn, folder: Path, installation: str = "ours", **config: Any) -> Runtime:
    """Make an instance for the cluster that keeps its files in the folder."""
    given = {"kubeconfig": str(cluster.kubeconfig), "security": "none", **config}
    context = runtime_context(folder, installation=installation, clock=RealClock())
    return PLUGIN.create("k8s", PLUGIN.config.model_validate(given), context)


def container(script: str, path: str = "step", **changes: Any) -> ExecutionRequest:
    """Ask for a container that runs a shell script."""
    parameters = {"image": IMAGE, "command": ["sh", "-c", script]}
    id = attempt_id(path)
    return execution_request(parameters, kind=StepKind.CONTAINER, id=id, grace=timedelta(seconds=1), **changes)


def job(pod: dict[str, Any], path: str = "step", **spec: Any) -> ExecutionRequest:
    """Ask for a Job of one's own."""
    parameters = {"job": {"spec": {**spec, "template": {"spec": pod}}}}
    return execution_request(parameters, kind=StepKind.KUBERNETES, id=attempt_id(path), grace=timedelta(seconds=1))


async def events_of(runtime: Runtime, request: ExecutionRequest) -> list[ExecutionEvent]:
    """Execute to the end, in time."""
    async with asyncio.timeout(PATIENCE_S):
        return [event async for event in runtime.execute(request)]


def logged(events: list[ExecutionEvent]) -> bytes:
    """Give what was written."""
    return b"".join(event.data for event in events if isinstance(event, LogChunk))


def outcome(events: list[ExecutionEvent]) -> Succeeded | Failed:
    """Give how it ended."""
    last = events[-1]
    assert isinstance(last, Finished)
    return last.result.outcome


def failure(events: list[ExecutionEvent]) -> tuple[ErrorClass, str]:
    """Give class and message of how it failed."""
    found = outcome(events)
    assert isinstance(found, Failed)
    return found.failure.error_class, found.failure.message


async def until_it_began(cluster: StandIn) -> None:
    """Wait until a pod was put on a node."""
    async with asyncio.timeout(PATIENCE_S):
        while not await cluster.began():  # it happens in other processes
            await asyncio.sleep(0.05)


async def pod_of(cluster: StandIn, request: ExecutionRequest) -> str:
    """Wait for the pod of an attempt, and give its name."""
    name = external_name("ours", request.id)
    async with asyncio.timeout(PATIENCE_S):
        while True:
            found = [each["name"] for each in await cluster.began() if each["labels"].get(NAME) == name]
            if found:
                return str(found[0])
            await asyncio.sleep(0.05)


async def running_pod_of(cluster: StandIn, request: ExecutionRequest) -> str:
    """Wait until the pod of an attempt runs, and give its name."""
    name = await pod_of(cluster, request)
    await until_pod(cluster, name, lambda pod: pod["status"]["phase"] == "Running")
    return name


async def until_pod(cluster: StandIn, name: str, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Wait until a pod is as wanted."""
    async with asyncio.timeout(PATIENCE_S):
        while not wanted(await send(cluster, "GET", f"{PODS}/{name}")):
            await asyncio.sleep(0.05)


def is_out_of_sight(pod: dict[str, Any]) -> bool:
    """Say whether the cluster has noticed that the pod's node is silent."""
    return any(each["type"] == "Ready" and each["status"] == "False" for each in pod["status"]["conditions"])


async def until_log(cluster: StandIn, name: str, wanted: Callable[[bytes], bool]) -> None:
    """Wait until what a plain read of a pod's log gives is as wanted."""
    async with _client(cluster) as client, asyncio.timeout(PATIENCE_S):
        while (answer := await client.get(f"{PODS}/{name}/log")).status_code != 200 or not wanted(answer.content):
            await asyncio.sleep(0.05)


async def until_there(path: Path) -> None:
    """Wait for a file, which a container makes."""
    async with asyncio.timeout(PATIENCE_S):
        while not path.exists():
            await asyncio.sleep(0.05)


async def send(cluster: StandIn, method: str, path: str, item: dict[str, Any] | None = None) -> Any:
    """Do something as somebody else would; give the answer."""
    async with _client(cluster) as client:
        answer = (await client.request(method, path, json=item)).raise_for_status()
    return answer.json()


def _client(cluster: StandIn) -> httpx.AsyncClient:
    headers = {"Authorization": f"Bearer {cluster.token}"}
    return httpx.AsyncClient(base_url=cluster.url, headers=headers, timeout=30)
