"""Harnesses for runtimes whose work is processes of this machine, seen in a folder that kit and work share.

`BashHarness` serves every runtime that runs `bash` steps; `MeltanoHarness` has Meltano invoke bash. Whoever runs work
elsewhere writes a harness of its own, and names it in `RuntimePlugin.certify`.
"""

import json
import os
import shlex
import signal
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel

from flexcore.model.execution import Handle
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Runtime
from flexcore.runtime.plugin import RuntimeContext, RuntimePlugin
from flexcore.runtime.registry import installed_plugins
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import runtime_context
from flexcore.testing.runtime_harness import WRONG_PARAMETER, Behaviour

_PROCESSES = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A configured runtime to be examined, and a folder for the harness alone, new for each check.

    `shared` is the same folder for all checks of one run, for what is dear to make.
    """

    plugin: RuntimePlugin
    config: BaseModel
    folder: Path
    shared: Path

    @classmethod
    def of(cls, kind: str, folder: Path, shared: Path, **config: Any) -> Self:
        """Take an installed type of runtime, with these keys of its configuration."""
        plugin = installed_plugins()[kind]()
        return cls(plugin=plugin, config=plugin.config.model_validate(config), folder=folder, shared=shared)

    def create(self, context: RuntimeContext, **changes: Any) -> Runtime:
        """Make an instance, with some keys of its configuration changed."""
        return self.plugin.create("examined", self.config.model_copy(update=changes), context)


class BashHarness:
    """A runtime that runs bash scripts as processes of this machine. What they do is seen in a folder of files."""

    kind = StepKind.BASH
    installation = "conformance"
    exempt: Mapping[str, str] = {}
    child_output = ""  # where children write to: what their parent does

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self._root = subject.folder
        self._seen = subject.folder / "seen"
        self._seen.mkdir(parents=True)
        self._inputs = 0
        self.folder = subject.folder / "workflow"
        self.folder.mkdir()

    @classmethod
    def of(cls, plugin: RuntimePlugin, folder: Path, **config: Any) -> Self:
        """Examine an instance of a plug-in, with these keys of its configuration, in an empty folder."""
        validated, shared = plugin.config.model_validate(config), folder / "shared"
        return cls(Subject(plugin=plugin, config=validated, folder=folder, shared=shared))

    async def runtime(self, installation: str) -> Runtime:
        """Make an instance with a folder per installation."""
        return self.subject.create(self._context(installation))

    async def unreachable(self) -> Runtime:
        """Make an instance whose folder is below a file, so that it can keep nothing."""
        (self._root / "a-file").touch()
        nowhere = self._root / "a-file" / "state"
        return self.subject.create(replace(self._context(self.installation), state_folder=nowhere))

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        """Give the script, with the text that it carries inside."""
        carried = f"carried={'x' * behaviour.carries}\n"
        return {"script": carried + self.script(behaviour)}

    def script(self, behaviour: Behaviour) -> str:
        """Write what the work shall do in bash."""
        mark = self._seen / (behaviour.mark or "unmarked")
        lines = [*self._writing(behaviour.stdout, behaviour.stdout_times), f"cat {self._input(behaviour.stderr)} >&2"]
        on_term = ":" if behaviour.ignores_term else f"echo > {mark}.told; exit 143"
        lines.append(f"trap {shlex.quote(on_term)} TERM")
        if behaviour.child:
            living = shlex.quote(f"echo $$ >> {mark}.pids; exec sleep 300")
            lines.append(f"setsid bash -c {living}{self.child_output} &")
            lines.append(f"until [ -s {mark}.pids ]; do sleep 0.01; done")
        lines.append(f"echo $$ >> {mark}.pids; echo >> {mark}.begun")
        if behaviour.memory_bytes:
            lines.append(f"{{ head -c {behaviour.memory_bytes} /dev/zero; sleep 2; }} | tail -n 1 > /dev/null")
        if behaviour.gate:
            lines.append(f"until [ -e {self._seen / behaviour.gate}.open ]; do sleep 0.02; done")
        lines.extend(self._writing(behaviour.stdout_after, 1))
        if behaviour.signal_name:
            lines.append(f"kill -s {behaviour.signal_name.removeprefix('SIG')} $$")
        lines.extend(self._telling(behaviour))
        lines.append(f"exit {behaviour.exit_code}")
        return "\n".join(lines)

    def invalid_parameters(self) -> Mapping[str, JSON]:
        """Add a key that is not known."""
        return {"script": "true", WRONG_PARAMETER: 1}

    async def put(self, name: str, data: bytes) -> None:
        """Write into the folder."""
        (self.folder / name).write_bytes(data)

    async def open(self, gate: str) -> None:
        """Make the file that the script looks for."""
        (self._seen / f"{gate}.open").touch()

    async def begun(self, mark: str) -> int:
        """Count the lines that scripts have written."""
        return len(self._lines(mark, "begun"))

    async def told_to_end(self, mark: str) -> bool:
        """Look for what the script's trap has made."""
        return (self._seen / f"{mark}.told").exists()

    async def alive(self, mark: str) -> bool:
        """Look at the processes that wrote down their ids."""
        return any(_is_alive(int(pid)) for pid in self._lines(mark, "pids"))

    async def lose(self, mark: str, handle: Handle) -> None:
        """Kill everything above the work first, so that nobody is left to tell how the work ended."""
        ours = {os.getpid(), *_parents(os.getpid())}
        for pid in map(int, self._lines(mark, "pids")):
            above = [each for each in _parents(pid) if each not in ours and each != 1]
            for each in (*reversed(above), pid):
                with suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)

    async def shown(self, text: str) -> list[str]:
        """Look at all command lines of the machine."""
        return [f"the command line of process {pid}" for pid in _all_processes() if text.encode() in _command_line(pid)]

    async def kept(self, text: str) -> list[str]:
        """Look into all files of the runtime and of the workflow."""
        folders = (self._root, self.folder)
        return sorted({path.name for folder in folders for path in _files(folder) if text.encode() in _content(path)})

    def _context(self, installation: str) -> RuntimeContext:
        return runtime_context(self._root / "state" / installation, installation=installation, clock=RealClock())

    def _telling(self, behaviour: Behaviour) -> list[str]:
        """Give the lines of the script that make a value its result."""
        return [f'{{\n{self._value(behaviour)}\n}} > "$FLEXCORE_RESULT"']

    def _value(self, behaviour: Behaviour) -> str:
        """Give the line of the script that writes the result as JSON."""
        if behaviour.tells_env:
            told = _hexadecimal(f'printf %s "${behaviour.tells_env}"')
            return f"if [ -v {behaviour.tells_env} ]; then {told}; else echo '{{\"hex\": null}}'; fi"
        if behaviour.tells_file:
            return _hexadecimal(f"cat {self._reach(behaviour.tells_file)}")
        if behaviour.carries:
            return "echo '{\"length\": '${#carried}'}'"
        return f"cat {self._input(json.dumps(behaviour.output).encode())}"

    def _reach(self, name: str) -> str:
        """Say where work finds a file of the workflow."""
        return name

    def _writing(self, data: bytes, times: int) -> Iterator[str]:
        if not data:
            return
        once = f"cat {self._input(data)}"
        yield once if times == 1 else f"for _ in $(seq {times}); do {once}; done"

    def _lines(self, mark: str, suffix: str) -> list[str]:
        path = self._seen / f"{mark}.{suffix}"
        return path.read_text().splitlines() if path.exists() else []

    def _input(self, data: bytes) -> Path:
        """Put bytes where the script can read them."""
        self._inputs += 1
        path = self._seen / f"input-{self._inputs}"
        path.write_bytes(data)
        return path


