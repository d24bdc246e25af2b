"""The harness of the conformance kit for Kubernetes: bash steps in pods that share no folder with anybody.

What work does is told to a board, a pod with a small HTTP server: work reaches it by its address, and the harness
through the API server's proxy. So the same checks run on the stand-in cluster and on a real one, whose image needs
bash and Python 3.11.
"""

import asyncio
import base64
import gzip
import json
import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from flexcore.model.execution import Handle
from flexcore.model.values import JSON
from flexcore.runtime.interface import Runtime
from flexcore.testing.kubernetes.standin import StandIn
from flexcore.testing.runtime_harness import Behaviour, fresh_name
from flexcore.testing.runtime_processes import BashHarness, Subject

_PORT = 8083
_PATIENCE_S = 120.0
_LONGEST_S = 3600
_LOOK_AGAIN_S = 0.05
_NOWHERE = "http://127.0.0.1:9"
_BOARD = """
import http.server, json, os
notes, gates = {}, set()
class Board(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        verb, *words = self.path.strip("/").split("/")
        if verb == "note":
            notes.setdefault(words[0], []).append(words[1])
        if verb == "open":
            gates.add(words[0])
        found = notes.get(words[0], []) if verb == "read" else []
        self.send_response(404 if verb == "gate" and words[0] not in gates else 200)
        self.end_headers()
        self.wfile.write(json.dumps(found).encode())
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((os.environ["ADDRESS"], PORT), Board).serve_forever()
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A namespace of a cluster, made for tests. `standin` is there when the cluster is one."""

    kubeconfig: Path
    namespace: str
    image: str
    standin: StandIn | None = None

    @property
    def name(self) -> str:
        """Say in names of tests where they ran."""
        return "cluster" if self.standin is None else "stand-in"

    @property
    def config(self) -> Mapping[str, Any]:
        """What an instance of the runtime is configured with to work here."""
        return {"kubeconfig": str(self.kubeconfig), "namespace": self.namespace, "image": self.image}


@contextmanager
def site(environ: Mapping[str, str], *, scale: float = 0.05, **shape: Any) -> Iterator[Site]:
    """Make a namespace in the cluster that FLEXCORE_TEST_KUBECONFIG names, with FLEXCORE_TEST_IMAGE, or in a stand-in.

    The namespace goes with all its content in the end, and so does the stand-in.
    """
    if kubeconfig := environ.get("FLEXCORE_TEST_KUBECONFIG"):
        with _namespace(Path(kubeconfig)) as namespace:
            image = environ.get("FLEXCORE_TEST_IMAGE", "python:3.12")
            yield Site(kubeconfig=Path(kubeconfig), namespace=namespace, image=image)
        return
    with StandIn(scale=scale, **shape) as standin, _namespace(standin.kubeconfig) as namespace:
        image = "k8s.local/python:1"
        yield Site(kubeconfig=standin.kubeconfig, namespace=namespace, image=image, standin=standin)


@contextmanager
def _namespace(kubeconfig: Path) -> Iterator[str]:
    cluster = Cluster(str(kubeconfig), None)
    name = fresh_name("flexcore-test-")
    cluster.core.create_namespace({"metadata": {"name": name}})
    account = lambda: cluster.core.read_namespaced_service_account("default", name)  # noqa: E731  one question
    _until(lambda: _is_there(account), f"the service account of namespace {name}")
    try:
        yield name
    finally:
        cluster.core.delete_namespace(name)


class Cluster:
    """A cluster as the harness looks at it, through the official client."""

    def __init__(self, kubeconfig: str | None, context: str | None) -> None:
        from kubernetes import client, config  # a second of imports, which only this harness needs

        self._api: Any = config.new_client_from_config(kubeconfig, context)  # type: ignore[no-untyped-call]  # theirs
        self.core: Any = client.CoreV1Api(self._api)
        self.batch: Any = client.BatchV1Api(self._api)

    def plain(self, found: Any) -> Any:
        """Give an answer of the client as JSON values."""
        return self._api.sanitize_for_serialization(found)

    def pod(self, namespace: str, name: str) -> Any | None:
        """Read a pod if it is there."""
        with _absent_is_fine():
            return self.plain(self.core.read_namespaced_pod(name, namespace))
        return None


@dataclass(frozen=True)
class Board:
    """The pod that work leaves notes with. It is a Job that the cluster ends and removes by itself after an hour."""

    cluster: Cluster
    namespace: str
    pod: str
    address: str

    @classmethod
    def of(cls, subject: Subject, cluster: Cluster) -> "Board":
        """Find the board that all checks of a run share, or put one up."""
        record = subject.shared / "board.json"
        namespace: str = subject.config.namespace  # type: ignore[attr-defined]  # of a runtime of kind kubernetes
        if not record.exists():
            image: str = subject.config.image  # type: ignore[attr-defined]  # the same
            subject.shared.mkdir(parents=True, exist_ok=True)
            pod = _put_up(cluster, namespace, image)
            record.write_text(json.dumps({"pod": pod["metadata"]["name"], "address": pod["status"]["podIP"]}))
        return cls(cluster=cluster, namespace=namespace, **json.loads(record.read_text()))

    def ask(self, path: str) -> Any:
        """Ask the board through the API server."""
        answer = self.cluster.core.connect_get_namespaced_pod_proxy_with_path(
            f"{self.pod}:{_PORT}", self.namespace, path, _preload_content=False
        )
        return json.loads(answer.data)


