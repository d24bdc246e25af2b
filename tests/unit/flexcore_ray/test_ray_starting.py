"""A local cluster is started once, is found by who comes next, and leaves nothing when it cannot be started.

Ray itself is a stand-in here: a server that begins to answer when it may.
"""

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flexcore_ray import cluster_main
from flexcore_ray.attempts import RayAttempts
from flexcore_ray.clusters import LocalCluster
from flexcore_ray.config import RayConfig

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import ErrorClass
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import ExecutionEvent, Failed, Finished
from flexcore.testing.clock import RealClock
from flexcore.testing.command import until
from flexcore.testing.factories import execution_request, runtime_context
from flexcore.testing.runtime_ray import cluster_processes, end_cluster_of

_INTERPRETER = """#!/bin/sh
case "$1" in
-I) echo >> {folder}/begun; until [ -e {folder}/may-guard ]; do sleep 0.02; done; {before}; exec {python} "$@" ;;
*) exec {python} {folder}/ray.py "$@" ;;
esac
"""
_RAY = """
import json, sys, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

folder = Path(__file__).parent
nodes = [{"node_id": "a", "state": "ALIVE", "resources_total": {"CPU": 4.0}}]
fixed = {
    "/api/version": {"session_name": "s"},
    "/api/v0/nodes": {"data": {"result": {"result": nodes}}},
    "/api/cluster_status": {"data": {}},
    "/api/jobs/": [],
}

class Answering(BaseHTTPRequestHandler):
    def do_GET(self):
        found = fixed.get(self.path.partition("?")[0])
        text = json.dumps(found).encode()
        self.send_response(404 if found is None else 200)
        self.send_header("content-length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def do_PUT(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.do_GET()

    def do_POST(self):
        (folder / "submitted").touch()
        self.do_PUT()

while not (folder / "may-answer").exists():
    time.sleep(0.02)
port = next(each.partition("=")[2] for each in sys.argv if each.startswith("--dashboard-port="))
ThreadingHTTPServer(("127.0.0.1", int(port)), Answering).serve_forever()
"""


class StandIn:
    """An interpreter that begins a guardian when it may, and then a Ray that answers when it may."""

    def __init__(self, folder: Path, before: str = ":") -> None:
        folder.mkdir()
        self.folder = folder
        self.state = folder / "state"
        self.interpreter = folder / "python"
        self.interpreter.write_text(_INTERPRETER.format(folder=folder, python=sys.executable, before=before))
        self.interpreter.chmod(0o700)
        (folder / "ray.py").write_text(_RAY)

    @property
    def begun(self) -> int:
        """How many guardians were begun."""
        path = self.folder / "begun"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def may(self, *what: str) -> None:
        for each in what:
            (self.folder / f"may-{each}").touch()

    def config(self) -> RayConfig:
        given = {"cluster": "local", "interpreter": str(self.interpreter), "idle_timeout": 60}
        return RayConfig.model_validate({**given, "cluster_start_timeout": 20})

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.state / "cluster" / "record.json").read_text())
        return found


@pytest.fixture
def ray(tmp_path: Path) -> Iterator[StandIn]:
    stand_in = StandIn(tmp_path / "ray")
    try:
        yield stand_in
    finally:
        stand_in.may("guard", "answer")
        end_cluster_of(stand_in.state)


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """List the folders that are made for clusters."""
    folders: list[Path] = []
    make: Callable[..., str] = tempfile.mkdtemp

    def noted(**how: str) -> str:
        folders.append(Path(make(**how)))
        return str(folders[-1])

    monkeypatch.setattr("flexcore_ray.clusters.tempfile.mkdtemp", noted)
    return folders


async def seen(condition: Callable[[], object], what: str) -> None:
    await asyncio.to_thread(until, condition, what)


async def test_a_start_that_its_starter_left_is_not_made_twice(ray: StandIn, made: list[Path]) -> None:
    left = asyncio.ensure_future(LocalCluster(ray.config(), ray.state).dashboard(start=True))
    await seen(lambda: ray.begun, "the guardian begins")
    left.cancel()
    cluster = LocalCluster(ray.config(), ray.state)
    coming = asyncio.ensure_future(cluster.dashboard(start=True))
    left.cancel()  # more than once, as a loop that ends does

    ray.may("guard", "answer")
    dashboard = await coming
    await asyncio.wait({left})
    await cluster.close()

    assert left.cancelled()
    assert ray.begun == 1
    assert dashboard is not None
    assert dashboard.address.url == ray.record()["url"]
    assert [each.name for each in made] == [ray.record()["marker"]]


async def test_a_guardian_lets_its_starter_go_when_its_record_is_there(ray: StandIn, made: list[Path]) -> None:
    ray.may("guard")
    (ray.state / "cluster").mkdir(parents=True)

    await asyncio.to_thread(LocalCluster(ray.config(), ray.state)._spawn)

    assert ray.record()["state"] == "starting"
    assert made[0].is_dir()


