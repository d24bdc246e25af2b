"""Every runtime passes the conformance kit."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest
from runtime_harnesses import MeltanoHarness, ProcessHarness, ScriptedHarness, SupervisedHarness, meltano_project

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.runtime_harness import Harness
from flexcore.testing.runtime_suite import CHECKS, Check


def plugin(kind: str) -> RuntimePlugin:
    """Load a plug-in as the registry does."""
    (entry,) = entry_points(group="flexcore.runtimes", name=kind)
    loaded: RuntimePlugin = entry.load()
    return loaded


def harness(runtime: str, folder: Path) -> Harness:
    """Set a runtime up in an empty world."""
    match runtime:
        case "scripted":
            return ScriptedHarness()
        case "supervised":
            return SupervisedHarness()
        case _:
            return ProcessHarness(folder, plugin(runtime))


@pytest.mark.parametrize("runtime", ["scripted", "supervised", "local"])
@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_runtime(check: Check, runtime: str, tmp_path: Path) -> None:
    await check.examine(harness(runtime, tmp_path))


NOT_FOR_MELTANO = {
    "null_is_a_result": "the result of a `meltano` step is its last line, or its text",
    "large_result_arrives": "only the last 64 KiB of the output are read for it",
    "death_by_signal_names_the_signal": "Meltano tells the signal of a utility as an exit code of its own",
}
"""Checks of what a `meltano` step cannot do; it is all about the kind of step, not about the runtime."""


@pytest.fixture(scope="session")
def meltano_workflow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One project for all checks, so that Meltano makes its database once."""
    return meltano_project(tmp_path_factory.mktemp("meltano") / "workflow")


@pytest.mark.parametrize("check", [each for each in CHECKS if each.name not in NOT_FOR_MELTANO], ids=str)
async def test_meltano(check: Check, meltano_workflow: Path, tmp_path: Path) -> None:
    await check.examine(MeltanoHarness(tmp_path, plugin("meltano"), meltano_workflow))
