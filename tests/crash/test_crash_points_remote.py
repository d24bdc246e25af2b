"""The control plane dies at every moment of an attempt that runs behind `flexcore runtime serve`."""

import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from crash.crash_points import Crasher, Ground, cases
from crash.crashing_child import Moment

from flexcore.testing.runtime_processes import BashHarness, Subject

TOKEN = "a-token-that-is-long-enough-for-the-tests"


@dataclass
class Server:
    """A runtime served by a process of its own, and the folder in which it keeps everything."""

    address: str
    folder: Path


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)
    command = [str(Path(sys.executable).with_name("flexcore")), "runtime", "serve", "local"]
    command += ["--listen", "127.0.0.1:0", "--token-file", "token"]
    with subprocess.Popen(command, cwd=folder, env=os.environ, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        line = process.stderr.readline()
        try:
            yield Server(line.split(" on ")[1].split(",")[0].strip(), folder)
        finally:
            process.terminate()


def ground(crashes: Crasher, folder: Path, server: Server) -> Ground:
    subject = Subject.of("local", folder / "world", folder / "shared")
    far = {"type": "remote", "address": server.address, "token": TOKEN}

    async def listing() -> list[str]:
        """Name the attempts' folders of the server."""
        return [each.name for each in server.folder.rglob("fx-*") if each.is_dir()]

    return Ground(
        harness=BashHarness(subject), folder=folder / "plane", runtime="far", runtimes={"far": far},
        listing=listing, crasher=crashes, seconds=0.3,
    )  # fmt: skip


@pytest.mark.parametrize(("moment", "seed"), cases())
async def test_nothing_is_lost_doubled_or_orphaned(
    crashes: Crasher, tmp_path: Path, server: Server, moment: Moment, seed: int
) -> None:
    await ground(crashes, tmp_path, server).crash_and_judge(moment, seed)
