"""The remote runtime passes the conformance kit, whatever it is that the server runs."""

from pathlib import Path

import pytest
from examining import asked
from runtime_harnesses import ScriptedHarness

from flexcore.runtime.registry import installed_plugins
from flexcore.testing.runtime_processes import BashHarness
from flexcore.testing.runtime_remote import through_the_wire
from flexcore.testing.runtime_suite import CHECKS, Check


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_remote_local(check: Check, tmp_path: Path) -> None:
    inner = BashHarness.of(installed_plugins()["local"](), tmp_path / "inner", slots=4)
    async with through_the_wire(inner, tmp_path / "outer") as harness:
        await check.examine(harness)


# Of what `local` has been held to, every third again, on a runtime with other ways; the rest for who has the time.
A_THIRD = {each.name for each in CHECKS[::3]}


@pytest.mark.parametrize("check", [asked(each, dear=each.name not in A_THIRD) for each in CHECKS])
async def test_remote_scripted(check: Check, tmp_path: Path) -> None:
    inner = ScriptedHarness(tmp_path / "inner")
    inner.folder.mkdir()
    async with through_the_wire(inner, tmp_path / "outer") as harness:
        await check.examine(harness)
