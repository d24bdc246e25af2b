"""The program of a step far away, as processes: endings, signals, limits, packages, data over HTTP, and its manners."""

import asyncio
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import psutil
import pytest
from far_steps import Far, Running
from local_steps import eventually
from package_index import PackageIndex

from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass
from flexcore.model.values import Ref, digest
from flexcore.runtime.plugin import Link, Offer
from flexcore.runtime.portable.delivery import to_file, to_termination_message
from flexcore.runtime.portable.program import Limits
from flexcore.testing.factories import MemoryArtifacts

TREE = "trap 'echo told; exit 7' TERM; (trap '' TERM; sleep 60) & echo ready; sleep 60 & wait"


@pytest.fixture
def far(tmp_path: Path) -> Far:
    return Far(tmp_path)


async def begun(running: Running, word: bytes = b"ready") -> None:
    await running.order()
    assert running.process.stdout is not None
    assert await running.process.stdout.readline() == word + b"\n"


def processes_below(pid: int) -> list[psutil.Process]:
    return psutil.Process(pid).children(recursive=True)


async def test_a_result_of_many_megabytes_comes_through_the_log_in_short_lines(far: Far) -> None:
    ended = await far.run("python", {"script": "def main():\n    print('before')\n    return 'x' * 12_000_000"})

    assert ended.output == "x" * 12_000_000
    assert ended.log == b"before\n"
    assert max(map(len, ended.raw.splitlines(keepends=True))) <= 16 << 10


async def test_a_result_above_the_limit_is_a_failure(far: Far) -> None:
    far.limits = Limits(result_bytes=100)

    ended = await far.run("python", {"script": "def main():\n    return 'x' * 200"})

    assert (ended.failure.name, ended.failure.message) == ("ResultTooLarge", "the result has 202 bytes, more than 100")


async def test_a_script_of_another_kind_of_step_has_the_result_of_a_script(far: Far) -> None:
    lines = await far.run("ray", {"script": "echo first; echo '{\"a\": 1}'"})
    text = await far.run("ray", {"script": "echo hello"})

    assert lines.output == {"a": 1}
    assert text.output == {"stdout": "hello\n", "exit_code": 0}


async def test_an_ending_goes_into_a_file_whatever_its_size(far: Far, tmp_path: Path) -> None:
    far.delivery = to_file(str(tmp_path / "ending"))

    ended = await far.run("bash", {"script": "echo out; echo err >&2; echo '[1]' > $FLEXCORE_RESULT"})

    assert ended.output == [1]
    assert (ended.raw, ended.errors) == (b"out\n", b"err\n")


@pytest.mark.parametrize(("size", "where"), [(100, "file"), (5000, "log")])
async def test_a_termination_message_holds_what_fits(far: Far, tmp_path: Path, size: int, where: str) -> None:
    message = tmp_path / "termination"
    message.touch()
    running = await far.start("bash", {"script": "true"})
    running.process.kill()
    await running.process.wait()
    far.delivery = to_termination_message(str(message), mark="the-mark")

    running = await far.start("python", {"script": "def main(n):\n    return 'x' * n", "args": {"n": size}})
    running.mark = "the-mark"
    ended = await running.ended()

    assert ended.output == "x" * size
    assert bool(message.read_bytes()) == (where == "file")
    assert (b"the-mark" in ended.raw) == (where == "log")


async def test_term_is_passed_on_and_the_whole_tree_ends(far: Far) -> None:
    far.grace = timedelta(seconds=2)
    running = await far.start("bash", {"script": TREE})
    await begun(running)
    await eventually(lambda: len(processes_below(running.process.pid)) >= 3)  # the script, and both that it starts
    below = processes_below(running.process.pid)

    running.process.terminate()
    ended = await running.ended()

    assert ended.code == 143
    assert ended.log == b"told\n"
    assert ended.ending is not None
    assert ended.ending.outcome is None
    assert not [each for each in below if each.is_running() and each.status() != psutil.STATUS_ZOMBIE]


async def test_what_a_step_leaves_running_ends_with_it(far: Far) -> None:
    ended = await far.run("bash", {"script": 'setsid sleep 60 & echo "[$!]"'})

    assert not psutil.pid_exists(ended.output[0])


