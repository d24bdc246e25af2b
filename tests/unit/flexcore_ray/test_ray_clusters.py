"""What a local cluster is started with and found by, as far as it needs no Ray."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flexcore_ray import cluster_main
from flexcore_ray.clusters import LocalCluster
from flexcore_ray.config import RayConfig

from flexcore.model.errors import RuntimeUnavailable
from flexcore.testing.command import until

LOCAL = RayConfig.model_validate({"cluster": "local"})


def written(folder: Path, pid: int, start: int | None, state: str = "ready") -> LocalCluster:
    """Write the record of a cluster with this guardian."""
    (folder / "cluster").mkdir()
    note = {"pid": pid, "start": start, "state": state, "url": "http://127.0.0.1:1"}
    note |= {"socket": None, "marker": "m", "temp": str(folder / "temp")}
    (folder / "cluster" / "record.json").write_text(json.dumps(note))
    return LocalCluster(LOCAL, folder)


def test_a_cluster_is_found_by_its_record_while_its_guardian_lives(tmp_path: Path) -> None:
    record = written(tmp_path, os.getpid(), cluster_main.started_at(os.getpid())).record()

    assert record is not None
    assert record.url == "http://127.0.0.1:1"


@pytest.mark.parametrize(("later", "state"), [(1, "ready"), (0, "starting"), (0, "ending"), (0, "failed")])
def test_a_later_process_of_the_same_number_is_no_guardian(tmp_path: Path, later: int, state: str) -> None:
    start = cluster_main.started_at(os.getpid())
    assert start is not None

    assert written(tmp_path, os.getpid(), start + later, state).record() is None


async def test_looking_starts_nothing(tmp_path: Path) -> None:
    cluster = LocalCluster(LOCAL, tmp_path / "state")

    assert await cluster.dashboard(start=False) is None
    assert not (tmp_path / "state").exists()


async def test_a_state_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(RuntimeUnavailable) as caught:
        await LocalCluster(LOCAL, tmp_path / "file" / "state").dashboard(start=True)

    assert caught.value.hint


def test_everything_that_came_of_a_cluster_is_killed_and_nothing_else() -> None:
    marker = f"test-{os.getpid()}"
    command = "env -u FLEXCORE_RAY_CLUSTER sleep 100 & echo; wait"  # the child does not carry the mark
    marked = subprocess.Popen(["bash", "-c", command], env={**os.environ, cluster_main.MARKER: marker})
    other = subprocess.Popen(["sleep", "100"], env={**os.environ, cluster_main.MARKER: f"{marker}-not"})
    try:
        children = Path(f"/proc/{marked.pid}/task/{marked.pid}/children")
        child = int(until(lambda: children.read_text().split(), "the child is there")[0])

        killed = [cluster_main.kill_marked(marker)]
        marked.wait()
        until(lambda: cluster_main.started_at(child) is None, "the child is gone")
        killed.append(cluster_main.kill_marked(marker))

        assert killed == [True, False]
        assert other.poll() is None
    finally:
        other.kill()
        other.wait()


def test_ports_are_different_and_where_ray_takes_them() -> None:
    ports = cluster_main.free_ports(20)

    assert len(set(ports)) == 20
    assert not [port for port in ports if 10002 <= port < 20000]


def test_the_guardian_needs_no_package() -> None:
    imported = subprocess.run(
        [
            sys.executable,
            "-I",
            "-S",
            "-c",
            f"import runpy; runpy.run_path({cluster_main.__file__!r}, run_name='tried')",
        ],
        check=False,
    )

    assert imported.returncode == 0
