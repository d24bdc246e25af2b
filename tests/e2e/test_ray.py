"""Steps on a real Ray of this machine, in a network of its own: portable ones, Ray's own, and what happens in crashes."""

import asyncio
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from e2e.cli_session import Session

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import external_name
from flexcore.model.workflow import Requirements, StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    ExecutionEvent,
    ExecutionRequest,
    Failed,
    Finished,
    Health,
    LogChunk,
    LogStream,
    PhaseEntered,
    Runtime,
    Submitted,
    Succeeded,
    Survey,
)
from flexcore.runtime.registry import installed_plugins
from flexcore.testing.clock import RealClock
from flexcore.testing.command import until
from flexcore.testing.factories import attempt_id, execution_request, runtime_context
from flexcore.testing.runtime_ray import cluster_processes, count_of, end_cluster_of, kill_head

_SETTINGS = """
runtimes:
  ray:
    type: ray
    cluster: local
    boxed: true
    cpus: 4
    idle_timeout: 120s
    installer: {{FLEXCORE_WHEELS: "{wheels}"}}
"""
_PORTABLE = """
name: portable
steps:
  - id: packed
    type: python
    runtime: ray
    with:
      args: {word: "${{ secrets.WORD }}"}
      packages: [greeting-of-the-test]
      script: |
        import greeting_of_the_test

        def main(word):
            print("this is", word)
            return {"said": greeting_of_the_test.HELLO, "letters": len(word)}
  - id: tasks
    type: ray
    runtime: ray
    with: {entrypoint: python3 tasks.py, files: [tasks.py]}
output: ${{ [results.packed, results.tasks] }}
"""
_TASKS = """
import json, os, ray
ray.init(logging_level="ERROR", log_to_driver=False)
squares = ray.get([ray.remote(lambda n: n * n).remote(n) for n in range(4)])
with open(os.environ["FLEXCORE_RESULT"], "w") as file:
    json.dump(squares, file)
"""
_WAITS = """
name: {name}
steps:
  - id: wait
    type: bash
    runtime: ray
    with: {{script: 'echo >> {seen}/{name}.begun; until [ -e {seen}/{name}.open ]; do sleep 0.05; done; echo 42'}}
output: ${{{{ results.wait }}}}
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    """Give a folder whose Ray is ended with everything in it."""
    if shutil.which("unshare") is None or subprocess.run(_box("true"), capture_output=True, check=False).returncode:
        pytest.skip("no network namespace can be made")
    folder = tmp_path_factory.mktemp("ray-site")
    (folder / "config").mkdir()
    (folder / "config" / "flexcore.yaml").write_text(_SETTINGS.format(wheels=_wheels(folder / "wheels")))
    state = folder / ".flexcore" / "runtimes" / "ray"
    try:
        yield Session(folder, {"FLEXCORE_SECRET_WORD": "open-sesame-4711"})
    finally:
        end_cluster_of(state)


def _box(*command: str) -> list[str]:
    return ["unshare", "-n" if os.geteuid() == 0 else "-rn", *command]


def _wheels(folder: Path) -> Path:
    """Make a package by hand: a wheel is a zip file with three more files."""
    folder.mkdir()
    about = "greeting_of_the_test-1.0.dist-info"
    with zipfile.ZipFile(folder / "greeting_of_the_test-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeting_of_the_test.py", "HELLO = 'hello from a wheel'\n")
        wheel.writestr(f"{about}/METADATA", "Metadata-Version: 2.1\nName: greeting-of-the-test\nVersion: 1.0\n")
        wheel.writestr(
            f"{about}/WHEEL", "Wheel-Version: 1.0\nGenerator: a-test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{about}/RECORD", "")
    return folder


def _state(site: Session) -> Path:
    return site.folder / ".flexcore" / "runtimes" / "ray"


def _begun(site: Session, name: str) -> int:
    path = site.folder / f"{name}.begun"
    return len(path.read_text().splitlines()) if path.exists() else 0


def test_portable_steps_and_rays_own_run_on_a_ray_that_starts_when_they_come(site: Session) -> None:
    site.write("portable.yaml", _PORTABLE)
    site.write("tasks.py", _TASKS)

    done = site.start("workflow", "execute", "portable.yaml", "--output", "json").ended(180)

    assert done.code == 0, done.err
    assert done.document["output"] == [{"said": "hello from a wheel", "letters": 16}, [0, 1, 4, 9]]
    assert [step["runtime"] for step in done.document["steps"]] == ["ray", "ray"]
    assert "open-sesame-4711" not in done.out + done.err


def test_a_job_is_adopted_after_the_control_plane_was_killed(site: Session) -> None:
    site.write("adopted.yaml", _WAITS.format(name="adopted", seen=site.folder))
    running = site.start("workflow", "execute", "adopted.yaml", "--output", "json")
    until(lambda: _begun(site, "adopted"), "the job begins")

    running.kill(group=True)
    (site.folder / "adopted.open").touch()
    resumed = site.start("workflow", "resume", "--output", "json").ended(60)

    assert resumed.code == 0, resumed.err
    (id,) = (each["id"] for each in site.json("execution", "list", "--workflow", "adopted"))
    document = site.json("execution", "show", id)
    assert (document["status"], document["output"]) == ("succeeded", 42)
    assert document["steps"][0]["attempt"] == 1
    assert _begun(site, "adopted") == 1


def test_a_head_that_was_killed_is_replaced_and_its_job_made_anew(site: Session) -> None:
    site.write("headless.yaml", _WAITS.format(name="headless", seen=site.folder))
    running = site.start("workflow", "execute", "headless.yaml", "--output", "json")
    until(lambda: _begun(site, "headless"), "the job begins")
    first = json.loads((_state(site) / "cluster" / "record.json").read_text())

    killed = time.monotonic()
    try:
        kill_head(_state(site))
        until(lambda: _begun(site, "headless") == 2, "the job begins again", 150)
        took = time.monotonic() - killed
        (site.folder / "headless.open").touch()
        done = running.ended(60)
    finally:
        running.kill(group=True)

    assert done.code == 0, done.err
    assert (done.document["output"], done.document["steps"][0]["attempt"]) == (42, 2)
    assert took < 150  # a few seconds to notice, and what Ray takes to start, which is long on a busy machine
    assert cluster_processes(_state(site), first) == []


# --- the adapter itself, on the same cluster


def _runtime(site: Session, installation: str = "another", **config: object) -> Runtime:
    plugin = installed_plugins()["ray"]()
    given = {"cluster": "local", "boxed": True, "cpus": 4, "idle_timeout": 120, **config}
    given = {key: value for key, value in given.items() if value is not None}
    context = runtime_context(_state(site), installation=installation, clock=RealClock())
    return plugin.create("ray", plugin.config.model_validate(given), context)


def _request(**changes: object) -> ExecutionRequest:
    return execution_request(**{"parameters": {"script": "echo 1"}, "kind": StepKind.BASH, **changes})


async def _ended(runtime: Runtime, request: ExecutionRequest) -> list[ExecutionEvent]:
    async with asyncio.timeout(150):  # Ray may have to start first, which is long on a busy machine
        return [event async for event in runtime.execute(request)]


def _failure(events: list[ExecutionEvent]) -> Failure:
    assert isinstance(events[-1], Finished)
    outcome = events[-1].result.outcome
    assert isinstance(outcome, Failed), outcome
    return outcome.failure


async def test_what_no_node_has_is_refused_with_the_shortage_named(site: Session) -> None:
    events = await _ended(_runtime(site), _request(requirements=Requirements(cpu=64)))

    assert not any(isinstance(each, Submitted) for each in events)
    found = _failure(events)
    assert found.error_class is ErrorClass.QUOTA
    assert "64 CPU" in found.message
    assert "4 CPU" in found.message


async def test_work_that_gets_no_room_in_time_says_so_and_never_begins(site: Session) -> None:
    runtime = _runtime(site, start_timeout=2)
    busy = _request(id=attempt_id("busy"), requirements=Requirements(cpu=4), parameters={"script": "sleep 100"})
    stream = _runtime(site).execute(busy)
    async for event in stream:
        if isinstance(event, PhaseEntered) and event.phase is Phase.RUN:
            break
    mark = site.folder / "too-late"
    late = _request(id=attempt_id("late"), requirements=Requirements(cpu=1), parameters={"script": f"touch {mark}"})

    found = _failure(await _ended(runtime, late))
    waiting = await runtime.cleanup(AttemptScope(id=late.id, grace=timedelta(0)))
    await stream.aclose()
    async with asyncio.timeout(60):
        for id in (busy.id, late.id):
            while (await runtime.cleanup(AttemptScope(id=id, grace=timedelta(0)))).pending:
                await asyncio.sleep(0.1)  # it leaves its queue, and is stopped then

    assert (found.error_class, found.name) == (ErrorClass.QUOTA, "StartTimeout")
    assert waiting.pending
    assert not mark.exists()


async def test_a_job_that_somebody_else_submitted_under_our_name_is_refused(site: Session) -> None:
    theirs, request = _runtime(site, "them"), _request(id=attempt_id("stranger"))
    await _ended(theirs, _request())  # so that there is a cluster
    await theirs.cleanup(AttemptScope(id=attempt_id(), grace=timedelta(0)))
    name = external_name("another", request.id)
    record = json.loads((_state(site) / "cluster" / "record.json").read_text())
    token = (_state(site) / "cluster" / "token").read_text()
    transport = httpx.AsyncHTTPTransport(uds=record["socket"])
    headers = {"Authorization": f"Bearer {token}"}
    async with httpx.AsyncClient(transport=transport, headers=headers, timeout=20) as client:
        job = {"entrypoint": "sleep 100", "submission_id": name}
        (await client.post(f"{record['url']}/api/jobs/", json=job)).raise_for_status()

        found = _failure(await _ended(_runtime(site), request))
        report = await _runtime(site).cleanup(AttemptScope(id=request.id, grace=timedelta(0)))
        there = (await client.get(f"{record['url']}/api/jobs/{name}")).json()["status"]
        (await client.post(f"{record['url']}/api/jobs/{name}/stop")).raise_for_status()

    assert found.error_class is ErrorClass.LOST
    assert "somebody else" in found.message
    assert report.gone == {name}
    assert there in ("PENDING", "RUNNING")
    assert not (await theirs.cleanup(Survey("them"))).pending


async def _again(client: httpx.AsyncClient, path: str) -> Any:
    """Wait for what is written down again, as long as that may take: Ray looks once a second."""
    for _ in range(60):
        if (found := await client.get(path)).status_code == 200:
            return found.json()
        await asyncio.sleep(0.05)
    return None


async def test_what_ray_writes_down_again_after_a_job_was_deleted_is_removed_and_never_taken_for_work(
    site: Session,
) -> None:
    runtime = _runtime(site)
    await _ended(runtime, _request(id=attempt_id("warm")))
    record = json.loads((_state(site) / "cluster" / "record.json").read_text())
    headers = {"Authorization": f"Bearer {(_state(site) / 'cluster' / 'token').read_text()}"}
    transport = httpx.AsyncHTTPTransport(uds=record["socket"])
    async with httpx.AsyncClient(transport=transport, headers=headers, base_url=record["url"], timeout=20) as client:
        for number in itertools.count(1):  # Ray does so if it has not looked between the end and the deletion
            request = _request(id=attempt_id("trace", number=number))
            (handle,) = (each.handle for each in await _ended(runtime, request) if isinstance(each, Submitted))
            path = f"/api/jobs/{handle.name}"
            while (await client.delete(path)).status_code != 200:  # Ray is told of the end a moment later
                await asyncio.sleep(0.05)
            if (trace := await _again(client, path)) is not None:
                break

        found = _failure(await _ended(runtime, request))
        listed = await runtime.cleanup(Survey("another"))
        after = (await client.get(path)).status_code

    assert (trace["status"], trace["metadata"]) == ("FAILED", None)
    assert found.error_class is ErrorClass.LOST
    assert "forget" in found.message
    assert handle.name not in listed.pending
    assert after == 404


async def test_a_wrong_token_is_named_in_the_health(site: Session) -> None:
    runtime = _runtime(site)
    await _ended(runtime, _request(id=attempt_id("warm")))
    token = _state(site) / "cluster" / "token"
    right = token.read_text()
    try:
        token.write_text("wrong")
        found = await _runtime(site).health()
    finally:
        token.write_text(right)

    assert found.state is Health.DOWN
    assert "token" in found.reason


async def test_what_a_killed_guardian_left_is_cleared_and_many_who_come_at_once_start_one_cluster(
    site: Session,
) -> None:
    await _ended(_runtime(site), _request(id=attempt_id("before")))
    before = json.loads((_state(site) / "cluster" / "record.json").read_text())
    os.kill(before["pid"], signal.SIGKILL)
    runtimes = [_runtime(site, f"number-{number}") for number in range(3)]

    asked = await _runtime(site).health()
    ended = await asyncio.gather(*(_ended(each, _request(id=attempt_id("after"))) for each in runtimes))

    assert asked.state is Health.UP
    results = [events[-1].result.outcome for events in ended if isinstance(events[-1], Finished)]
    assert results == [Succeeded(1)] * 3
    sessions = {event.handle.data["session"] for events in ended for event in events if isinstance(event, Submitted)}
    assert len(sessions) == 1
    assert count_of(_state(site), "raylet") == 1
    assert cluster_processes(_state(site), before) == []
    assert not Path(before["temp"]).exists()


class Way:
    """A port of this machine that leads to the dashboard in its box, and can be closed for a while."""

    def __init__(self, socket: str) -> None:
        self.port = 0
        self._socket = socket
        self._open: list[asyncio.StreamWriter] = []
        self._server: asyncio.Server | None = None

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()
        self._open.clear()

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_unix_connection(self._socket)
        self._open += [writer, there_writer]
        await asyncio.gather(self._copy(reader, there_writer), self._copy(there_reader, writer))

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while piece := await reader.read(1 << 16):
                writer.write(piece)
                await writer.drain()
        writer.close()


async def test_a_dashboard_that_cannot_be_reached_for_a_while_fails_nothing(site: Session) -> None:
    await _ended(_runtime(site), _request())  # so that there is a cluster
    record = json.loads((_state(site) / "cluster" / "record.json").read_text())
    way = Way(record["socket"])
    await way.open()
    token = str(_state(site) / "cluster" / "token")
    runtime = _runtime(site, cluster=None, boxed=False, address=f"http://127.0.0.1:{way.port}", token_file=token)
    gate = site.folder / "away.open"
    script = f"echo before; until [ -e {gate} ]; do sleep 0.05; done; echo after; echo 7"
    request = _request(id=attempt_id("away"), parameters={"script": script})
    events: list[ExecutionEvent] = []

    with pytest.raises(RuntimeUnavailable):
        async for event in runtime.execute(request):
            events.append(event)
            if isinstance(event, LogChunk):
                await way.close()
    (handle,) = (event.handle for event in events if isinstance(event, Submitted))
    again = replace(request, handle=handle, log_offsets={LogStream.STDOUT: len(b"before\n")})
    gate.touch()
    with pytest.raises(RuntimeUnavailable) as refused:
        await _ended(runtime, again)
    away = await runtime.health()
    await way.open()
    ended = await _ended(runtime, again)
    await runtime.cleanup(AttemptScope(id=request.id, grace=timedelta(0)))
    await way.close()

    assert refused.value.hint
    assert away.state is Health.DOWN
    assert [each.adopted for each in ended if isinstance(each, Submitted)] == [True]
    assert b"".join(each.data for each in ended if isinstance(each, LogChunk)) == b"after\n7\n"
    assert isinstance(ended[-1], Finished)
    assert ended[-1].result.outcome == Succeeded(7)