async def test_the_step_dies_with_the_program(far: Far) -> None:
    running = await far.start("bash", {"script": "echo ready; exec sleep 60"})
    await begun(running)
    [step] = processes_below(running.process.pid)

    running.process.kill()
    await running.process.wait()

    await eventually(lambda: not step.is_running() or step.status() == psutil.STATUS_ZOMBIE)


async def test_the_time_limit_is_kept(far: Far) -> None:
    far.limits, far.grace = Limits(time=timedelta(seconds=0.3)), timedelta(seconds=0.2)

    ended = await far.run("bash", {"script": "trap '' TERM; while :; do sleep 0.1; done"})

    assert (ended.code, ended.failure.error_class) == (124, ErrorClass.TIMEOUT)


async def test_the_memory_limit_is_kept(far: Far) -> None:
    far.limits = Limits(memory=60 << 20)

    ended = await far.run(
        "python", {"script": "import time\ndef main():\n    x = b'x' * (200 << 20)\n    time.sleep(30)"}
    )

    assert ended.failure.error_class is ErrorClass.OOM
    assert "more memory than its limit" in ended.failure.message


async def test_usage_and_phases_are_told(far: Far) -> None:
    ended = await far.run("python", {"script": "def main():\n    x = b'x' * (50 << 20)\n    sum(range(500_000))"})

    assert ended.result.usage.cpu_s is not None
    assert ended.result.usage.cpu_s > 0.01
    assert ended.result.usage.peak_memory_bytes is not None
    assert ended.result.usage.peak_memory_bytes > 50 << 20
    assert set(ended.result.phases) == {Phase.START, Phase.RUN}


async def test_an_order_in_a_file_is_removed_once_read(far: Far, tmp_path: Path) -> None:
    order = tmp_path / "order.json"
    running = await far.start("bash", {"script": "true"})
    running.process.kill()
    await running.process.wait()
    order.write_bytes(running.program.order)

    done = await asyncio.create_subprocess_exec(
        *running.program.command,
        cwd=far.place / "far1",
        env={**far.env, "FLEXCORE_ORDER": str(order)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
    )
    await done.communicate()

    assert done.returncode == 0
    assert not order.exists()


async def test_secrets_are_in_no_argument_and_no_file(far: Far, tmp_path: Path) -> None:
    far.installer = {"UV_INDEX_NAME_PASSWORD": "hunter3"}
    step = {
        "script": "echo ready; sleep 60",
        "args": ["hunter2"],
        "env": {"KEY": "hunter2"},
    }
    running = await far.start("bash", step)
    await begun(running)
    everybody = [psutil.Process(running.process.pid), *processes_below(running.process.pid)]
    arguments = [word for each in everybody for word in each.cmdline()]
    contents = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]

    running.process.terminate()
    await running.ended()

    assert not [word for word in arguments if "hunter" in word]
    assert not [content for content in contents if b"hunter" in content]


async def test_nothing_of_the_program_stays_or_is_seen(far: Far, tmp_path: Path) -> None:
    far.env = {**far.env, "FLEXCORE_ORDER": "-", "HOME": "/home"}
    far.installer = {"UV_INDEX_URL": "secret"}
    script = (
        "import os, sys\ndef main():\n    return [dict(os.environ), sys.path, os.listdir(), 'flexcore' in sys.modules]"
    )

    ended = await far.run("python", {"script": script})
    environ, path, listed, has_flexcore = ended.output

    assert environ["HOME"] == "/home"
    assert {"FLEXCORE_ORDER", "UV_INDEX_URL"}.isdisjoint(environ)
    assert not [each for each in path if each.endswith(("flexcore_far", "far1"))]
    assert listed == []
    assert has_flexcore is False
    assert sorted(each.name for each in tmp_path.iterdir()) == ["far-workflow", "place"]


async def test_what_a_killed_program_leaves_goes_with_the_next_and_what_lives_stays(far: Far, tmp_path: Path) -> None:
    waiting = {"script": "echo ready; read -r _ < ../../gate || true"}
    os.mkfifo(tmp_path / "gate")
    killed = await far.start("bash", waiting)
    await begun(killed)
    [left] = tmp_path.glob("flexcore-step-*")
    below = processes_below(killed.process.pid)
    killed.process.kill()
    await killed.process.wait()
    for each in below:
        with suppress(psutil.NoSuchProcess):
            each.kill()

    lives = await far.start("bash", waiting)
    await begun(lives)
    went = not left.exists()
    await far.run("bash", {"script": "true"})
    [kept] = tmp_path.glob("flexcore-step-*")
    (tmp_path / "gate").write_text("go on\n")
    ended = await lives.ended()

    assert went
    assert (kept != left, ended.code) == (True, 0)
    assert not list(tmp_path.glob("flexcore-step-*"))


