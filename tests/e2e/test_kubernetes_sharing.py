"""Installations beside each other on one cluster, and the templates that want one. [stand-in]"""

import asyncio
import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.cli_session import Session
from e2e.embedded import plane
from e2e.kubernetes_site import IMAGE, PATIENCE_S, events_of, failure, runtime

from flexcore.model.failure import ErrorClass
from flexcore.model.workflow import StepKind
from flexcore.testing.factories import execution_request
from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.kubernetes.standin import StandIn
from flexcore.testing.object_store import KEYS, REGION, object_store
from flexcore.testing.runtime_kubernetes import Cluster

pytestmark = pytest.mark.skipif(bool(why_not_boxed()), reason=why_not_boxed())

_INSTALLS_S = 240.0  # what templates bring along, on a busy machine


@pytest.fixture(scope="module")
def cluster() -> Iterator[StandIn]:
    with StandIn(scale=0.05) as started:
        yield started


def session(folder: Path, cluster: StandIn, name: str = "cloud", **settings: Any) -> Session:
    """Make an installation with a runtime in the cluster."""
    folder.mkdir()
    config = {"type": "kubernetes", "kubeconfig": str(cluster.kubeconfig), "security": "none"}
    made = Session(folder)
    made.write("flexcore.yaml", yaml.safe_dump({"runtimes": {name: config}, **settings}))
    return made


def work(kind: str, parameters: Any) -> str:
    return json.dumps({"name": "work", "steps": [{"id": "a", "type": kind, "runtime": "cloud", "with": parameters}]})


async def until_begun(cluster: StandIn, pods: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while len(await cluster.began()) < pods:  # it happens in other processes
            await asyncio.sleep(0.05)


def there(cluster: StandIn, kind: str) -> list[str]:
    """Name what the cluster has of a kind that is FlexCore's."""
    official = Cluster(str(cluster.kubeconfig), None)
    listed = getattr(official.core if kind in ("pod", "secret") else official.batch, f"list_namespaced_{kind}")
    items = official.plain(listed("default"))["items"]
    return [each["metadata"]["name"] for each in items if "flexcore.io/name" in each["metadata"].get("labels", {})]


async def test_a_sweep_ends_orphans_and_neither_what_stays_nor_anothers_work(cluster: StandIn, tmp_path: Path) -> None:
    ours, theirs = session(tmp_path / "ours", cluster), session(tmp_path / "theirs", cluster)
    sleeps = work("container", {"image": IMAGE, "command": ["sleep", "60"], "env": {"A": "b"}})
    kept = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "kept"}, "spec": {"ports": [{"port": 80}]}}
    async with plane(ours.folder) as here:
        assert (await here.execute(work("kubernetes", {"apply": kept})))["status"] == "succeeded"
    older = shutil.copytree(ours.folder / ".flexcore", tmp_path / "older")  # knows nothing of what comes now
    async with plane(ours.folder) as here:
        await here.start(sleeps)
        await until_begun(cluster, 1)
    shutil.rmtree(ours.folder / ".flexcore")
    shutil.copytree(older, ours.folder / ".flexcore")

    async with plane(theirs.folder) as neighbour:
        await neighbour.start(sleeps)
        await until_begun(cluster, 2)
        jobs = there(cluster, "job")
        asked = ("runtime", "cleanup", "cloud", "--orphans", "--output", "json")
        swept = (await asyncio.to_thread(ours.start(*asked).ended, _INSTALLS_S)).document
        left = there(cluster, "job")
        again = await neighbour.installation.control_plane.sweep.sweep("cloud")

    assert (len(jobs), len(left)) == (2, 1)
    assert swept["retained"] == ["Service/kept"]
    assert [(each["name"] in left, each["gone"]) for each in swept["orphans"]] == [(False, True)]
    assert (again.orphans, again.in_flight, again.retained) == ([], 1, [])
    assert [name.startswith(left[0]) for name in there(cluster, "pod")] == [True]
    assert there(cluster, "secret") == left


async def test_what_belongs_to_no_namespace_is_refused_with_a_word(cluster: StandIn, tmp_path: Path) -> None:
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "more"}}
    request = execution_request({"apply": space}, kind=StepKind.KUBERNETES)

    error_class, message = failure(await events_of(runtime(cluster, tmp_path), request))

    assert error_class is ErrorClass.INPUT
    assert "Namespace/more belongs to no namespace" in message


def test_container_batch_counts_in_containers(cluster: StandIn, tmp_path: Path) -> None:
    here = session(tmp_path / "batch", cluster, "kubernetes")

    asked = ["container_batch", "-p", "until=1000", "-p", "parts=3", "-p", f"image={IMAGE}"]
    done = here.start("workflow", "execute", *asked, "--output", "json").ended(_INSTALLS_S)

    assert done.code == 0, done
    assert (done.document["output"]["primes"], done.document["output"]["largest"]) == (168, 997)
    assert {each["runtime"] for each in done.document["steps"] if each["type"] == "container"} == {"kubernetes"}


@pytest.mark.campaign  # trains a model, and installs what that takes
def test_hybrid_pipeline_publishes_from_the_cluster(cluster: StandIn, tmp_path: Path) -> None:
    key, secret = KEYS
    with object_store() as store:
        place = {"url": f"s3://{store.bucket}/hybrid", "endpoint": store.endpoint, "region": REGION}
        artifacts = {**place, "access_key": key, "secret_key": secret}
        here = session(tmp_path / "hybrid", cluster, "kubernetes", artifacts=artifacts)

        asked = ["hybrid_pipeline", "-p", "days=2", "-p", "top=3"]
        done = here.start("workflow", "execute", *asked, "--output", "json").ended(_INSTALLS_S)

    assert done.code == 0, done
    placed = {each["path"].rpartition(".")[2]: each["runtime"] for each in done.document["steps"]}
    assert (placed["extract"], placed["publish"]) == ("meltano", "kubernetes")
    assert len(done.document["output"]["routes"]) == 3
    assert done.document["output"]["forecast"]["format"] == "html"
