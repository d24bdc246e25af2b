"""Kubernetes passes the conformance kit: on a stand-in cluster, or on the one that FLEXCORE_TEST_KUBECONFIG names.

Directly, and a named third of it again through the wire.
"""

import os
from collections.abc import Iterator, Mapping

import pytest
from examining import asked, examine_asked

from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_kubernetes import KubernetesHarness, site
from flexcore.testing.runtime_processes import Subject
from flexcore.testing.runtime_remote import through_the_wire
from flexcore.testing.runtime_suite import CHECKS, Check, Finding, Verdict, find

AT_ONCE = 4
PATIENCE = Patience(for_work=60)
DEAR = {"hundred_megabytes_of_log"}  # six million lines, each with a time of its own on the way
WHERE = "cluster" if "FLEXCORE_TEST_KUBECONFIG" in os.environ else "stand-in"


# What the wire could spoil: events, offsets, adoption, endings, reports. The rest is in the whole matrix.
THROUGH_THE_WIRE = {
    "success_gives_the_result",
    "large_result_arrives",
    "death_by_signal_names_the_signal",
    "invalid_parameters_are_named",
    "files_of_the_workflow_are_there",
    "deadline_ends_work",
    "log_offsets_have_no_gap",
    "logs_are_bytes",
    "logs_are_live",
    "adoption_repeats_no_log_byte",
    "logs_go_on_after_adoption",
    "cancelled_reading_detaches",
    "adopted_by_handle",
    "adopted_by_name",
    "crash_after_submitted_starts_once",
    "stranger_is_not_adopted",
    "two_executes_run_once",
    "vanished_work_is_lost",
    "cleanup_asks_before_it_kills",
    "cleanup_of_the_unknown_is_gone",
    "execution_scope_ends_all_of_it",
    "survey_lists_what_runs_here",
    "capabilities_are_sane",
    "secrets_are_not_kept",
}


@pytest.fixture(scope="module")
def found(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Finding]]:
    """Examine Kubernetes some checks at a time, in one namespace."""
    if WHERE == "stand-in" and (reason := why_not_boxed()):
        pytest.skip(f"the stand-in cannot run pods: {reason}")
    shared = tmp_path_factory.mktemp("kubernetes")
    with site(os.environ) as place:

        async def examine(check: Check, test: str) -> Finding:
            folder = tmp_path_factory.mktemp(check.name)
            harness = KubernetesHarness(Subject.of("kubernetes", folder, shared, **place.config))
            if test == test_kubernetes.__name__:
                return await find(check, harness, PATIENCE)
            async with through_the_wire(harness, folder / "outer") as far:
                return await find(check, far, PATIENCE)

        yield examine_asked(request, examine, at_once=AT_ONCE)


POSSIBLE = [each for each in CHECKS if each.name not in KubernetesHarness.exempt]


@pytest.mark.timeout(600)  # the first one waits for all
@pytest.mark.parametrize("check", [asked(each, dear=each.name in DEAR, where=WHERE) for each in POSSIBLE])
def test_kubernetes(check: Check, finding: Finding) -> None:
    assert finding.check is check
    assert finding.verdict in (Verdict.PASSED, Verdict.REFUSED), finding.seen


@pytest.mark.timeout(600)  # the same
@pytest.mark.parametrize(
    "check", [asked(each, dear=False, where=WHERE) for each in POSSIBLE if each.name in THROUGH_THE_WIRE]
)
def test_remote_kubernetes(check: Check, finding: Finding) -> None:
    assert finding.check is check
    assert finding.verdict in (Verdict.PASSED, Verdict.REFUSED), finding.seen


def test_what_goes_through_the_wire_is_a_third_and_known() -> None:
    assert THROUGH_THE_WIRE.issubset(each.name for each in CHECKS)
    assert len(THROUGH_THE_WIRE) >= len(CHECKS) // 3