async def test_steps_at_the_same_place_do_not_meet_in_their_files(far: Far) -> None:
    (far.workflow / "shared.txt").write_text("as shipped")
    step = {"script": "echo changed > shared.txt; cat shared.txt | tail -c 8", "files": ["shared.txt"]}

    first = await far.run("bash", step)
    second = await far.run("bash", {**step, "script": "cat shared.txt"})

    assert (first.output["stdout"], second.output["stdout"]) == ("changed\n", "as shipped")
    assert (far.workflow / "shared.txt").read_text() == "as shipped"


def older_python() -> str | None:
    """Find one that runs; what stands on the path may be a name that pyenv knows, and no more."""
    for version in ("3.8", "3.9", "3.10"):
        name = f"python{version}"
        found = shutil.which(name)
        kept = sorted(Path(found).parents[1].glob(f"versions/{version}*/bin/{name}")) if found else []
        for each in [*map(str, kept), *([found] if found else [])]:
            if subprocess.run([each, "-c", ""], capture_output=True, check=False).returncode == 0:
                return each
    return None


async def test_an_old_python_runs_it(far: Far) -> None:
    python = older_python()
    if python is None:
        pytest.skip("there is no older Python on this machine")
    far.python = python

    ran = await far.run("python", {"script": "import sys\ndef main():\n    return sys.version_info[:2] < (3, 11)"})
    failed = await far.run("bash", {"script": "exit 3"})

    assert ran.output is True
    assert failed.failure.name == "exit 3"


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    index = PackageIndex("", tmp_path)
    index.add("tiny", requires="smaller")
    index.add("smaller", version="2.5")
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, content in index.wheels.items():
        (folder / name).write_bytes(content)
    return folder


WITH_PACKAGES = "import tiny, smaller\ndef main():\n    return [tiny.VERSION, smaller.VERSION]"


@pytest.mark.parametrize("installer", ["uv", "pip"])
async def test_packages_come_from_a_folder_without_a_network(
    far: Far, wheels: Path, tmp_path: Path, installer: str
) -> None:
    if installer == "pip":
        far.python, far.env = str(Path(sys.base_prefix) / "bin" / "python3"), {**far.env, "PATH": str(tmp_path)}
    else:
        far.env = {**far.env, "PATH": f"{Path(far.python).parent}:{far.env['PATH']}"}
    far.env = {**far.env, "FLEXCORE_WHEELS": str(wheels), "UV_CACHE_DIR": str(tmp_path / "cache")}
    far.limits = Limits(time=timedelta(seconds=20))

    ended = await far.run("python", {"script": WITH_PACKAGES, "packages": ["tiny"]})
    assert ended.output == ["1.0", "2.5"]
    assert ended.result.phases[Phase.START] > timedelta(0)
    assert b"flexcore: building an environment with tiny" in ended.log


async def _bare_python(folder: Path) -> str:
    """Give an interpreter with nothing beside it."""
    base = Path(sys.base_prefix) / "bin" / "python3"
    made = await asyncio.create_subprocess_exec(str(base), "-m", "venv", "--without-pip", str(folder / "bare"))
    assert await made.wait() == 0
    return str(folder / "bare" / "bin" / "python")


async def test_a_bash_step_finds_the_programs_of_its_packages(far: Far, wheels: Path, tmp_path: Path) -> None:
    far.env = {**far.env, "FLEXCORE_WHEELS": str(wheels), "UV_CACHE_DIR": str(tmp_path / "cache")}

    ended = await far.run("bash", {"script": "tiny; which tiny >&2", "packages": ["tiny==1.0"]})

    assert ended.output["stdout"] == "tiny 1.0\n"


async def test_packages_that_do_not_exist_are_the_users_failure(far: Far, wheels: Path, tmp_path: Path) -> None:
    far.env = {**far.env, "FLEXCORE_WHEELS": str(wheels), "UV_CACHE_DIR": str(tmp_path / "cache")}

    ended = await far.run("python", {"script": WITH_PACKAGES, "packages": ["nowhere"]})

    assert (ended.code, ended.failure.error_class, ended.failure.name) == (1, ErrorClass.USER, "NoSuchPackage")
    assert "nowhere" in ended.failure.message


