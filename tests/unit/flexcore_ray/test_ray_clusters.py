"""What a local cluster is started with and found by, as far as it needs no Ray."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from flexcore_ray import cluster_main, machine
from flexcore_ray.clusters import LocalCluster, RemoteCluster
from flexcore_ray.config import RayConfig
from flexcore_ray.plugin import PLUGIN

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.placement import ReasonCode
from flexcore.runtime.registry import Registry, RuntimeSettings
from flexcore.testing.command import until
from flexcore.testing.factories import runtime_context

LOCAL = RayConfig.model_validate({"cluster": "local"})


def written(folder: Path, pid: int, start: str | None, state: str = "ready") -> LocalCluster:
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


@pytest.mark.parametrize(("later", "state"), [("1", "ready"), ("", "starting"), ("", "ending"), ("", "failed")])
def test_a_later_process_of_the_same_number_is_no_guardian(tmp_path: Path, later: str, state: str) -> None:
    start = cluster_main.started_at(os.getpid())
    assert start is not None

    assert written(tmp_path, os.getpid(), start + later, state).record() is None


def test_a_process_of_an_earlier_start_of_the_machine_is_no_guardian(tmp_path: Path) -> None:
    boot, _, ticks = (cluster_main.started_at(os.getpid()) or "").partition("/")

    assert len(boot) == 36
    assert written(tmp_path, os.getpid(), f"{boot[::-1]}/{ticks}").record() is None


async def test_whoever_asks_at_the_same_time_is_given_the_same_dashboard() -> None:
    cluster = RemoteCluster(RayConfig.model_validate({"address": "http://127.0.0.1:1"}))

    one, *others = await asyncio.gather(*(cluster.dashboard(start=False) for _ in range(4)))
    await cluster.close()

    assert all(each is one for each in others)


@pytest.mark.parametrize("text", ["", '{"pid": 1', '{"pid": 1}'])
async def test_a_record_that_was_torn_is_no_cluster(tmp_path: Path, text: str) -> None:
    cluster = written(tmp_path, os.getpid(), cluster_main.started_at(os.getpid()))
    (tmp_path / "cluster" / "record.json").write_text(text)

    assert await cluster.dashboard(start=False) is None


async def test_whoever_waits_for_another_that_starts_the_cluster_does_so_for_a_while(tmp_path: Path) -> None:
    (tmp_path / "cluster").mkdir()
    config = RayConfig.model_validate({"cluster": "local", "cluster_start_timeout": 0.1})
    with cluster_main.locked(tmp_path / "cluster") as held, pytest.MonkeyPatch.context() as patch:
        assert held
        patch.setattr("flexcore_ray.clusters._KILL_S", 0.1)
        with pytest.raises(RuntimeUnavailable, match="another process"):
            await LocalCluster(config, tmp_path).dashboard(start=True)


def test_a_slow_dashboard_is_no_idle_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    guardian = cluster_main.Guardian({"folder": str(tmp_path), "temp": str(tmp_path)})
    answers: list[object] = [None, [{"status": "SUCCEEDED"}], *[None] * 6]
    monkeypatch.setattr(guardian, "ask", lambda path: answers.pop(0))

    assert [guardian.has_work() for _ in range(8)] == [True, False, *[True] * 5, False]


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


def test_where_ray_cannot_be_had_the_runtime_is_not_there_and_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("flexcore_ray.machine.find_spec", lambda name: None)
    settings = [RuntimeSettings(name="ray", type="ray")]
    registry = Registry(settings, runtime_context(tmp_path), plugins={"ray": lambda: PLUGIN})

    registry.check()

    (candidate,) = registry.known_candidates()
    assert candidate.obstacle is not None
    assert candidate.obstacle.code is ReasonCode.NOT_CONFIGURED
    assert "pip install 'flexcore[ray]'" in candidate.obstacle.reason


def test_gpus_of_a_machine_are_unknown_until_ray_counts_them(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "_NVIDIA_DRIVER", tmp_path / "no-driver")
    without = machine.resources_here(LOCAL)
    monkeypatch.setattr(machine, "_NVIDIA_DRIVER", tmp_path)

    assert (without.gpu, machine.resources_here(LOCAL).gpu) == (0.0, None)


def test_looking_at_a_cluster_that_was_not_started_loads_neither_ray_nor_http(tmp_path: Path) -> None:
    tried = """
import asyncio, sys
from pathlib import Path
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import runtime_context
from flexcore_ray.plugin import PLUGIN
runtime = PLUGIN.create("ray", PLUGIN.config(), runtime_context(Path(sys.argv[1]), clock=RealClock()))
asyncio.run(runtime.capabilities())
print(asyncio.run(runtime.health()).state.value, *sorted({"ray", "httpx", "urllib.request"} & set(sys.modules)))
"""
    ran = subprocess.run([sys.executable, "-c", tried, tmp_path], check=True, capture_output=True, text=True)

    assert ran.stdout.split() == ["up"]
