"""Each runtime used by hand, as somebody without FlexCore would: what submitting to it costs at the least."""

import asyncio
import json
import shlex
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Span(NamedTuple):
    """Seconds from asking to the first instruction, and from the last one to knowing."""

    start: float
    end: float


class Floor(Protocol):
    """A runtime, in the settings and by hand. `most` bounds how often one is measured that takes seconds."""

    name: str
    title: str
    kind: str
    most: int

    def opened(self, folder: Path) -> Any:
        """Have it ready as long as the context is open; gives the section `runtimes` of the settings."""
        ...

    def parameters(self, script: str) -> Mapping[str, Any]:
        """Say in the `with` of the kind that this script shall run."""
        ...

    def files(self, folder: Path) -> Iterator[Path]:
        """Name what belongs to the workflow."""
        ...

    async def measured(self, script: str) -> Span:
        """Run the script by hand."""
        ...


async def by_command(*argv: str, cwd: Path | None = None) -> Span:
    """Run a command whose last line of output says when its work began and ended."""
    asked = time.time()
    process = await asyncio.create_subprocess_exec(*argv, cwd=cwd, stdout=-1, stderr=-3)
    out, _ = await process.communicate()
    known = time.time()
    told = json.loads(out.decode().strip().splitlines()[-1])
    return Span(told["begun"] - asked, known - told["ended"])


class Local:
    """A process of this machine; by hand, `bash -c`."""

    name, title, kind, most = "local", "local (bash)", "bash", 1000

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
        """Nothing to be prepared."""
        yield {"local": {"type": "local"}}

    def parameters(self, script: str) -> Mapping[str, Any]:
        """The script as it is."""
        return {"script": script}

    def files(self, folder: Path) -> Iterator[Path]:
        """None."""
        return iter(())

    async def measured(self, script: str) -> Span:
        """Run bash."""
        return await by_command("bash", "-c", script)


class Meltano(Local):
    """A utility of a Meltano project, which is bash; by hand, `meltano invoke`."""

    name, title, kind, most = "meltano", "Meltano (a utility)", "meltano", 7

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
        """Make the project."""
        self.project = folder / "project"
        self.project.mkdir()
        worker = "{name: worker, namespace: worker, executable: bash}"
        text = f"project_id: b\nsend_anonymous_usage_stats: false\nplugins: {{utilities: [{worker}]}}\n"
        (self.project / "meltano.yml").write_text(text)
        yield {"meltano": {"type": "meltano"}}

    def parameters(self, script: str) -> Mapping[str, Any]:
        """An invocation with the script as an argument."""
        return {"project": "./project", "args": ["invoke", "worker", "-c", script]}

    def files(self, folder: Path) -> Iterator[Path]:
        """The project's own."""
        yield self.project / "meltano.yml"

    async def measured(self, script: str) -> Span:
        """Run the command."""
        meltano = str(Path(sys.executable).with_name("meltano"))
        return await by_command(meltano, "invoke", "worker", "-c", script, cwd=self.project)


class Ray(Local):
    """A job of a cluster on this machine, boxed where that can be; by hand, the Jobs API over HTTP."""

    name, title, most = "ray", "Ray (a local cluster)", 15

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
        """Start the cluster, and end it with all that it has."""
        # Here, because the other floors need neither Ray nor what speaks to it.
        import httpx
        from flexcore_ray.clusters import LocalCluster
        from flexcore_ray.config import RayConfig

        from flexcore.testing.runtime_ray import end_cluster_of, no_box

        config = {"cluster": "local", "boxed": not no_box(), "idle_timeout": 300}
        state = folder / ".flexcore" / "runtimes" / self.name
        cluster = LocalCluster(RayConfig.model_validate(config), state)
        try:
            dashboard = await cluster.dashboard(start=True)
            assert dashboard is not None
            address = dashboard.address
            async with httpx.AsyncClient(
                base_url=address.url,
                headers={"Authorization": f"Bearer {address.token}"},
                transport=httpx.AsyncHTTPTransport(uds=address.socket),
                timeout=30,
            ) as self.http:
                yield {self.name: {"type": "ray", **config}}
        finally:
            await cluster.close()
            end_cluster_of(state)

    async def measured(self, script: str) -> Span:
        """Submit, ask until it is over, and read the log."""
        asked = time.time()
        submitted = await self.http.post("/api/jobs/", json={"entrypoint": f"bash -c {shlex.quote(script)}"})
        name = submitted.raise_for_status().json()["submission_id"]
        status = "PENDING"
        while status in ("PENDING", "RUNNING"):
            await asyncio.sleep(0.05)
            status = (await self.http.get(f"/api/jobs/{name}")).json()["status"]
        log = (await self.http.get(f"/api/jobs/{name}/logs")).json()["logs"]
        known = time.time()
        told = json.loads(log.strip().splitlines()[-1])
        return Span(told["begun"] - asked, known - told["ended"])


