"""The kit through the wire for the dear runtimes: a third, the rest by `-m campaign`; Ray has a file of its own."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from examining import asked

from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_harness import Harness
from flexcore.testing.runtime_processes import MeltanoHarness, Subject
from flexcore.testing.runtime_remote import through_the_wire
from flexcore.testing.runtime_suite import CHECKS, Check

pytestmark = pytest.mark.timeout(600)
PATIENT = Patience(for_work=60)
# What the wire carries, and what depends on who is at its other end; with few runs, which are slow.
A_THIRD_OF_MELTANO = {
    "success_gives_the_result",
    "failing_work_is_a_user_failure",
    "invalid_parameters_start_nothing",
    "invalid_parameters_are_named",
    "foreign_kind_is_refused",
    "files_of_the_workflow_are_there",
    "adoption_repeats_no_log_byte",
    "closing_detaches",
    "adopted_by_handle",
    "crash_after_submitted_starts_once",
    "cleanup_asks_before_it_kills",
    "cleanup_is_idempotent",
    "cleanup_of_the_unknown_is_gone",
    "cleaned_up_work_is_not_started_again",
    "submitted_comes_once_and_first",
    "handle_is_named_after_the_attempt",
    "health_answers_in_time",
    "health_is_true_when_unreachable",
    "unreachable_runtime_says_what_to_do",
    "capabilities_are_sane",
    "unsupported_features_have_reasons",
    "capabilities_stay_the_same",
    "secrets_stay_inside",
    "our_environment_stays_here",
}


async def examine(check: Check, inner: Harness, folder: Path) -> None:
    if check.name in inner.exempt:
        pytest.skip(inner.exempt[check.name])
    async with through_the_wire(inner, folder) as harness:
        await check.examine(harness, PATIENT)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("check", [asked(each, dear=each.name not in A_THIRD_OF_MELTANO) for each in CHECKS])
async def test_remote_meltano(check: Check, shared: Path, tmp_path: Path) -> None:
    inner = MeltanoHarness(Subject.of("meltano", tmp_path / "inner", shared))

    await examine(check, inner, tmp_path / "outer")


@pytest.fixture(scope="module")
def kubernetes() -> Iterator[Any]:
    from flexcore.testing.kubernetes.containers import why_not_boxed
    from flexcore.testing.runtime_kubernetes import site

    if "FLEXCORE_TEST_KUBECONFIG" not in os.environ and (reason := why_not_boxed()):
        pytest.skip(f"the stand-in cannot run pods: {reason}")
    with site(os.environ) as place:
        yield place.config


@pytest.mark.campaign
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_remote_kubernetes(check: Check, kubernetes: Any, shared: Path, tmp_path: Path) -> None:
    from flexcore.testing.runtime_kubernetes import KubernetesHarness

    inner = KubernetesHarness(Subject.of("kubernetes", tmp_path / "inner", shared, **kubernetes))
    await examine(check, inner, tmp_path / "outer")
