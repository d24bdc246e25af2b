"""`flexcore` as its users run it: commands in a folder, alone or beside a server of their own."""

import re
import signal
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flexcore.testing.command import Done, Running, Site, until

TOKEN = "a-token-only-for-these-tests"
_LISTENING = re.compile(r"HTTP on http://(?P<http>\S+), gRPC on (?P<grpc>[^;\s]+)")
_PATIENCE_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Session:
    """A folder in which commands run, and what they all find in their environment."""

    folder: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    def __call__(self, *arguments: str, **environment: str) -> Done:
        """Run a command to its end."""
        return self.start(*arguments, **environment).ended(_PATIENCE_SECONDS)

    def json(self, *arguments: str, code: int = 0) -> Any:
        """Run a command that must exit with a code; give its JSON document."""
        done = self(*arguments, "--output", "json")
        assert done.code == code, done
        return done.document

    def start(self, *arguments: str, **environment: str) -> Running:
        """Start a command."""
        return Site(self.folder, {**self.environment, **environment}).start(*arguments)

    def write(self, name: str, text: str) -> str:
        """Put a file into the folder; give its name."""
        (self.folder / name).write_text(text)
        return name


@dataclass(frozen=True, slots=True)
class Server:
    """A `flexcore server` that listens."""

    running: Running
    http: str
    grpc: str

    @property
    def said(self) -> str:
        """Give what it has written to stderr."""
        return self.running.err.read_text()

    def terminate(self) -> int:
        """End it as an operator does; give its exit code."""
        self.running.process.send_signal(signal.SIGTERM)
        return self.running.ended(_PATIENCE_SECONDS).code


@contextmanager
def server(folder: Path, **environment: str) -> Iterator[Server]:
    """Run a server on free ports with its store below the folder; it is ended when the block is left."""
    site = Site(folder, {"FLEXCORE_HOME": str(folder / "home"), **environment})
    running = site.start("server", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", name="server")
    try:
        yield Server(running, *until(lambda: _addresses(running), "the server listens", _PATIENCE_SECONDS))
    finally:
        if running.process.poll() is None:
            running.process.terminate()
            running.ended(_PATIENCE_SECONDS)


def _addresses(running: Running) -> tuple[str, str] | None:
    said = running.err.read_text()
    if (found := _LISTENING.search(said)) is not None:
        return found["http"], found["grpc"]
    assert running.process.poll() is None, said
    return None
