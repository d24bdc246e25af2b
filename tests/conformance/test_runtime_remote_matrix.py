"""The whole kit through the wire for the dear runtimes: `pytest -m campaign` of this file."""

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_harness import Harness
from flexcore.testing.runtime_processes import MeltanoHarness, Subject
from flexcore.testing.runtime_remote import through_the_wire
from flexcore.testing.runtime_suite import CHECKS, Check

pytestmark = [pytest.mark.campaign, pytest.mark.timeout(600)]
PATIENT = Patience(for_work=60)


def plugin(kind: str) -> RuntimePlugin:
    """Load a plug-in as the registry does."""
    (entry,) = entry_points(group="flexcore.runtimes", name=kind)
    loaded: RuntimePlugin = entry.load()
    return loaded


def subject(kind: str, folder: Path, shared: Path, config: Any) -> Subject:
    loaded = plugin(kind)
    return Subject(plugin=loaded, config=loaded.config.model_validate(config), folder=folder, shared=shared)


async def examine(check: Check, inner: Harness, folder: Path) -> None:
    if check.name in inner.exempt:
        pytest.skip(inner.exempt[check.name])
    async with through_the_wire(inner, plugin("remote"), folder) as harness:
        await check.examine(harness, PATIENT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_remote_meltano(check: Check, shared: Path, tmp_path: Path) -> None:
    inner = MeltanoHarness(subject("meltano", tmp_path / "inner", shared, {}))

    await examine(check, inner, tmp_path / "outer")


@pytest.fixture(scope="module")
def ray(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    from flexcore.testing.runtime_ray import end_cluster  # may not be there without Ray

    folder = tmp_path_factory.mktemp("ray")
    try:
        yield folder
    finally:
        end_cluster(folder)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_remote_ray(check: Check, ray: Path, tmp_path: Path) -> None:
    from flexcore.testing.runtime_ray import RayHarness

    config = {"cluster": "local", "boxed": True, "cpus": 8, "idle_timeout": 120}
    await examine(check, RayHarness(subject("ray", tmp_path / "inner", ray, config)), tmp_path / "outer")


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Any]:
    from flexcore.testing.kubernetes.containers import why_not_boxed
    from flexcore.testing.runtime_kubernetes import site

    if "FLEXCORE_TEST_KUBECONFIG" not in os.environ and (reason := why_not_boxed()):
        pytest.skip(f"the stand-in cannot run pods: {reason}")
    with site(os.environ) as place:
        yield place.config


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_remote_kubernetes(check: Check, kubernetes: Any, shared: Path, tmp_path: Path) -> None:
    from flexcore.testing.runtime_kubernetes import KubernetesHarness

    inner = KubernetesHarness(subject("kubernetes", tmp_path / "inner", shared, kubernetes))
    await examine(check, inner, tmp_path / "outer")
