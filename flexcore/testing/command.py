"""The real `flexcore` command in processes of its own: start, follow, kill, wait for what it leads to.

For tests and campaigns. Waiting is polling with a deadline, because what is waited for happens in other processes.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

Found = TypeVar("Found")

PATIENCE_S = 60.0


@dataclass(slots=True)
class Running:
    """A command under way, alone in its process group; what it writes is in files, so no pipe can fill."""

    process: "subprocess.Popen[bytes]"
    out: Path
    err: Path

    def kill(self, *, group: bool) -> bool:
        """Kill the process alone, or its group with it. False when it had ended before."""
        if self.process.poll() is not None:
            return False
        if group:
            os.killpg(self.process.pid, signal.SIGKILL)
        else:
            self.process.kill()
        return self.process.wait() == -signal.SIGKILL

    def ended(self, timeout_s: float = PATIENCE_S) -> "Done":
        """Wait for the end."""
        code = self.process.wait(timeout_s)
        return Done(code=code, out=self.out.read_text(), err=self.err.read_text())


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What it printed, read as JSON."""
        return json.loads(self.out)


@dataclass(frozen=True, slots=True)
class Site:
    """A working folder in which commands are given; its store is in `.flexcore`."""

    folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def database(self) -> Path:
        """The store's database file."""
        return self.folder / ".flexcore" / "flexcore.db"

    def start(self, *arguments: str, name: str = "command") -> Running:
        """Start `flexcore ARGUMENTS` as the leader of a process group of its own."""
        logs = self.folder.parent / f"{self.folder.name}-output"
        logs.mkdir(exist_ok=True)
        number = len(list(logs.glob("*.out")))
        out, err = logs / f"{number:03d}-{name}.out", logs / f"{number:03d}-{name}.err"
        with out.open("wb") as out_file, err.open("wb") as err_file:
            process = subprocess.Popen(
                [str(Path(sys.executable).with_name("flexcore")), *arguments],
                cwd=self.folder,
                env={**_clean(), **self.env},
                stdin=subprocess.DEVNULL,
                stdout=out_file,
                stderr=err_file,
                start_new_session=True,
            )
        return Running(process, out, err)

    def run(self, *arguments: str, timeout_s: float = PATIENCE_S) -> Done:
        """Give a command and wait for its end."""
        return self.start(*arguments).ended(timeout_s)

    def ask(self, *arguments: str) -> Any:
        """Give a command that must succeed, and read the JSON that it prints."""
        done = self.run("--output", "json", *arguments)
        if done.code:
            raise AssertionError(f"flexcore {' '.join(arguments)}: exit {done.code}: {done.err}")
        return done.document


def until(look: Callable[[], Found | None], what: str, timeout_s: float = PATIENCE_S) -> Found:
    """Look until there is something to see, and give it. Raises AssertionError when the time is over."""
    deadline = time.monotonic() + timeout_s
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {timeout_s:g} s: {what}")
        time.sleep(0.01)
    return found


def _clean() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("FLEXCORE_")}
