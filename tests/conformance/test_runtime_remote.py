"""The remote runtime passes the conformance kit, whatever it is that the server runs."""

from importlib.metadata import entry_points
from pathlib import Path

import pytest
from runtime_harnesses import ScriptedHarness

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.runtime_processes import BashHarness
from flexcore.testing.runtime_remote import through_the_wire
from flexcore.testing.runtime_suite import CHECKS, Check


def plugin(kind: str) -> RuntimePlugin:
    """Load a plug-in as the registry does."""
    (entry,) = entry_points(group="flexcore.runtimes", name=kind)
    loaded: RuntimePlugin = entry.load()
    return loaded


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_remote_local(check: Check, tmp_path: Path) -> None:
    inner = BashHarness.of(plugin("local"), tmp_path / "inner", slots=4)
    async with through_the_wire(inner, plugin("remote"), tmp_path / "outer") as harness:
        await check.examine(harness)


# Of what `local` has been held to, every third again, on a runtime with other ways; the rest for who has the time.
A_THIRD = {each.name for each in CHECKS[::3]}


def asked(check: Check) -> object:
    return pytest.param(check, marks=[] if check.name in A_THIRD else [pytest.mark.campaign], id=check.name)


@pytest.mark.parametrize("check", [asked(each) for each in CHECKS])
async def test_remote_scripted(check: Check, tmp_path: Path) -> None:
    inner = ScriptedHarness(tmp_path / "inner")
    inner.folder.mkdir()
    async with through_the_wire(inner, plugin("remote"), tmp_path / "outer") as harness:
        await check.examine(harness)
