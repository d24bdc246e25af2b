"""The process that is the cluster: state, controllers and nodes, served on a socket of this machine.

Clients do not come here: they come to the API server's front, a process of its own (`front`), which may be killed
while everything here goes on. The paths below `/standin` are for tests: they make things go wrong.
"""

import argparse
import asyncio
import json
import os
import signal
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from flexcore.testing.kubernetes.admission import Account
from flexcore.testing.kubernetes.api import Api, Fault
from flexcore.testing.kubernetes.deletion import Collector
from flexcore.testing.kubernetes.events import Events
from flexcore.testing.kubernetes.jobs import Jobs
from flexcore.testing.kubernetes.lasting import Lasting
from flexcore.testing.kubernetes.lists import Lists
from flexcore.testing.kubernetes.node import Capacity, Nodes
from flexcore.testing.kubernetes.pace import Pace
from flexcore.testing.kubernetes.pod_api import PodApi
from flexcore.testing.kubernetes.resources import NAMESPACES, PODS, SERVICE_ACCOUNTS, uid
from flexcore.testing.kubernetes.store import Store

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How a cluster is made. Delays of its own are multiplied by `scale`; a watch without an end lasts `watch_s`."""

    folder: str
    socket: str
    token: str
    scale: float = 1.0
    watch_s: float = 1800.0
    cpu: float = 8.0
    memory_bytes: float = 16 * 2.0**30
    rotate_bytes: int = 10 * 2**20


class Cluster:
    """All parts together."""

    def __init__(self, shape: Shape) -> None:
        store = Store()
        events, pace = Events(store), Pace(shape.scale)
        self.store = store
        self.nodes = Nodes(
            store=store,
            events=events,
            pace=pace,
            folder=Path(shape.folder),
            capacity=Capacity(cpu=shape.cpu, memory_bytes=shape.memory_bytes),
            rotate_bytes=shape.rotate_bytes,
        )
        self.lists = Lists(store, shape.watch_s, shape.scale)
        accounts = {shape.token: Account("kubernetes-admin")}
        self.api = Api(store, self.lists, PodApi(store, self.nodes), accounts)
        self._parts = (self.nodes, Jobs(store, events, pace), Lasting(store, events, pace), Collector(store, pace))
        self._losing: set[asyncio.Task[None]] = set()
        for name in ("default", "kube-system"):
            store.add(NAMESPACES, {"metadata": {"name": name}, "status": {"phase": "Active"}})
            store.add(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
        self.nodes.add_node()

    @asynccontextmanager
    async def running(self, _: Starlette) -> AsyncGenerator[None, None]:
        """Run controllers and nodes, and end all containers afterwards."""
        asyncio.get_running_loop().add_reader(0, end_when_orphaned)
        tasks = [asyncio.create_task(each.run()) for each in self._parts]
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.nodes.stop()

    def app(self) -> Starlette:
        """Give what is served."""
        routes = [
            Route("/standin/restarted", self._restarted, methods=["POST"]),
            Route("/standin/watches/close", self._close_watches, methods=["POST"]),
            Route("/standin/accounts/{token}", self._account, methods=["PUT"]),
            Route("/standin/faults", self._fault, methods=["POST"]),
            Route("/standin/nodes/{name}/{change}", self._node, methods=["POST"]),
            Route("/standin/pods/{namespace}/{name}/{change}", self._pod, methods=["POST"]),
            Route("/standin/began", self._began, methods=["GET"]),
            Route("/{path:path}", self.api.answer, methods=_METHODS),
        ]
        return Starlette(routes=routes, lifespan=self.running)

    async def _restarted(self, request: Request) -> Response:
        self.store.forget_history()
        self.lists.forget_pages()
        return JSONResponse({})

    async def _close_watches(self, request: Request) -> Response:
        self.lists.close_watches()
        return JSONResponse({})

    async def _account(self, request: Request) -> Response:
        body = await request.json()
        self.api.accounts[request.path_params["token"]] = Account(body["user"], frozenset(body["denied"]))
        return JSONResponse({})

    async def _fault(self, request: Request) -> Response:
        self.api.faults.append(Fault(**await request.json()))
        return JSONResponse({})

    async def _node(self, request: Request) -> Response:
        name = request.path_params["name"]
        match request.path_params["change"]:
            case "lose" | "give-up" as change:
                task = asyncio.create_task(self.nodes.lose(name, evicts=change == "give-up"))
                self._losing.add(task)
                task.add_done_callback(self._losing.discard)
            case "find":
                self.nodes.find_back(name)
            case _:
                self.nodes.add_node(name)
        return JSONResponse({})

    async def _pod(self, request: Request) -> Response:
        namespace, name = request.path_params["namespace"], request.path_params["name"]
        pod = self.store.get(PODS, namespace, name)
        match request.path_params["change"]:
            case "evict":  # for lack of something on the node: the pod stays, with its logs
                body = await request.json()
                self.nodes.runs[uid(pod)].evict(body["message"])
            case _:  # it vanishes, with all that is written of it
                self.store.change(PODS, namespace, name, lambda each: each["metadata"].pop("finalizers", None))
                self.store.remove(PODS, namespace, name)
        return JSONResponse({})

    async def _began(self, request: Request) -> Response:
        return JSONResponse([each["metadata"] for each in self.nodes.began])


def end_when_orphaned() -> None:
    """End when nobody holds the other end of standard input any more: who started this is gone."""
    if not os.read(0, 1):
        asyncio.get_running_loop().remove_reader(0)
        os.kill(os.getpid(), signal.SIGTERM)


def main() -> None:
    """Serve a cluster until told to end; the argument is its shape as JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shape", type=lambda text: Shape(**json.loads(text)))
    shape: Shape = parser.parse_args().shape
    app = Cluster(shape).app()
    config = uvicorn.Config(app, uds=shape.socket, log_level="error", lifespan="on", timeout_graceful_shutdown=1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who started it says when it ends
    uvicorn.Server(config).run()


def arguments(shape: Shape) -> list[str]:
    """Say how to start the process."""
    return ["-m", "flexcore.testing.kubernetes.cluster", json.dumps(asdict(shape))]


if __name__ == "__main__":
    main()