async def test_building_has_a_limit_of_its_own(far: Far, wheels: Path) -> None:
    far.env = {**far.env, "FLEXCORE_WHEELS": str(wheels)}
    far.limits = Limits(packages=timedelta(0))

    ended = await far.run("python", {"script": WITH_PACKAGES, "packages": ["tiny"]})

    assert (ended.failure.error_class, ended.failure.name) == (ErrorClass.DEPENDENCY, "EnvironmentTimeout")


class Store(MemoryArtifacts):
    """An object store on loopback whose links are addresses that work without credentials."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, bytes] = {}
        self.refused = 0  # so many times yet
        self.asked: list[str] = []
        store = self

        class Answer(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                store.asked.append("GET")
                content = store.held.get(self.path)
                if store.refused:
                    store.refused -= 1
                    self.send_error(503)
                    return
                if content is None or self.headers["X-Allowed"] != "yes":
                    self.send_error(403)
                    return
                self.send_response(200)
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_PUT(self) -> None:
                store.asked.append("PUT")
                store.held[self.path] = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Answer)
        self.address = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    async def link(self, ref: Ref, valid: timedelta) -> Link:
        return Link(f"{self.address}/{ref.uri}?signature=hunter2", {"X-Allowed": "yes"})

    async def offer(self, name: str, valid: timedelta) -> Offer:
        return Offer("artifact:made-1", Link(f"{self.address}/made?signature=hunter2"))


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store()
    yield store
    store.server.shutdown()
    store.server.server_close()


def reads_and_writes(content: bytes) -> dict[str, object]:
    reference = {"uri": "artifact:orders", "format": "bin", "bytes": len(content), "checksum": digest(content)}
    return {
        "script": "cat $INPUT_ORDERS $INPUT_ORDERS > twice; echo '{}'",
        "inputs": {"orders": {"from": reference}},
        "outputs": {"twice": {"path": "twice", "format": "bin"}},
    }


async def test_data_comes_and_goes_over_http(far: Far, store: Store) -> None:
    content = os.urandom(3 << 20)
    store.held["/artifact:orders?signature=hunter2"] = content
    store.refused = 1
    far.artifacts = store

    ended = await far.run("bash", reads_and_writes(content))

    assert store.held["/made?signature=hunter2"] == content * 2
    assert ended.output["twice"]["checksum"] == digest(content * 2)
    assert (ended.result.usage.bytes_in, ended.result.usage.bytes_out) == (3 << 20, 6 << 20)
    assert {Phase.TRANSFER_IN, Phase.TRANSFER_OUT} < set(ended.result.phases)
    assert [ref.uri for ref in ended.result.artifacts] == ["artifact:made-1"]
    assert store.asked == ["GET", "GET", "PUT"]


async def test_data_that_is_refused_fails_the_step_without_telling_the_link(far: Far, store: Store) -> None:
    far.artifacts = store

    ended = await far.run("bash", reads_and_writes(b"x"))

    assert (ended.failure.error_class, ended.code) == (ErrorClass.DEPENDENCY, 1)
    assert ended.failure.message == "input 'orders' cannot be fetched: the store answered 403 Forbidden"
    assert b"hunter2" not in ended.raw + ended.errors


async def test_term_while_packages_are_built_ends_it(far: Far, tmp_path: Path) -> None:
    fake = tmp_path / "bin"
    fake.mkdir()
    (fake / "uv").write_text("#!/bin/sh\necho ready\nexec sleep 60\n")
    (fake / "uv").chmod(0o755)
    far.python = await _bare_python(tmp_path)
    far.env = {**far.env, "PATH": f"{fake}:{far.env['PATH']}"}
    running = await far.start("python", {"script": WITH_PACKAGES, "packages": ["tiny"]})
    await begun(running, b"flexcore: building an environment with tiny")
    assert running.process.stdout is not None
    assert await running.process.stdout.readline() == b"ready\n"

    running.process.send_signal(signal.SIGTERM)
    ended = await running.ended()

    assert (ended.code, ended.ending and ended.ending.outcome) == (143, None)