@pytest.mark.parametrize("answers", [False, True], ids=["while Ray starts", "when it answers"])
async def test_a_guardian_that_is_told_to_end_takes_all_with_it(ray: StandIn, made: list[Path], answers: bool) -> None:
    ray.may("guard", *(["answer"] if answers else []))
    (ray.state / "cluster").mkdir(parents=True)
    await asyncio.to_thread(LocalCluster(ray.config(), ray.state)._spawn)
    record = ray.record()
    if answers:
        await seen(lambda: ray.record()["state"] == "ready", "the cluster is ready")

    os.kill(record["pid"], signal.SIGTERM)

    await seen(lambda: not cluster_processes(ray.state, record), "nothing of the cluster runs")
    assert (ray.state / "cluster" / "guardian.log").read_text() == ""
    assert not made[0].exists()
    assert not (ray.state / "cluster" / "record.json").exists()


async def test_work_that_is_ended_while_its_cluster_starts_is_never_submitted(ray: StandIn) -> None:
    attempts = RayAttempts(ray.config(), runtime_context(ray.state, clock=RealClock()))
    request = execution_request({"script": "echo 1"}, kind=StepKind.BASH)

    async def events() -> list[ExecutionEvent]:
        return [event async for event in attempts.execute(request)]

    reading = asyncio.ensure_future(events())
    await seen(lambda: ray.begun, "the guardian begins")
    report = await attempts.end(request.id, None, timedelta(0))
    was_reading = not reading.done()
    ray.may("guard", "answer")
    (end,) = await reading
    await attempts.close()

    assert was_reading
    assert len(report.gone) == 1
    assert isinstance(end, Finished)
    assert isinstance(end.result.outcome, Failed)
    assert end.result.outcome.failure.error_class is ErrorClass.CANCELLED
    assert not (ray.folder / "submitted").exists()


def test_a_guardian_leaves_the_record_of_another_cluster_alone(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    given = {"folder": str(tmp_path), "temp": str(tmp_path / "temp"), "boxed": False}
    guardian, other = (
        cluster_main.Guardian({**given, "marker": f"test-{os.getpid()}-{name}"}) for name in ("one", "other")
    )
    guardian.record("starting")
    was_replaced = guardian.is_replaced()
    (tmp_path / "record.json").unlink()
    other.record("ready")
    theirs = (tmp_path / "record.json").read_text()

    guardian.record("ready")
    guardian.end()

    assert not was_replaced
    assert guardian.is_replaced()
    assert (tmp_path / "record.json").read_text() == theirs


async def test_a_record_that_says_nothing_is_in_nobodys_way(ray: StandIn) -> None:
    (ray.state / "cluster").mkdir(parents=True)
    (ray.state / "cluster" / "record.json").write_text('{"pid": 1}')
    ray.may("guard", "answer")

    cluster = LocalCluster(ray.config(), ray.state)
    dashboard = await cluster.dashboard(start=True)
    await cluster.close()

    assert dashboard is not None
    assert ray.begun == 1


async def test_where_the_guardian_can_write_no_log_nothing_is_left(ray: StandIn, made: list[Path]) -> None:
    (ray.state / "cluster" / "guardian.log").mkdir(parents=True)

    with pytest.raises(RuntimeUnavailable, match="cannot be used"):
        await LocalCluster(ray.config(), ray.state).dashboard(start=True)

    assert len(made) == 1
    assert not made[0].exists()


async def test_where_the_interpreter_cannot_be_begun_nothing_is_left(ray: StandIn, made: list[Path]) -> None:
    ray.interpreter.write_text(f"#!{ray.folder}/nowhere\n")

    with pytest.raises(RuntimeUnavailable, match="cannot be started") as caught:
        await LocalCluster(ray.config(), ray.state).dashboard(start=True)

    assert "interpreter" in (caught.value.hint or "")
    assert len(made) == 1
    assert not made[0].exists()


@pytest.mark.parametrize(
    ("before", "told"),
    [("rm {}/token", "token"), ("mkdir -p {}/record.json/taken", r"record\.json")],
    ids=["it finds no token", "it cannot write its record"],
)
async def test_what_is_wrong_with_a_guardian_is_told_at_once_and_leaves_nothing(
    tmp_path: Path, made: list[Path], before: str, told: str
) -> None:
    ray = StandIn(tmp_path / "ray", before=before.format(tmp_path / "ray" / "state" / "cluster"))
    ray.may("guard")

    with pytest.raises(RuntimeUnavailable, match=f"cannot be started.*{told}"):
        await LocalCluster(ray.config(), ray.state).dashboard(start=True)

    assert len(made) == 1
    assert not made[0].exists()
