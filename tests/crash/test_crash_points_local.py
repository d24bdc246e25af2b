"""The control plane dies at every moment of an attempt on this machine's processes, and on Meltano's."""

import os
from pathlib import Path

import pytest
from crash.crash_points import Crasher, Ground, cases
from crash.crashing_child import Moment

from flexcore.testing.runtime_processes import BashHarness, MeltanoHarness, Subject


def ground(runtime: str, crashes: Crasher, folder: Path, shared: Path) -> Ground:
    subject = Subject.of(runtime, folder / "world", shared)
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


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("shared")


@pytest.mark.parametrize("runtime", ["local", pytest.param("meltano", marks=pytest.mark.meltano)])
@pytest.mark.parametrize(("moment", "seed"), cases())
async def test_nothing_is_lost_doubled_or_orphaned(
    crashes: Crasher, tmp_path: Path, shared: Path, runtime: str, moment: Moment, seed: int
) -> None:
    await ground(runtime, crashes, tmp_path, shared).crash_and_judge(moment, seed)
