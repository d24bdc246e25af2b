"""A served runtime that freezes, is cut off, stops or is started anew: work runs once, and has one result."""

import asyncio
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from e2e.cli_session import Session
from e2e.embedded import Plane, plane, step_of
from e2e.remote_site import PATIENCE_S, SERVED, TOKEN, Served, served, write_token

from flexcore.model.ids import ExecutionId, StepPath
from flexcore.testing.network import proxy

# Six seconds until a server that froze or was cut off is noticed; less would be too little for a busy machine.
USING = """\
runtimes:
  local: {{type: local}}
  far: {{type: remote, address: "{address}", token_file: token, keepalive: 1, keepalive_timeout: 3,
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


@asynccontextmanager
async def control_plane(folder: Path, address: str) -> AsyncIterator[Plane]:
    folder.mkdir(exist_ok=True)
    (folder / "flexcore.yaml").write_text(USING.format(address=address))
    write_token(folder)
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


def kept_there(server: Served, opened: Plane) -> Path:
    """Find what the server keeps for this installation: others may have left something."""
    folder = server.folder / ".flexcore" / "served" / "local" / "installations" / opened.installation.store.installation
    assert folder.is_dir()
    return folder


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


async def test_only_the_files_of_the_version_travel(server: Served, tmp_path: Path) -> None:
    step = "{id: work, type: bash, runtime: far, with: {script: 'ls -A; find . -name token'}}"
    async with control_plane(tmp_path / "here", server.address) as opened:
        document = await opened.execute(f"name: looks\nsteps: [{step}]\noutput: ${{{{ results.work.stdout }}}}")

    assert (tmp_path / "here" / "token").exists() and (tmp_path / "here" / ".flexcore").exists()
    assert document["output"] == "tasks.py\n"


async def test_a_step_that_the_runtime_there_refuses_leaves_no_files(server: Served, tmp_path: Path) -> None:
    step = '{id: work, type: bash, runtime: far, with: {script: exit, inputs: {rows: {from: "${{ input }}"}}}}'
    gone = {"uri": f"artifact:sha256-{'0' * 64}", "format": "csv"}
    async with control_plane(tmp_path / "here", server.address) as opened:
        document = await opened.execute(f"name: refused\nsteps: [{step}]", gone)

    assert "cannot be had: the store has no" in step_of(document, "work")["error"]["message"]
    there = kept_there(server, opened)
    await eventually(lambda: not list(there.glob("work/*")), "nothing is left there")


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
        there = kept_there(server, opened)
        await eventually(lambda: not list(there.glob("runtime/attempts/fx-*")), "nothing is left there")


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
    assert "its token_file /nonexistent cannot be read: No such file" in found["file"]
    assert "processes at a time" in found["right"]


def entrances(address: str) -> dict[str, str]:
    return {
        "right": f'address: "{address}", token: {TOKEN}',
        "token": f'address: "{address}", token: another-token-than-theirs',
        "file": f'address: "{address}", token_file: /nonexistent',
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
