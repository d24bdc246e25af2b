"""Nothing is submitted after a clean-up has said that it is gone, whatever the submission was doing at that moment."""

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flexcore_ray.plugin import PLUGIN

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionScope,
    Failed,
    Finished,
    Health,
    Runtime,
)
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import execution_request, runtime_context

REQUEST = execution_request({"script": "echo 1"}, kind=StepKind.BASH)
NAME = external_name("test-installation", REQUEST.id)
SCOPES = [
    pytest.param(AttemptScope(id=REQUEST.id, grace=timedelta(0)), id="attempt"),
    pytest.param(ExecutionScope(execution=REQUEST.id.execution, grace=timedelta(0)), id="execution"),
]
NODE = {"node_id": "a", "state": "ALIVE", "resources_total": {"CPU": 4.0}}
FIXED: Mapping[str, Any] = {
    "/api/version": {"session_name": "s", "ray_version": "2"},
    "/api/v0/nodes": {"data": {"result": {"result": [NODE]}}},
    "/api/cluster_status": {"data": {}},
}


@dataclass
class Ray:
    """A dashboard that takes a job when it may, and does so even if the one who submits it has hung up meanwhile.

    A gate is a path at which it waits until somebody opens it; `reached` says that a request is there.
    """

    token: str = ""
    url: str = ""
    gates: dict[str, asyncio.Event] = field(default_factory=dict)
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    posted: int = 0
    asked: list[str] = field(default_factory=list)
    jobs: dict[str, dict[str, Any]] = field(default_factory=dict)

    @property
    def running(self) -> set[str]:
        return {name for name, job in self.jobs.items() if job["status"] == "RUNNING"}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        method, target, _ = (await reader.readline()).decode().split(" ")
        headers = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        self.asked.append(target)
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        status, answer = 401, None
        if not self.token or headers.get("authorization") == f"Bearer {self.token}":
            status, answer = await self.answer(method, target.partition("?")[0], body)
        text = json.dumps(answer).encode()
        head = f"HTTP/1.1 {status} -\r\nconnection: close\r\ncontent-length: {len(text)}\r\n\r\n"
        with contextlib.suppress(OSError):
            writer.write(head.encode() + text)
            await writer.drain()
        writer.close()

    async def answer(self, method: str, path: str, body: bytes) -> tuple[int, Any]:
        if (gate := self.gates.get(path if method == "GET" else f"{method} {path}")) is not None:
            self.reached.set()
            await gate.wait()
        if method == "PUT" or path in FIXED:
            return 200, FIXED.get(path)
        if path == "/api/jobs/":
            if method == "POST":
                self.take(json.loads(body))
            return 200, list(self.jobs.values())
        job = self.jobs.get(path.removeprefix("/api/jobs/").removesuffix("/stop"))
        if job is None:
            return 404, None
        if method == "POST":
            job["status"] = "STOPPED"
        return 200, job

    def take(self, job: Mapping[str, Any]) -> None:
        self.posted += 1
        name = job["submission_id"]
        self.jobs[name] = {"submission_id": name, "status": "RUNNING", "metadata": job["metadata"], "end_time": 1}


@asynccontextmanager
async def serving(ray: Ray) -> AsyncGenerator[Ray, None]:
    server = await asyncio.start_server(ray.serve, "127.0.0.1", 0)
    ray.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield ray
    finally:
        server.close()


@asynccontextmanager
async def connected(ray: Ray, folder: Path, **config: Any) -> AsyncGenerator[Runtime, None]:
    context = runtime_context(folder, clock=RealClock())
    runtime = PLUGIN.create("ray", PLUGIN.config.model_validate({"address": ray.url, **config}), context)
    try:
        yield runtime
    finally:
        await runtime.close()  # type: ignore[attr-defined]  # it is one that can be closed


async def events_of(runtime: Runtime, request: ExecutionRequest) -> list[ExecutionEvent]:
    async with asyncio.timeout(20):
        return [event async for event in runtime.execute(request)]


def was_cancelled(events: list[ExecutionEvent]) -> bool:
    (end,) = events
    assert isinstance(end, Finished)
    assert isinstance(end.result.outcome, Failed), end
    return end.result.outcome.failure.error_class is ErrorClass.CANCELLED


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("place", [f"/api/jobs/{NAME}", "/api/v0/nodes", "/api/cluster_status"])
async def test_what_is_ended_before_it_is_submitted_never_is(tmp_path: Path, place: str, scope: CleanupScope) -> None:
    async with serving(Ray()) as ray, connected(ray, tmp_path) as runtime:
        gate = ray.gates[place] = asyncio.Event()
        reading = asyncio.ensure_future(events_of(runtime, REQUEST))
        await ray.reached.wait()
        ray.gates.clear()

        report = await runtime.cleanup(scope)
        gate.set()
        events = await reading
        again = await events_of(runtime, REQUEST)

    assert report.gone == {NAME}
    assert was_cancelled(events)
    assert was_cancelled(again)
    assert ray.posted == 0


@pytest.mark.parametrize("scope", SCOPES)
@pytest.mark.parametrize("leaves", [True, False], ids=["the reader leaves", "the reader stays"])
async def test_a_job_on_its_way_is_waited_for_and_ended(tmp_path: Path, leaves: bool, scope: CleanupScope) -> None:
    async with serving(Ray()) as ray, connected(ray, tmp_path) as runtime:
        gate = ray.gates["POST /api/jobs/"] = asyncio.Event()
        reading = asyncio.ensure_future(events_of(runtime, REQUEST))
        await ray.reached.wait()
        if leaves:
            reading.cancel()
            await asyncio.wait({reading})

        ray.asked.clear()
        ending = asyncio.ensure_future(runtime.cleanup(scope))
        for _ in range(3):
            await runtime.health()  # whoever did not wait for the job would have asked for it before this is answered
        asked = list(ray.asked)
        gate.set()
        report = await ending
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    assert not [path for path in asked if path.startswith("/api/jobs/")]
    assert report.gone == {NAME}
    assert ray.posted == 1
    assert ray.running == set()


async def test_what_was_ended_is_not_submitted_by_who_comes_back_to_it(tmp_path: Path) -> None:
    async with serving(Ray()) as ray, connected(ray, tmp_path) as runtime:
        await runtime.cleanup(AttemptScope(id=REQUEST.id))

        events = await events_of(runtime, REQUEST)

    assert was_cancelled(events)
    assert ray.posted == 0


async def test_a_token_that_was_replaced_in_its_file_is_read_again_once_it_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("first\n")
    async with serving(Ray(token="first")) as ray, connected(ray, tmp_path, token_file=str(file)) as runtime:
        before = await runtime.health()
        ray.token = "second"
        file.write_text("second\n")
        with pytest.raises(RuntimeUnavailable, match="asks for a token"):
            await runtime.cleanup(AttemptScope(id=REQUEST.id))
        report = await runtime.cleanup(AttemptScope(id=REQUEST.id))
        after = await runtime.health()

    assert (before.state, after.state) == (Health.UP, Health.UP)
    assert report.gone == {NAME}
