"""What the API server passes on to nodes: logs, the proxy into pods, eviction."""

from collections.abc import AsyncGenerator, Mapping

import httpx
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse

from flexcore.testing.kubernetes.containers import Container
from flexcore.testing.kubernetes.deletion import delete
from flexcore.testing.kubernetes.logs import ContainerLog, Wanted, since
from flexcore.testing.kubernetes.node import Nodes, disrupt
from flexcore.testing.kubernetes.pod_status import Slot
from flexcore.testing.kubernetes.refusal import Refusal, bad_request
from flexcore.testing.kubernetes.resources import PODS, Item, uid
from flexcore.testing.kubernetes.store import Store

_PULLING = ("ErrImagePull", "ImagePullBackOff")


class PodApi:
    """The subresources of pods."""

    def __init__(self, store: Store, nodes: Nodes) -> None:
        self._store = store
        self._nodes = nodes
        self._client = httpx.AsyncClient(timeout=30, trust_env=False)

    async def answer(self, request: Request, namespace: str, name: str, subresource: str, rest: str) -> Response:
        """Answer a request for one of them."""
        match subresource:
            case "log":
                pod = self._store.get(PODS, namespace, name)
                return self._log(pod, request.query_params)
            case "eviction":
                return self._evict(self._store.get(PODS, namespace, name))
            case _:
                pod_name, _, port = name.partition(":")
                return await self._proxy(request, self._store.get(PODS, namespace, pod_name), port or "80", rest)

    def _evict(self, pod: Item) -> Response:
        self._store.edit(pod, PODS, lambda each: disrupt(each, "EvictionByEvictionAPI", "Eviction API: evicting"))
        delete(self._store, PODS, self._store.get(PODS, pod["metadata"]["namespace"], pod["metadata"]["name"]), {})
        return JSONResponse(
            {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}, 201
        )

    async def _proxy(self, request: Request, pod: Item, port: str, rest: str) -> Response:
        url = f"http://{pod['status'].get('podIP')}:{port}/{rest}"
        headers = {"content-type": request.headers.get("content-type", "application/octet-stream")}
        try:
            answer = await self._client.request(
                request.method, url, content=await request.body(), params=request.query_params, headers=headers
            )
        except httpx.HTTPError as error:
            raise Refusal(503, "ServiceUnavailable", f"error trying to reach service: {error}") from error
        return Response(answer.content, answer.status_code, {"content-type": answer.headers.get("content-type", "")})

    def _log(self, pod: Item, params: Mapping[str, str]) -> Response:
        slot = self._slot(pod, params.get("container", ""))
        node = pod["spec"].get("nodeName", "")
        if slot is None or not node:
            return Response(status_code=204)
        if not self._nodes.up[node].is_set():
            url = f"https://{node}:10250/containerLogs/{pod['metadata']['namespace']}/{pod['metadata']['name']}/{slot.name}"
            message = f'Get "{url}": dial tcp {node}:10250: connect: connection refused'
            raise Refusal(500, "InternalError", message)
        run = self._run(pod, slot, is_previous=params.get("previous") in ("true", "1"))
        if run is None:
            return PlainTextResponse("")
        return StreamingResponse(_bytes(run.log, _wanted(params)), media_type="text/plain")

    def _slot(self, pod: Item, container: str) -> Slot | None:
        run = self._nodes.runs.get(uid(pod))
        name = pod["metadata"]["name"]
        containers = [each["name"] for each in pod["spec"]["containers"]]
        inits = [each["name"] for each in pod["spec"].get("initContainers") or []]
        if not container and len(containers) > 1:
            listed = f"choose one of: [{' '.join(containers)}]"
            raise bad_request(f"a container name must be specified for pod {name}, {listed}")
        wanted = container or containers[0]
        if wanted not in (*containers, *inits):
            raise bad_request(f"container {wanted} is not valid for pod {name}")
        if run is None:
            return None
        return next(each for each in run.state.slots if each.name == wanted)

    def _run(self, pod: Item, slot: Slot, *, is_previous: bool) -> Container | None:
        name = pod["metadata"]["name"]
        if is_previous:
            if len(slot.logged) < 2:
                raise bad_request(f'previous terminated container "{slot.name}" in pod "{name}" not found')
            return slot.logged[-2]
        waiting = slot.state.get("waiting")
        if waiting is None or slot.restarts:
            return slot.logged[-1] if slot.logged else None
        reason = waiting["reason"]
        why = "trying and failing to pull image" if reason in _PULLING else reason
        raise bad_request(f'container "{slot.name}" in pod "{name}" is waiting to start: {why}')


def _wanted(params: Mapping[str, str]) -> Wanted:
    tail, limit = params.get("tailLines"), params.get("limitBytes")
    return Wanted(
        follow=params.get("follow") in ("true", "1"),
        timestamps=params.get("timestamps") in ("true", "1"),
        since_ns=since(params["sinceTime"]) if params.get("sinceTime") else 0,
        tail=None if tail is None else int(tail),
        limit=None if limit is None else int(limit),
    )


async def _bytes(log: ContainerLog, wanted: Wanted) -> AsyncGenerator[bytes, None]:
    async for data in log.read(wanted):
        if data:
            yield data
