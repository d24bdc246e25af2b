"""`flexcore runtime serve` as a process, for tests of what is done through it."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flexcore.testing.command import Running, Site, until

TOKEN = "a-token-only-for-these-tests"
PATIENCE_S = 150.0  # a busy machine has little for each
SERVED = "runtimes:\n  local: {type: local}\n"


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
def served(folder: Path, *options: str, listen: str = "127.0.0.1:0", settings: str = SERVED) -> Iterator[Served]:
    """Serve `local` from a folder of its own until the block ends, whatever happened to it."""
    folder.mkdir(exist_ok=True)
    (folder / "flexcore.yaml").write_text(settings)
    write_token(folder)
    running = Site(folder).start("runtime", "serve", "local", "--listen", listen, "--token-file", "token", *options)
    try:
        yield Served(folder, running, until(lambda: listening(running), "the server listens", PATIENCE_S))
    finally:
        if running.process.poll() is None:
            os.kill(running.process.pid, signal.SIGCONT)
            running.process.terminate()
            assert running.ended(PATIENCE_S).code == 0


def write_token(folder: Path) -> None:
    (folder / "token").write_text(TOKEN)
    (folder / "token").chmod(0o600)


def listening(running: Running) -> str | None:
    found = re.search(r"runtime local on (\S+?)[, ]", running.err.read_text())
    return found[1] if found else None
