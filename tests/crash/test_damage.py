"""What the machine can do to a store: a full disk, a folder that cannot be written, files that are not what they were.

Some of it needs a file system of its own, and with it the right to mount one: without that right it is not run.
"""

import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flexcore.testing import auditor
from flexcore.testing.command import Done, Running, Site, until

SMALL = "name: small\nsteps:\n  - {id: one, type: bash, with: {script: 'echo 1'}}\n"
# Waits between making a large value and reading it, until the test lets it go on.
LARGE = """
name: large
inputs: {type: object, properties: {folder: {type: string}}}
steps:
  - {id: large, type: transform, with: {value: "${{ 'x'.repeat(300000) }}"}}
  - id: pause
    type: bash
    with:
      script: 'echo "$FLEXCORE_TOKEN" >> "$MARKED/effects"; while [ ! -e "$MARKED/go" ]; do sleep 0.05; done'
      env: {MARKED: "${{ input.folder }}"}
  - {id: size, type: transform, with: {value: "${{ results.large.length }}"}}
output: ${{ results.size }}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "small.yaml").write_text(SMALL)
    (folder / "large.yaml").write_text(LARGE)
    yield Site(folder)
    for pid in auditor.processes_of(folder):  # only what this very test has started can name its folder
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


@pytest.fixture
def small_disk(site: Site) -> Iterator[Path]:
    """The store's folder on a file system of 6 MiB."""
    disk = site.folder / ".flexcore"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=6m", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"not run: no file system can be mounted here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "--lazy", str(disk)], check=True)


def assert_unreachable(done: Done, *words: str) -> None:
    """It exits with 3 and tells a person what is wrong, not which line of ours noticed it."""
    assert done.code == 3, done
    assert "Traceback" not in done.err
    assert "internal error" not in done.err
    assert "hint: " in done.err
    for word in words:
        assert word in done.err, done.err


def pausing(site: Site) -> Running:
    """Execute until the middle step waits, known to the store."""
    running = site.start("--output", "json", "workflow", "execute", "large", "-p", f"folder={site.folder}")
    until(lambda: any(told.entries("StepSubmitted") for told in auditor.executions(site.database)), "it pauses")
    until(lambda: (site.folder / "effects").exists(), "the step has begun")
    return running


def felt(site: Site, running: Running) -> bool:
    """Say whether the full disk was noticed: by the engine, or by the shim that has an end to write down."""
    return "store.unavailable" in running.err.read_text() or bool(list(site.folder.rglob("status.new")))


def fill(disk: Path) -> Path:
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 16, 1 << 12, 1):
            try:
                while file.write(b"x" * size):
                    pass
            except OSError:
                continue
    return ballast


def test_a_disk_that_is_full_for_a_while_delays_and_loses_nothing(site: Site, small_disk: Path) -> None:
    running = pausing(site)
    ballast = fill(small_disk)
    (site.folder / "go").touch()

    until(lambda: felt(site, running), "something cannot be written", 20)
    still_there = running.process.poll() is None
    ballast.unlink()
    done = running.ended()

    assert still_there
    assert done.code == 0, done.err
    assert done.document["output"] == 300000
    assert (site.folder / "effects").read_text().split() == ["1"]
    assert list(auditor.store_problems(auditor.executions(site.database))) == []
    assert site.run("verify").code == 0


def test_a_kill_while_the_disk_is_full_loses_nothing(site: Site, small_disk: Path) -> None:
    running = pausing(site)
    ballast = fill(small_disk)
    (site.folder / "go").touch()
    until(lambda: felt(site, running), "something cannot be written", 20)

    running.kill(group=True)
    refused = site.run("workflow", "resume")
    ballast.unlink()
    done = site.run("--output", "json", "workflow", "resume")

    assert_unreachable(refused)
    assert done.code == 0, done.err
    assert done.document[0]["output"] == 300000
    assert (site.folder / "effects").read_text().split() == ["1"]
    assert site.run("verify").code == 0


def test_a_full_disk_refuses_a_new_execution_clearly(site: Site, small_disk: Path) -> None:
    assert site.run("workflow", "execute", "small").code == 0
    fill(small_disk)

    assert_unreachable(site.run("workflow", "execute", "small"), "disk")


def test_a_store_that_cannot_be_written_is_refused_clearly(site: Site, small_disk: Path) -> None:
    assert site.run("workflow", "execute", "small").code == 0
    subprocess.run(["mount", "-o", "remount,ro", str(small_disk)], check=True)

    assert_unreachable(site.run("workflow", "execute", "small"))
    assert_unreachable(site.run("execution", "list"))


def test_a_folder_in_which_no_store_can_be_made_is_refused_clearly(site: Site) -> None:
    (site.folder / ".flexcore").write_text("a file where a folder should be")

    assert_unreachable(site.run("workflow", "execute", "small"), ".flexcore")


@pytest.mark.parametrize("content", [b"this is no database" * 1000, os.urandom(50_000)])
def test_garbage_in_place_of_the_database_is_refused_clearly(site: Site, content: bytes) -> None:
    site.database.parent.mkdir()
    site.database.write_bytes(content)

    for command in (("workflow", "execute", "small"), ("workflow", "resume"), ("verify",), ("execution", "list")):
        assert_unreachable(site.run(*command), "flexcore.db")
    assert site.database.read_bytes() == content


def test_a_database_that_lost_its_pages_is_refused_or_named(site: Site) -> None:
    assert site.run("workflow", "execute", "small").code == 0
    whole = site.database.read_bytes()
    site.database.write_bytes(whole[:4096] + b"\xff" * 8192 + whole[12288:])

    verified = site.run("verify")

    assert verified.code in (1, 3), verified
    assert "internal error" not in verified.err
    assert "damaged" in verified.out + verified.err


def test_a_damaged_artifact_fails_the_step_that_reads_it_by_name(site: Site) -> None:
    running = pausing(site)
    (artifact,) = [
        file for file in (site.folder / ".flexcore" / "artifacts").rglob("sha256-*") if file.stat().st_size > 299_999
    ]
    running.kill(group=True)
    artifact.write_bytes(artifact.read_bytes().replace(b"xx", b"xy", 1))
    (site.folder / "go").touch()

    done = site.run("--output", "json", "workflow", "resume")

    assert done.code == 1, done.err
    (document,) = done.document
    assert document["status"] == "failed"
    assert "damaged" in document["error"]["message"], document["error"]
    assert "this is a bug" not in document["error"]["hint"]
    assert list(auditor.store_problems(auditor.executions(site.database))) == []
    assert "damaged" in site.run("verify").out
