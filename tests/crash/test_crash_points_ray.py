"""The control plane dies at every moment of a job's life on a real Ray, in a network of its own."""

from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest
from crash.crash_points import CAMPAIGN, SUITE, Crasher, Ground, cases, crasher
from crash.crashing_child import Moment

from flexcore.runtime.plugin import RuntimePlugin
from flexcore.testing.runtime_processes import Subject
from flexcore.testing.runtime_ray import RayHarness, end_cluster, jobs_of, no_box

CONFIG = {"cluster": "local", "boxed": True, "cpus": 8, "idle_timeout": 120}


@pytest.fixture(scope="module")
def crashes() -> Iterator[Crasher]:
    with crasher() as found:
        yield found


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
    (entry,) = entry_points(group="flexcore.runtimes", name="ray")
    plugin: RuntimePlugin = entry.load()
    config = plugin.config.model_validate(CONFIG)
    subject = Subject(plugin=plugin, config=config, folder=folder / "world", shared=shared)
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


@pytest.mark.parametrize(("moment", "seed"), cases(SUITE))
async def test_nothing_is_lost_doubled_or_orphaned(
    crashes: Crasher, tmp_path: Path, shared: Path, moment: Moment, seed: int
) -> None:
    await ground(crashes, tmp_path, shared).crash_and_judge(moment, seed)


@pytest.mark.campaign
@pytest.mark.parametrize(("moment", "seed"), cases(CAMPAIGN, first_seed=1000))
async def test_campaign(crashes: Crasher, tmp_path: Path, shared: Path, moment: Moment, seed: Any) -> None:
    await ground(crashes, tmp_path, shared).crash_and_judge(moment, seed)