def _put_up(cluster: Cluster, namespace: str, image: str) -> Any:
    name = fresh_name("board-")
    security = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    address = {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}
    container = {
        "name": "board",
        "image": image,
        "env": [address],
        "securityContext": security,
        "command": ["python3", "-c", _BOARD.replace("PORT", str(_PORT)).replace("$", "$$")],
    }
    pod = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": 0,
        "containers": [container],
        "securityContext": {"runAsNonRoot": True, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
    }
    limits = {"backoffLimit": 0, "activeDeadlineSeconds": _LONGEST_S, "ttlSecondsAfterFinished": 60}
    job = {"metadata": {"name": name}, "spec": {**limits, "template": {"spec": pod}}}
    cluster.batch.create_namespaced_job(namespace, job)

    def running() -> Any:
        listed = cluster.core.list_namespaced_pod(namespace, label_selector=f"batch.kubernetes.io/job-name={name}")
        return next((each for each in cluster.plain(listed)["items"] if each["status"].get("phase") == "Running"), None)

    found = _until(running, "the pod of the board")
    board = Board(cluster, namespace, found["metadata"]["name"], found["status"]["podIP"])
    _until(lambda: _answers(board), "the board's answer")
    return found


class KubernetesHarness(BashHarness):
    """A cluster and a namespace, as the subject is configured with. All checks of a run share a board."""

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.installation = fresh_name("conformance-")  # the namespace is the same for all checks, and surveys see it
        config: Any = subject.config
        self._cluster = Cluster(config.kubeconfig, config.context)
        self._namespace: str = config.namespace
        self._carried: list[str] = []

    @cached_property
    def _board(self) -> Board:
        return Board.of(self.subject, self._cluster)

    async def unreachable(self) -> Runtime:
        """Make an instance for an address at which nobody is."""
        import yaml  # here, because nothing else of the kit needs it

        named = {"name": "nowhere"}
        nowhere = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "nowhere",
            "clusters": [{**named, "cluster": {"server": _NOWHERE}}],
            "users": [{**named, "user": {"token": "none"}}],
            "contexts": [{**named, "context": {"cluster": "nowhere", "user": "nowhere"}}],
        }
        path = self.subject.folder / "nowhere.yaml"
        path.write_text(yaml.safe_dump(nowhere))
        config = self.subject.config.model_copy(update={"kubeconfig": str(path), "context": None, "in_cluster": False})
        return self.subject.plugin.create("examined", config, self._context(self.installation))

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        """Name the file that the script reads, so that it is brought along."""
        files: list[JSON] = [behaviour.tells_file] if behaviour.tells_file else []
        return {**super().parameters(behaviour), "files": files}

    def script(self, behaviour: Behaviour) -> str:
        """Write what the work shall do in bash, with all bytes that it needs inside."""
        self._carried = []
        mark = behaviour.mark or "unmarked"
        lines = [*self._writing(behaviour.stdout, behaviour.stdout_times)]
        if behaviour.stderr:
            lines.append(f"cat {self._input(behaviour.stderr)} >&2")
        on_term = ":" if behaviour.ignores_term else f"board note/{mark}.told/$HOSTNAME; exit 143"
        lines.append(f"trap {shlex.quote(on_term)} TERM")
        if behaviour.child:
            lines.append("setsid sleep 300 &")
        lines.append(f"until board note/{mark}.begun/$HOSTNAME; do sleep 0.2; done")
        if behaviour.memory_bytes:
            lines.append(f"{{ head -c {behaviour.memory_bytes} /dev/zero; sleep 2; }} | tail -n 1 > /dev/null")
        if behaviour.gate:
            lines.append(f"until board gate/{behaviour.gate}; do sleep 0.1; done")
        lines.extend(self._writing(behaviour.stdout_after, 1))
        if behaviour.signal_name:
            lines.append(f"kill -s {behaviour.signal_name.removeprefix('SIG')} $$")
        lines.extend(self._telling(behaviour))
        lines.append(f"exit {behaviour.exit_code}")
        return "\n".join([*self._beginning(), *self._carried, *lines])

    async def open(self, gate: str) -> None:
        """Tell the board."""
        await asyncio.to_thread(self._board.ask, f"open/{gate}")

    async def begun(self, mark: str) -> int:
        """Count the notes."""
        return len(await self._noted(f"{mark}.begun"))

    async def told_to_end(self, mark: str) -> bool:
        """Look for the note that the script's trap has left."""
        return bool(await self._noted(f"{mark}.told"))

    async def alive(self, mark: str) -> bool:
        """Look at the pods that left the mark: with a container, all that it began is gone."""
        pods = [await self._pod(name) for name in await self._noted(f"{mark}.begun")]
        return any(_is_running(each) for each in pods if each is not None)

    async def lose(self, mark: str, handle: Handle) -> None:
        """Remove the pods at once, and the Jobs above them."""
        for name in await self._noted(f"{mark}.begun"):
            pod = await self._pod(name)
            if pod is not None:
                await asyncio.to_thread(self._remove, pod)

    async def shown(self, text: str) -> list[str]:
        """Look at all command lines of this machine, and at all objects of the namespace but Secrets."""
        listed = await asyncio.to_thread(self._listed)
        return [*await super().shown(text), *(name for name, content in listed.items() if text in content)]

    async def kept(self, text: str) -> list[str]:
        """Look into all files of the runtime and of the workflow, and at all objects of the namespace."""
        listed = await asyncio.to_thread(self._listed)
        secrets = await asyncio.to_thread(self._secrets)
        found = {**listed, **secrets}
        return [*await super().kept(text), *(name for name, content in found.items() if text in content)]

    async def _noted(self, about: str) -> list[str]:
        found: list[str] = await asyncio.to_thread(self._board.ask, f"read/{about}")
        return found

    async def _pod(self, name: str) -> Any | None:
        return await asyncio.to_thread(self._cluster.pod, self._namespace, name)

    def _remove(self, pod: Any) -> None:
        core, batch = self._cluster.core, self._cluster.batch
        for owner in pod["metadata"].get("ownerReferences", []):
            with _absent_is_fine():
                batch.delete_namespaced_job(owner["name"], self._namespace, propagation_policy="Background")
        with _absent_is_fine():
            core.delete_namespaced_pod(pod["metadata"]["name"], self._namespace, grace_period_seconds=0)

    def _listed(self) -> Mapping[str, str]:
        core, batch = self._cluster.core, self._cluster.batch
        lists = (core.list_namespaced_pod, core.list_namespaced_config_map, core.list_namespaced_event)
        found: dict[str, str] = {}
        for listing in (*lists, batch.list_namespaced_job):
            for item in self._cluster.plain(listing(self._namespace))["items"]:
                found[f"{listing.__name__} {item['metadata']['name']}"] = json.dumps(item)
        return found

    def _secrets(self) -> Mapping[str, str]:
        listed = self._cluster.plain(self._cluster.core.list_namespaced_secret(self._namespace))["items"]
        return {
            f"secret {each['metadata']['name']}": "\n".join(
                base64.b64decode(value).decode(errors="replace") for value in (each.get("data") or {}).values()
            )
            for each in listed
        }

    def _beginning(self) -> list[str]:
        ask = f"exec 9<> /dev/tcp/{self._board.address}/{_PORT} && printf 'GET /%s HTTP/1.0\\r\\n\\r\\n' \"$1\" >&9"
        return [
            "board() {",
            "  local code=",
            f"  {{ {ask} && read -r _ code _ <&9; exec 9>&-; }} 2> /dev/null",
            '  [ "$code" = 200 ]',
            "}",
            "given=$(mktemp -d)",
        ]

    def _input(self, data: bytes) -> Path:
        """Carry bytes in the script; it unpacks them before it begins."""
        packed = base64.b64encode(gzip.compress(data, mtime=0)).decode()
        path = f"$given/{len(self._carried)}"
        self._carried.append(f"base64 -d <<< '{packed}' | gunzip > {path}")
        return Path(path)


def _is_running(pod: Any) -> bool:
    statuses = pod["status"].get("containerStatuses") or []
    return any("running" in (each.get("state") or {}) for each in statuses)


def _answers(board: Board) -> bool:
    try:
        board.ask("read/nothing")
    except Exception as error:
        return _fails_for_good(error)
    return True


def _fails_for_good(error: Exception) -> bool:
    if getattr(error, "status", 503) in (401, 403):
        raise error
    return False


def _is_there(read: Callable[[], object]) -> bool:
    with _absent_is_fine():
        read()
        return True
    return False


@contextmanager
def _absent_is_fine() -> Iterator[None]:
    from kubernetes.client import ApiException  # a second of imports, which only this harness needs

    try:
        yield
    except ApiException as error:
        if error.status != 404:
            raise


def _until(look: Callable[[], Any], what: str) -> Any:
    end = time.monotonic() + _PATIENCE_S
    while not (found := look()):
        if time.monotonic() > end:
            raise TimeoutError(f"{what} was not there within {_PATIENCE_S:g} s")
        time.sleep(_LOOK_AGAIN_S)
    return found
