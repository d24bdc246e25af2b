"""A served runtime that freezes, is cut off, stops or is started anew: work runs once, and has one result."""

import asyncio
import os
import re
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from e2e.cli_session import Session
from e2e.embedded import Plane, plane, step_of

from flexcore.model.ids import ExecutionId, StepPath
from flexcore.testing.command import Running, Site, until

TOKEN = "a-token-only-for-these-tests"
PATIENCE_S = 60.0
SERVED = "runtimes:\n  local: {type: local}\n"
# Five seconds until a server that froze or was cut off is noticed; less would be too little for a busy machine.
USING = """\
runtimes:
  local: {{type: local}}
  far: {{type: remote, address: "{address}", token_file: token, keepalive: 1, keepalive_timeout: 2,
        connect_timeout: 2, reconnects: 1}}
"""
WORK = """\
name: far_away
steps:
  - id: work
    type: bash
    runtime: far
    with:
      script: 'test -s tasks.py; echo begun >> "$1/begun"; until [ -e "$1/go" ]; do sleep 0.02; done; echo 7'
      args: ["SEEN"]
output: ${{ results.work }}
"""


@dataclass
class Served:
    """`flexcore runtime serve`, and what can happen to it."""

    folder: Path
    running: Running
    address: str

    def freeze(self) -> None:
        os.kill(self.running.process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        os.kill(self.running.process.pid, signal.SIGCONT)


@contextmanager
def served(folder: Path, *options: str, listen: str = "127.0.0.1:0") -> Iterator[Served]:
    folder.mkdir(exist_ok=True)
    (folder / "flexcore.yaml").write_text(SERVED)
    token(folder)
    running = Site(folder).start("runtime", "serve", "local", "--listen", listen, "--token-file", "token", *options)
    try:
        yield Served(folder, running, until(lambda: listening(running), "the server listens", PATIENCE_S))
    finally:
        if running.process.poll() is None:
            os.kill(running.process.pid, signal.SIGCONT)
            running.process.terminate()
            assert running.ended(PATIENCE_S).code == 0


def token(folder: Path) -> None:
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)


def listening(running: Running) -> str | None:
    found = re.search(r"runtime local on (\S+?)[, ]", running.err.read_text())
    return found[1] if found else None


@dataclass
class Proxy:
    """A way to the server that can swallow what goes either way, as a firewall that drops packets does."""

    target: str
    swallows_requests: bool = False
    swallows_answers: bool = False
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, _, port = self.target.partition(":")
        there, back = await asyncio.open_connection(host, int(port))
        ways = [(reader, back, lambda: self.swallows_requests), (there, writer, lambda: self.swallows_answers)]
        for source, sink, swallows in ways:
            self.tasks.add(asyncio.create_task(self.pass_on(source, sink, swallows)))

    async def pass_on(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, swallows: Callable[[], bool]
    ) -> None:
        try:
            while data := await source.read(1 << 16):
                if not swallows():
                    sink.write(data)
                    await sink.drain()
        except ConnectionError:
            pass
        finally:
            sink.close()


@asynccontextmanager
async def proxy(target: str) -> AsyncIterator[tuple[Proxy, str]]:
    between = Proxy(target)
    server = await asyncio.start_server(between.connect, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    try:
        yield between, f"{host}:{port}"
    finally:
        server.close()
        for task in between.tasks:
            task.cancel()
        await asyncio.gather(*between.tasks, return_exceptions=True)


@asynccontextmanager
async def control_plane(folder: Path, address: str) -> AsyncIterator[Plane]:
    folder.mkdir(exist_ok=True)
    (folder / "flexcore.yaml").write_text(USING.format(address=address))
    token(folder)
    before = Path.cwd()
    os.chdir(folder)  # where `token_file` is looked for
    try:
        async with plane(folder) as opened:
            yield opened
    finally:
        os.chdir(before)


async def begin(opened: Plane, seen: Path) -> ExecutionId:
    seen.mkdir(exist_ok=True)
    id = await opened.start(WORK.replace("SEEN", str(seen)))
    await eventually(lambda: begun(seen) == 1, "the work begins")
    return id


def begun(seen: Path) -> int:
    return len((seen / "begun").read_text().splitlines()) if (seen / "begun").exists() else 0


async def postponed(opened: Plane, id: ExecutionId) -> bool:
    state = (await opened.installation.store.reader.execution(id)).state
    return state.steps[StepPath("work")].spent.get("postponed", 0) > 0


async def eventually(look: Callable[[], Any], what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE_S):
            while True:
                found = look()
                if await found if isinstance(found, Awaitable) else found:
                    return
                await asyncio.sleep(0.02)
    except TimeoutError as error:
        raise AssertionError(f"not within {PATIENCE_S:g} s: {what}") from error


async def one_result(opened: Plane, id: ExecutionId, seen: Path) -> None:
    async with asyncio.timeout(PATIENCE_S):
        document = await opened.finish(id)
    assert (document["status"], document["output"]) == ("succeeded", 7), document
    assert step_of(document, "work")["attempt"] == 1
    assert begun(seen) == 1


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("there")) as server:
        yield server
        server.thaw()


