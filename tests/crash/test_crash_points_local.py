"""The control plane dies at every moment of an attempt on this machine's processes, and on Meltano's."""

import os
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from crash.crash_points import CAMPAIGN, SUITE, Crasher, Ground, cases, crasher
from crash.crashing_child import Moment

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.runtime_processes import BashHarness, MeltanoHarness, Subject


@pytest.fixture(scope="module")
def crashes() -> Iterator[Crasher]:
    with crasher() as found:
        yield found


def ground(runtime: str, crashes: Crasher, folder: Path, shared: Path) -> Ground:
    (entry,) = entry_points(group="flexcore.runtimes", name=runtime)
    plugin: RuntimePlugin = entry.load()
    subject = Subject(plugin=plugin, config=plugin.config(), folder=folder / "world", shared=shared)
    harness = BashHarness(subject) if runtime == "local" else MeltanoHarness(subject)
    home = folder / "plane"
    attempts = home / ".flexcore" / "runtimes" / runtime

    async def listing() -> list[str]:
        """Name the folders of attempts, and the processes that were started in them."""
        kept = [each.name for each in attempts.rglob("fx-*") if each.is_dir()] if attempts.exists() else []
        return kept + [f"process {pid}" for pid in processes_below(home)]

    return Ground(
        harness=harness, folder=home, runtimes={runtime: {"type": runtime}}, runtime=runtime, listing=listing,
        crasher=crashes, seconds=2.0 if runtime == "meltano" else 0.3,
    )  # fmt: skip


def processes_below(folder: Path) -> list[int]:
    found = []
    for each in Path("/proc").iterdir():
        if each.name.isdecimal() and int(each.name) != os.getpid():
            try:
                line = (each / "cmdline").read_bytes()
            except OSError:
                continue
            if str(folder / ".flexcore" / "runtimes").encode() in line:
                found.append(int(each.name))
    return found


async def crash(crashes: Crasher, tmp_path: Path, shared: Path, runtime: str, moment: Moment, seed: int) -> None:
    await ground(runtime, crashes, tmp_path, shared).crash_and_judge(moment, seed)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("runtime", ["local", pytest.param("meltano", marks=pytest.mark.meltano)])
@pytest.mark.parametrize(("moment", "seed"), cases(SUITE))
async def test_nothing_is_lost_doubled_or_orphaned(
    crashes: Crasher, tmp_path: Path, shared: Path, runtime: str, moment: Moment, seed: int
) -> None:
    await crash(crashes, tmp_path, shared, runtime, moment, seed)


@pytest.mark.campaign
@pytest.mark.parametrize("runtime", ["local", "meltano"])
@pytest.mark.parametrize(("moment", "seed"), cases(CAMPAIGN, first_seed=1000))
async def test_campaign(
    crashes: Crasher, tmp_path: Path, shared: Path, runtime: str, moment: Moment, seed: Any
) -> None:
    await crash(crashes, tmp_path, shared, runtime, moment, seed)