class Kubernetes(Local):
    """A container of the stand-in cluster, at a real one's pace; by hand, the official client: create, watch, log."""

    name, title, kind, most = "kubernetes", "Kubernetes (the stand-in)", "container", 15
    image = "k8s.local/bash:1"

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
        """Start the cluster."""
        from flexcore.testing.kubernetes.standin import StandIn  # here, because the other floors need no cluster
        from flexcore.testing.runtime_kubernetes import Cluster

        async with StandIn(scale=1.0) as cluster:
            self.cluster = Cluster(str(cluster.kubeconfig), None)
            yield {self.name: {"type": "kubernetes", "kubeconfig": str(cluster.kubeconfig)}}

    def parameters(self, script: str) -> Mapping[str, Any]:
        """A shell whose output is the result."""
        return {"image": self.image, "command": ["bash", "-c", f'{{ {script}; }} > "$FLEXCORE_RESULT"']}

    async def measured(self, script: str) -> Span:
        """Create the Job, watch it, and read the log of its pod."""
        return await asyncio.to_thread(self._measured, script)

    def _measured(self, script: str) -> Span:
        from kubernetes import watch  # here, because the other floors need no cluster

        container = {"name": "main", "image": self.image, "command": ["bash", "-c", script.replace("$", "$$")]}
        template = {"spec": {"restartPolicy": "Never", "containers": [container]}}
        manifest = {"metadata": {"generateName": "by-hand-"}, "spec": {"backoffLimit": 0, "template": template}}
        asked = time.time()
        job = self.cluster.batch.create_namespaced_job("default", manifest)
        only = {"namespace": "default", "field_selector": f"metadata.name={job.metadata.name}"}
        for event in watch.Watch().stream(self.cluster.batch.list_namespaced_job, **only, timeout_seconds=60):
            if event["object"].status.succeeded:
                break
        owned = f"batch.kubernetes.io/controller-uid={job.metadata.uid}"
        (pod,) = self.cluster.core.list_namespaced_pod("default", label_selector=owned).items
        log = self.cluster.core.read_namespaced_pod_log(pod.metadata.name, "default", _preload_content=False).data
        known = time.time()
        self.cluster.batch.delete_namespaced_job(job.metadata.name, "default", propagation_policy="Background")
        told = json.loads(log)
        return Span(told["begun"] - asked, known - told["ended"])


class Remote(Local):
    """The local runtime of a server on this machine; by hand, one unary gRPC call to a server that runs bash."""

    name, title, kind, most = "remote", "remote (bash, over loopback)", "bash", 1000

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
        """Start both servers."""
        import grpc.aio

        there = folder / "there"
        there.mkdir()
        (there / "token").write_text("a-token-for-this-measurement")
        (there / "token").chmod(0o600)
        flexcore = str(Path(sys.executable).with_name("flexcore"))
        serve = [flexcore, "runtime", "serve", "local", "--listen", "127.0.0.1:0", "--token-file", "token"]
        by_hand = [sys.executable, str(Path(__file__).with_name("raw_server.py"))]
        async with (
            _listening(serve, there) as ours,
            _listening(by_hand, there) as raw,
            grpc.aio.insecure_channel(raw) as self.channel,
        ):
            yield {self.name: {"type": "remote", "address": ours, "token_file": str(there / "token")}}

    async def measured(self, script: str) -> Span:
        """Call it."""
        asked = time.time()
        answer = await self.channel.unary_unary("/Raw/Run")(script.encode())
        known = time.time()
        told = json.loads(answer)
        return Span(told["begun"] - asked, known - told["ended"])


@asynccontextmanager
async def _listening(argv: list[str], cwd: Path) -> AsyncIterator[str]:
    """Run a server that says `on HOST:PORT,`."""
    process = await asyncio.create_subprocess_exec(*argv, cwd=cwd, stdout=-1, stderr=-2)
    assert process.stdout is not None
    try:
        yield (await process.stdout.readline()).decode().split(" on ")[-1].removeprefix("on ").split(",")[0].strip()
    finally:
        process.terminate()
        await process.wait()


FLOORS: Mapping[str, Callable[[], Floor]] = {
    "local": Local,
    "meltano": Meltano,
    "ray": Ray,
    "kubernetes": Kubernetes,
    "remote": Remote,
}
