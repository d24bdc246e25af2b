"""Each runtime used by hand, as somebody without FlexCore would: what submitting to it costs at the least."""

import asyncio
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class Span(NamedTuple):
    """Seconds from asking to the first instruction, and from the last one to knowing."""

    start: float
    end: float


class Floor(Protocol):
    """A runtime, in the settings and by hand. `most` bounds how often one is measured that takes seconds."""

    name: str
    title: str
    kind: str
    most: int

    def opened(self, folder: Path) -> Any:
        """Have it ready as long as the context is open; gives the section `runtimes` of the settings."""
        ...

    def parameters(self, script: str) -> Mapping[str, Any]:
        """Say in the `with` of the kind that this script shall run."""
        ...

    def files(self, folder: Path) -> Iterator[Path]:
        """Name what belongs to the workflow."""
        ...

    async def measured(self, script: str) -> Span:
        """Run the script by hand."""
        ...


async def by_command(*argv: str, cwd: Path | None = None) -> Span:
    """Run a command whose last line of output says when its work began and ended."""
    asked = time.time()
    process = await asyncio.create_subprocess_exec(*argv, cwd=cwd, stdout=-1, stderr=-3)
    out, _ = await process.communicate()
    known = time.time()
    told = json.loads(out.decode().strip().splitlines()[-1])
    return Span(told["begun"] - asked, known - told["ended"])


class Local:
    """A process of this machine; by hand, `bash -c`."""

    name, title, kind, most = "local", "local (bash)", "bash", 1000

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
        """Nothing to be prepared."""
        yield {"local": {"type": "local"}}

    def parameters(self, script: str) -> Mapping[str, Any]:
        """The script as it is."""
        return {"script": script}

    def files(self, folder: Path) -> Iterator[Path]:
        """None."""
        return iter(())

    async def measured(self, script: str) -> Span:
        """Run bash."""
        return await by_command("bash", "-c", script)


class Meltano(Local):
    """A utility of a Meltano project, which is bash; by hand, `meltano invoke`."""

    name, title, kind, most = "meltano", "Meltano (a utility)", "meltano", 7

    @asynccontextmanager
    async def opened(self, folder: Path) -> AsyncIterator[Mapping[str, Any]]:
        """Make the project."""
        self.project = folder / "project"
        self.project.mkdir()
        worker = "{name: worker, namespace: worker, executable: bash}"
        text = f"project_id: b\nsend_anonymous_usage_stats: false\nplugins: {{utilities: [{worker}]}}\n"
        (self.project / "meltano.yml").write_text(text)
        yield {"meltano": {"type": "meltano"}}

    def parameters(self, script: str) -> Mapping[str, Any]:
        """An invocation with the script as an argument."""
        return {"project": "./project", "args": ["invoke", "worker", "-c", script]}

    def files(self, folder: Path) -> Iterator[Path]:
        """The project's own."""
        yield self.project / "meltano.yml"

    async def measured(self, script: str) -> Span:
        """Run the command."""
        meltano = str(Path(sys.executable).with_name("meltano"))
        return await by_command(meltano, "invoke", "worker", "-c", script, cwd=self.project)


FLOORS: Mapping[str, Callable[[], Floor]] = {"local": Local, "meltano": Meltano}
