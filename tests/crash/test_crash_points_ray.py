"""The control plane dies at every moment of a job's life on a real Ray, in a network of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from crash.crash_points import Crasher, Ground, cases
from crash.crashing_child import Moment

from flexcore.testing.runtime_processes import Subject
from flexcore.testing.runtime_ray import RayHarness, end_cluster, jobs_of, no_box

CONFIG: dict[str, Any] = {"cluster": "local", "boxed": True, "cpus": 8, "idle_timeout": 120}


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    if reason := no_box():
        pytest.skip(f"no network namespace can be made: {reason}")
    folder = tmp_path_factory.mktemp("ray")
    try:
        yield folder
    finally:
        end_cluster(folder)


def ground(crashes: Crasher, folder: Path, shared: Path) -> Ground:
    subject = Subject.of("ray", folder / "world", shared, **CONFIG)
    home, state = folder / "plane", shared / "ray"
    state.mkdir(exist_ok=True)
    (home / ".flexcore" / "runtimes").mkdir(parents=True)
    (home / ".flexcore" / "runtimes" / "ray").symlink_to(state)  # one cluster for all

    async def listing() -> list[str]:
        """Name the jobs that the dashboard knows, and the attempts' files."""
        kept = [each.name for each in (state / "attempts").glob("*")] if (state / "attempts").exists() else []
        return [*jobs_of(state), *kept]

    return Ground(
        harness=RayHarness(subject), folder=home, runtime="ray", runtimes={"ray": {"type": "ray", **CONFIG}},
        listing=listing, crasher=crashes, seconds=1.5,
    )  # fmt: skip


@pytest.mark.parametrize(("moment", "seed"), cases())
async def test_nothing_is_lost_doubled_or_orphaned(
    crashes: Crasher, tmp_path: Path, shared: Path, moment: Moment, seed: int
) -> None:
    await ground(crashes, tmp_path, shared).crash_and_judge(moment, seed)
