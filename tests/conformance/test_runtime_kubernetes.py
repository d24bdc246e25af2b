"""Kubernetes passes the conformance kit: on a stand-in cluster, or on the one that FLEXCORE_TEST_KUBECONFIG names."""

import asyncio
import os
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

import pytest

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_kubernetes import KubernetesHarness, site
from flexcore.testing.runtime_processes import Subject
from flexcore.testing.runtime_suite import CHECKS, Check, Finding, Verdict, find

AT_ONCE = 4
DEAR = {"hundred_megabytes_of_log"}  # six million lines, each with a time of its own on the way
WHERE = "cluster" if "FLEXCORE_TEST_KUBECONFIG" in os.environ else "stand-in"


def plugin() -> RuntimePlugin:
    """Load the plug-in as the registry does."""
    (entry,) = entry_points(group="flexcore.runtimes", name="kubernetes")
    loaded: RuntimePlugin = entry.load()
    return loaded


@pytest.fixture(scope="module")
def of_kubernetes(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Finding]]:
    """Examine Kubernetes with the checks that were asked for, some at a time, in one namespace."""
    if WHERE == "stand-in" and (reason := why_not_boxed()):
        pytest.skip(f"the stand-in cannot run pods: {reason}")
    kubernetes, shared = plugin(), tmp_path_factory.mktemp("kubernetes")
    tests = [each for each in request.session.items if isinstance(each, pytest.Function)]
    checks = [each.callspec.params["check"] for each in tests if each.originalname == "test_kubernetes"]
    places = asyncio.Semaphore(AT_ONCE)
    with site(os.environ) as place:
        config = kubernetes.config.model_validate(place.config)

        async def found(check: Check) -> Finding:
            folder = tmp_path_factory.mktemp(check.name)
            subject = Subject(plugin=kubernetes, config=config, folder=folder, shared=shared)
            async with places:
                return await find(check, KubernetesHarness(subject), Patience(for_work=60))

        async def all_found() -> list[Finding]:
            return await asyncio.gather(*map(found, checks))

        yield {each.check.name: each for each in asyncio.run(all_found())}


def asked(check: Check) -> object:
    """Name the check, and where it is run."""
    marks = [pytest.mark.campaign] if check.name in DEAR else []
    return pytest.param(check, marks=marks, id=f"{check.name}-{WHERE}")


@pytest.mark.timeout(300)  # the first one waits for all
@pytest.mark.parametrize("check", [asked(each) for each in CHECKS if each.name not in KubernetesHarness.exempt])
def test_kubernetes(check: Check, of_kubernetes: Mapping[str, Finding]) -> None:
    found = of_kubernetes[check.name]

    assert found.verdict in (Verdict.PASSED, Verdict.REFUSED), found.seen