_MELTANO_PROJECT = """\
project_id: conformance
send_anonymous_usage_stats: false
plugins:
  utilities:
  - name: worker
    namespace: worker
    executable: bash
"""


class MeltanoHarness(BashHarness):
    """A `meltano` step that invokes a utility, which is bash, in a project that all checks of a run share."""

    kind = StepKind.MELTANO
    child_output = " > /dev/null 2>&1"  # Meltano waits until nobody holds the output of its worker
    exempt: Mapping[str, str] = {
        "null_is_a_result": "the result of a `meltano` step is its last line, or its text",
        "large_result_arrives": "only the last 64 KiB of the output are read for the result",
        "huge_result_arrives_or_is_refused": "only the last 64 KiB of the output are read for the result",
        "death_by_signal_names_the_signal": "Meltano tells the signal of a utility as an exit code of its own",
    }

    def __init__(self, subject: Subject) -> None:
        super().__init__(subject)
        self.folder = subject.shared / "workflow"  # so that Meltano makes its database once
        project = self.folder / "project"
        project.mkdir(parents=True, exist_ok=True)
        if not (project / "meltano.yml").exists():
            (project / "meltano.yml").write_text(_MELTANO_PROJECT)

    async def unreachable(self) -> Runtime:
        """Make an instance without a Meltano."""
        missing = self._root / "no-meltano"
        return self.subject.create(self._context(self.installation), executable=missing)

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        """Have Meltano run the script from a file, with the carried text as an argument."""
        script = self._input(f'carried="$1"\n{self.script(behaviour)}'.encode())
        carried = ["x" * behaviour.carries] if behaviour.carries else []
        return {"project": "project", "args": ["invoke", "worker", str(script), *carried]}

    def invalid_parameters(self) -> Mapping[str, JSON]:
        """Add a key that is not known."""
        return {"project": "project", "args": ["invoke", "worker"], WRONG_PARAMETER: 1}

    def _telling(self, behaviour: Behaviour) -> list[str]:
        """The last line of the output is the result; where null is wanted, nothing is added to the output."""
        asked = behaviour.tells_env or behaviour.tells_file or behaviour.carries
        return [self._value(behaviour)] if asked or behaviour.output is not None else []

    def _reach(self, name: str) -> str:
        return f"../{name}"  # work begins in the project's folder


def _hexadecimal(command: str) -> str:
    return f"""echo '{{"hex": "'"$({command} | od -An -v -tx1 | tr -d ' \\n')"'"}}'"""


def _is_alive(pid: int) -> bool:
    return _status(pid)[0] not in ("", "Z", "X")


def _parents(pid: int) -> list[int]:
    """Give the processes above one, the nearest first."""
    found: list[int] = []
    while (above := _status(found[-1] if found else pid)[1]) > 0:
        found.append(above)
    return found


def _status(pid: int) -> tuple[str, int]:
    """Give the letter of a process's state and its parent; nothing and 0 for one that is gone."""
    try:
        fields = (_PROCESSES / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return "", 0
    return fields[0], int(fields[1])


def _all_processes() -> list[str]:
    return [each.name for each in _PROCESSES.iterdir() if each.name.isdecimal()]


def _command_line(pid: str) -> bytes:
    return _content(_PROCESSES / pid / "cmdline")


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError:  # it went meanwhile
        return b""
