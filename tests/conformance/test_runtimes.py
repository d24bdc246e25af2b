"""Every runtime passes the conformance kit."""

import asyncio
from collections.abc import Mapping
from importlib.metadata import entry_points
from pathlib import Path

import pytest
from runtime_harnesses import ScriptedHarness, SupervisedHarness

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.runtime_harness import Harness
from flexcore.testing.runtime_processes import BashHarness, MeltanoHarness, Subject
from flexcore.testing.runtime_suite import CHECKS, Check, Finding, Verdict, find


def plugin(kind: str) -> RuntimePlugin:
    """Load a plug-in as the registry does."""
    (entry,) = entry_points(group="flexcore.runtimes", name=kind)
    loaded: RuntimePlugin = entry.load()
    return loaded


def harness(runtime: str, folder: Path) -> Harness:
    """Set a runtime up in an empty world."""
    match runtime:
        case "scripted":
            return ScriptedHarness(folder)
        case "supervised":
            return SupervisedHarness(folder)
        case _:
            return BashHarness.of(plugin(runtime), folder, slots=4)


@pytest.mark.parametrize("runtime", ["scripted", "supervised", "local"])
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_runtime(check: Check, runtime: str, tmp_path: Path) -> None:
    await check.examine(harness(runtime, tmp_path))


@pytest.fixture(scope="module")
def of_meltano(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Finding]:
    """Examine Meltano with the checks that were asked for, two at a time: it waits for half of its time.

    All share its project, so that Meltano makes its database once: in the first check, alone.
    """
    meltano, shared = plugin("meltano"), tmp_path_factory.mktemp("meltano")
    tests = [each for each in request.session.items if isinstance(each, pytest.Function)]
    first, *others = (each.callspec.params["check"] for each in tests if each.originalname == "test_meltano")
    places = asyncio.Semaphore(2)

    async def found(check: Check) -> Finding:
        folder = tmp_path_factory.mktemp(check.name)
        subject = Subject(plugin=meltano, config=meltano.config(), folder=folder, shared=shared)
        async with places:
            return await find(check, MeltanoHarness(subject))

    async def all_found() -> list[Finding]:
        return [await found(first), *await asyncio.gather(*map(found, others))]

    return {each.check.name: each for each in asyncio.run(all_found())}


# A run of Meltano takes a second of a core, and these are many runs, or kept by what is shared with `local`.
DEAR_WITH_MELTANO = {
    "json_types_are_kept",
    "many_at_once_do_not_mix",
    "slots_are_kept",
    "next_attempt_is_new_work",
    "deadline_ends_work_that_ignores_it",
    "torn_lines_arrive",
    "streams_are_kept_apart",
    "logs_go_on_after_adoption",
    "logs_are_there_after_the_end",
    "cancelled_reading_detaches",
    "crash_before_submitted_starts_once",
    "stranger_is_not_adopted",
    "two_installations_do_not_collide",
    "failure_is_the_same_after_the_end",
    "harsher_cleanup_overtakes",
    "cleanup_after_the_end",
    "cleaned_up_work_is_not_started_again",
    "execution_scope_ends_all_of_it",
    "foreign_installation_is_left_alone",
    "survey_finds_what_a_dead_server_left",
    "samples_are_sane",
    "health_answers_beside_work",
}


def asked_of_meltano(check: Check) -> object:
    """Leave the dear ones to `-m campaign`."""
    marks = [pytest.mark.campaign] if check.name in DEAR_WITH_MELTANO else []
    return pytest.param(check, marks=marks, id=check.name)


@pytest.mark.parametrize("check", [asked_of_meltano(each) for each in CHECKS if each.name not in MeltanoHarness.exempt])
def test_meltano(check: Check, of_meltano: Mapping[str, Finding]) -> None:
    found = of_meltano[check.name]

    assert found.verdict in (Verdict.PASSED, Verdict.REFUSED), found.seen
