"""The control plane dies at every moment of an attempt on Kubernetes: a stand-in, or FLEXCORE_TEST_KUBECONFIG's."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from crash.crash_points import Crasher, Ground, cases
from crash.crashing_child import Moment

from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.runtime_kubernetes import Cluster, KubernetesHarness, Site, site
from flexcore.testing.runtime_processes import Subject

WHERE = "cluster" if "FLEXCORE_TEST_KUBECONFIG" in os.environ else "stand-in"


@pytest.fixture(scope="module")
def place() -> Iterator[Site]:
    if WHERE == "stand-in" and (reason := why_not_boxed()):
        pytest.skip(f"the stand-in cannot run pods: {reason}")
    with site(os.environ) as found:
        yield found


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


def ground(crashes: Crasher, place: Site, folder: Path, shared: Path) -> Ground:
    subject = Subject.of("kubernetes", folder / "world", shared, **place.config)
    cluster = Cluster(str(place.kubeconfig), None)

    async def listing() -> list[str]:
        """Name what the cluster has that is FlexCore's, whichever installation's."""
        lists = (
            cluster.batch.list_namespaced_job,
            cluster.core.list_namespaced_pod,
            cluster.core.list_namespaced_config_map,
            cluster.core.list_namespaced_secret,
        )
        return [
            f"{each.__name__} {item['metadata']['name']}"
            for each in lists
            for item in cluster.plain(each(place.namespace))["items"]
            if any(key.startswith("flexcore.io/") for key in item["metadata"].get("labels", {}))
        ]

    return Ground(
        harness=KubernetesHarness(subject), folder=folder / "plane", runtime="cloud", listing=listing, crasher=crashes,
        runtimes={"cloud": {"type": "kubernetes", **place.config}}, seconds=1.0,
    )  # fmt: skip


@pytest.mark.parametrize("where", [WHERE])
@pytest.mark.parametrize(("moment", "seed"), cases())
async def test_nothing_is_lost_doubled_or_orphaned(
    crashes: Crasher, place: Site, tmp_path: Path, shared: Path, moment: Moment, seed: int, where: str
) -> None:
    await ground(crashes, place, tmp_path, shared).crash_and_judge(moment, seed)
