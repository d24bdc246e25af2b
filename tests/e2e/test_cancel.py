"""Ctrl-C leaves the work running and says how to go on; the next process finds it again instead of starting it."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from flexcore.testing import auditor
from flexcore.testing.command import Site, until

WORKFLOW = """
name: long
inputs: {type: object, properties: {folder: {type: string}}}
steps:
  - id: work
    type: bash
    timeout: 5m
    with:
      script: 'echo "$FLEXCORE_TOKEN" >> "$MARKED/effects"; while [ ! -e "$MARKED/go" ]; do sleep 0.05; done; echo over'
      env: {MARKED: "${{ input.folder }}"}
  - {id: after, type: transform, with: {value: done}}
"""

DEAF = """
import asyncio
from flexcore.cli.session import run

async def work():
    print("works", flush=True)
    while True:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            print("goes on", flush=True)

run(work)
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "long.yaml").write_text(WORKFLOW)
    yield Site(folder)
    for pid in auditor.processes_of(folder):  # only what this very test has started can name its folder
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def begun(site: Site) -> Path:
    effects = site.folder / "effects"
    return until(lambda: effects.exists() and effects.read_text() and effects, "the step has begun")


def submitted(site: Site) -> str:
    """Wait until the store knows where the work is; give the execution."""
    begun(site)
    found = until(
        lambda: [told.id for told in auditor.executions(site.database) if told.entries("StepSubmitted")],
        "the work is known to the store",
    )
    return found[0]


def bashes(site: Site) -> list[str]:
    return [command for command in auditor.processes_of(site.folder).values() if command.startswith("bash")]


def on_a_terminal(site: Site) -> tuple["subprocess.Popen[bytes]", int]:
    """Execute with a terminal of its own; what is typed there reaches the process as a person's keys would."""
    ours, theirs = pty.openpty()
    command = [str(Path(sys.executable).with_name("flexcore")), "workflow", "execute", "long", "-p"]
    process = subprocess.Popen(
        [*command, f"folder={site.folder}"],
        cwd=site.folder,
        env={**os.environ, "TERM": "xterm", "COLUMNS": "150", "LINES": "40"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=_own_terminal,
    )
    os.close(theirs)
    return process, ours


def _own_terminal() -> None:
    import fcntl
    import termios

    os.setsid()
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)


def shown_at_the_end(terminal: int) -> str:
    """Read everything that was written to a terminal, until its process has left it."""
    parts = []
    with suppress(OSError):  # that is how a terminal without a process ends
        while part := os.read(terminal, 1 << 16):
            parts.append(part)
    os.close(terminal)
    return b"".join(parts).decode(errors="replace")


def resumed(site: Site) -> Any:
    """Let the work end, resume, give the execution's document."""
    running = site.start("--output", "json", "workflow", "resume")
    until(lambda: auditor.executions(site.database)[0].adoptions, "the work was found again")
    (site.folder / "go").touch()
    done = running.ended()
    assert done.code == 0, done.err
    return done.document[0]


def assert_adopted(site: Site, document: Any) -> None:
    work = next(step for step in document["steps"] if step["path"] == "work")
    assert document["status"] == "succeeded"
    assert (work["attempt"], work["adoptions"]) == (1, 1)
    assert (site.folder / "effects").read_text().split() == ["1"]
    assert "over" in site.run("workflow", "logs", document["id"], "work").out
    assert list(auditor.store_problems(auditor.executions(site.database))) == []
    until(lambda: not auditor.processes_of(site.folder), "no process is left")


def test_ctrl_c_on_a_terminal_detaches_and_resume_adopts(site: Site) -> None:
    process, terminal = on_a_terminal(site)
    execution = submitted(site)

    os.write(terminal, b"\x03")
    text = shown_at_the_end(terminal)

    assert process.wait(20) == 130
    assert "flexcore workflow resume" in text
    assert f"flexcore workflow cancel {execution}" in text
    assert bashes(site)
    assert_adopted(site, resumed(site))


def test_an_interrupt_of_the_process_detaches_and_resume_can_be_interrupted_too(site: Site) -> None:
    first = site.start("workflow", "execute", "long", "-p", f"folder={site.folder}")
    submitted(site)

    first.process.send_signal(signal.SIGINT)
    done = first.ended(20)
    second = site.start("workflow", "resume")
    until(lambda: "resuming" in second.err.read_text(), "it is being resumed")
    second.process.send_signal(signal.SIGINT)
    again = second.ended(20)

    assert (done.code, again.code) == (130, 130)
    assert "flexcore workflow resume" in done.err
    assert "flexcore workflow resume" in again.err
    assert bashes(site)
    (site.folder / "go").touch()
    finished = site.run("--output", "json", "workflow", "resume")
    assert finished.code == 0, finished.err
    assert (site.folder / "effects").read_text().split() == ["1"]


def test_an_interrupt_before_the_step_is_known_to_the_store_doubles_nothing(site: Site) -> None:
    """Whatever the interrupt hits, the work that was started is found, and what was not started is started once."""
    running = site.start("workflow", "execute", "long", "-p", f"folder={site.folder}")
    begun(site)

    running.process.send_signal(signal.SIGINT)
    done = running.ended(20)
    (site.folder / "go").touch()
    finished = site.run("--output", "json", "workflow", "resume")

    assert done.code == 130
    assert finished.code == 0, finished.err
    assert (site.folder / "effects").read_text().split() == ["1"]


def test_a_second_ctrl_c_leaves_at_once(site: Site) -> None:
    running = site.start("workflow", "execute", "long", "-p", f"folder={site.folder}")
    submitted(site)

    running.process.send_signal(signal.SIGINT)
    with suppress(ProcessLookupError):
        running.process.send_signal(signal.SIGINT)

    assert running.ended(20).code == 130
    assert bashes(site)
    assert_adopted(site, resumed(site))


def test_a_second_interrupt_waits_for_nothing_that_the_first_one_waits_for() -> None:
    with subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            heard = []
            for _ in range(2):
                heard.append(process.stdout.readline())
                process.send_signal(signal.SIGINT)
            code = process.wait(60)
        finally:
            process.kill()

    assert (heard, code) == (["works\n", "goes on\n"], 130)


@pytest.mark.parametrize("ignoring", [False, True])
def test_a_cancel_ends_the_whole_tree_even_one_that_does_not_listen(site: Site, ignoring: bool) -> None:
    trap = "trap '' TERM; " if ignoring else ""
    text = WORKFLOW.replace("while [", f"({trap}sleep 300 & sleep 300) & {trap}while [")
    (site.folder / "long.yaml").write_text(text.replace("script: '", "script: |-\n        ").replace("over'", "over"))
    site.folder.joinpath("config").mkdir()
    (site.folder / "config" / "flexcore.yaml").write_text("policy: {grace: 1s}\n")
    owner = site.start("workflow", "execute", "long", "-p", f"folder={site.folder}")
    execution = submitted(site)
    until(lambda: tree(site) >= 3, "the whole tree is there")

    cancelled = site.run("--output", "json", "workflow", "cancel", execution)

    assert cancelled.document["status"] == "cancelled", cancelled.err
    assert tree(site) == 0
    assert owner.ended(20).code == 4


def tree(site: Site) -> int:
    return sum(command.startswith(("bash", "sleep")) for command in auditor.processes_of(site.folder).values())