async def test_a_frozen_server_keeps_the_engine_waiting_and_has_one_result(server: Served, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    async with control_plane(tmp_path / "here", server.address) as opened:
        id = await begin(opened, seen)
        server.freeze()
        (seen / "go").touch()  # work ends while nobody can be told

        await eventually(lambda: postponed(opened, id), "the engine notices")

        assert (await opened.installation.control_plane.execution(id))["status"] == "running"
        server.thaw()
        await one_result(opened, id, seen)


@pytest.mark.parametrize("ways", [("requests", "answers"), ("answers",), ("requests",)], ids=["both", "back", "there"])
async def test_a_network_that_drops_bytes_doubles_nothing(
    server: Served, tmp_path: Path, ways: tuple[str, ...]
) -> None:
    seen = tmp_path / "seen"
    async with proxy(server.address) as (between, address), control_plane(tmp_path / "here", address) as opened:
        id = await begin(opened, seen)
        for each in ways:
            setattr(between, f"swallows_{each}", True)

        await eventually(lambda: postponed(opened, id), "the engine notices")

        (seen / "go").touch()
        between.swallows_requests = between.swallows_answers = False
        await one_result(opened, id, seen)


async def test_work_outlives_the_server_and_is_found_by_the_next_one(tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    with served(tmp_path / "there") as server:
        async with control_plane(tmp_path / "here", server.address) as opened:
            id = await begin(opened, seen)
            server.running.kill(group=False)
            (seen / "go").touch()

            with served(tmp_path / "there", listen=server.address):
                await one_result(opened, id, seen)


async def test_a_step_that_is_given_up_while_its_server_is_frozen_is_ended_once_it_thaws(
    server: Served, tmp_path: Path
) -> None:
    seen = tmp_path / "seen"
    async with control_plane(tmp_path / "here", server.address) as opened:
        id = await begin(opened, seen)
        server.freeze()
        await eventually(lambda: postponed(opened, id), "the engine notices")
        await opened.installation.control_plane.cancel(id)
        server.thaw()

        async with asyncio.timeout(PATIENCE_S):
            document = await opened.finish(id)

        assert document["status"] == "cancelled"
        attempts = server.folder / ".flexcore" / "served" / "local" / "installations"
        await eventually(lambda: not list(attempts.glob("*/runtime/attempts/fx-*")), "nothing is left there")


def test_what_keeps_callers_out_is_said_in_sentences(server: Served, tmp_path: Path) -> None:
    (tmp_path / "here").mkdir()
    session = Session(tmp_path / "here", {"FLEXCORE_HOME": str(tmp_path / "here" / "home")})
    settings = [f"{name}: {{type: remote, {keys}}}" for name, keys in entrances(server.address).items()]
    session.write("flexcore.yaml", "runtimes:\n" + "".join(f"  {each}\n" for each in settings))

    found = {each["name"]: each["reason"] for each in session.json("runtime", "health")}

    assert "does not accept our token" in found["token"]
    assert "name cannot be found" in found["name"]
    assert "nobody listens there" in found["port"]
    assert "no encrypted connection comes about" in found["tls"] or "wants TLS" in found["tls"]
    assert "processes at a time" in found["right"]


def entrances(address: str) -> dict[str, str]:
    return {
        "right": f'address: "{address}", token: {TOKEN}',
        "token": f'address: "{address}", token: another-token-than-theirs',
        "name": f'address: "no-such-host.invalid:9191", token: {TOKEN}, tls: true',
        "port": f'address: "127.0.0.1:9", token: {TOKEN}',
        "tls": f'address: "{address}", token: {TOKEN}, tls: true',
    }


def test_nobody_serves_beyond_this_machine_without_tls(tmp_path: Path) -> None:
    session = Session(tmp_path, {"FLEXCORE_HOME": str(tmp_path / "home")})
    session.write("flexcore.yaml", SERVED)

    done = session("runtime", "serve", "local", "--listen", "0.0.0.0:0")

    assert done.code == 5
    assert "without TLS" in done.err
