"""Ray passes the conformance kit: a real single-node cluster in a network of its own, started here and ended here."""

import asyncio
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points

import pytest

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.runtime_examination import Patience
from flexcore.testing.runtime_processes import Subject
from flexcore.testing.runtime_ray import RayHarness, end_cluster, no_box
from flexcore.testing.runtime_suite import CHECKS, Check, Finding, Verdict, find

AT_ONCE = 4  # a job waits for processes to start for most of its time
CONFIG = {"cluster": "local", "boxed": True, "cpus": 8, "idle_timeout": 120}

# A job takes a second of a core, and these are many jobs, or kept by what is shared with `local`.
DEAR = {
    "large_parameters_arrive",
    "closing_detaches",
    "handle_is_named_after_the_attempt",
    "health_answers_beside_work",
    "json_types_are_kept",
    "large_result_arrives",
    "many_at_once_do_not_mix",
    "slots_are_kept",
    "next_attempt_is_new_work",
    "deadline_ends_work_that_ignores_it",
    "torn_lines_arrive",
    "logs_go_on_after_adoption",
    "logs_are_there_after_the_end",
    "cancelled_reading_detaches",
    "adopted_by_handle",
    "crash_after_submitted_starts_once",
    "two_installations_do_not_collide",
    "failure_is_the_same_after_the_end",
    "cleanup_after_the_end",
    "cleanup_is_idempotent",
    "execution_scope_ends_all_of_it",
    "foreign_installation_is_left_alone",
    "survey_finds_what_a_dead_server_left",
    "finished_comes_once_and_last",
    "samples_are_sane",
    "secrets_stay_inside",
    "vanished_work_is_lost",
}


def plugin() -> RuntimePlugin:
    """Load the plug-in as the registry does."""
    (entry,) = entry_points(group="flexcore.runtimes", name="ray")
    loaded: RuntimePlugin = entry.load()
    return loaded


@pytest.fixture(scope="module")
def of_ray(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mapping[str, Finding]]:
    """Examine Ray with the checks that were asked for, some at a time, on one cluster."""
    if reason := no_box():
        pytest.skip(f"no network namespace can be made: {reason}")
    ray, shared = plugin(), tmp_path_factory.mktemp("ray")
    config = ray.config.model_validate(CONFIG)
    tests = [each for each in request.session.items if isinstance(each, pytest.Function)]
    checks = [each.callspec.params["check"] for each in tests if each.originalname == "test_ray"]
    places = asyncio.Semaphore(AT_ONCE)

    async def found(check: Check) -> Finding:
        subject = Subject(plugin=ray, config=config, folder=tmp_path_factory.mktemp(check.name), shared=shared)
        async with places:
            return await find(check, RayHarness(subject), Patience(for_work=90))  # others may want the cores too

    async def all_found() -> list[Finding]:
        return await asyncio.gather(*map(found, checks))

    try:
        yield {each.check.name: each for each in asyncio.run(all_found())}
    finally:
        end_cluster(shared)


def asked(check: Check) -> object:
    """Leave the dear ones to `-m campaign`."""
    marks = [pytest.mark.campaign] if check.name in DEAR else []
    return pytest.param(check, marks=marks, id=check.name)


@pytest.mark.timeout(600)  # the first one waits for all
@pytest.mark.parametrize("check", [asked(each) for each in CHECKS])
def test_ray(check: Check, of_ray: Mapping[str, Finding]) -> None:
    found = of_ray[check.name]

    assert found.verdict in (Verdict.PASSED, Verdict.REFUSED), found.seen
