"""The runtimes that the conformance kit examines here, each in a world of its own."""

import base64
import json
import os
import shlex
import signal
from collections.abc import Mapping
from pathlib import Path

import psutil

from flexcore.model.execution import Handle
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Runtime
from flexcore.runtime.plugin import RuntimePlugin
from flexcore.runtime.supervised import SupervisedRuntime
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import runtime_context
from flexcore.testing.fakes import ScriptedRuntime, World
from flexcore.testing.runtime_harness import Behaviour


class ScriptedHarness:
    """The scripted runtime, on the machine's clock."""

    kind = StepKind.PYTHON
    installation = "conformance"
    folder = Path()

    def __init__(self) -> None:
        self.world = World(RealClock())

    async def runtime(self, installation: str) -> Runtime:
        return ScriptedRuntime(self.world, installation)

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        return {
            "stdout_base64": base64.b64encode(behaviour.stdout).decode(),
            "stderr": behaviour.stderr.decode(),
            "ignores_term": behaviour.ignores_term,
            "child": behaviour.child,
            "mark": behaviour.mark,
            "gate": behaviour.gate,
            "signal": behaviour.signal_name,
            "exit_code": behaviour.exit_code,
            "output": behaviour.output,
        }

    def invalid_parameters(self) -> Mapping[str, JSON]:
        return {"no_such_parameter": 1}

    async def open(self, gate: str) -> None:
        self.world.open(gate)

    async def begun(self, mark: str) -> int:
        return self.world.begun[mark]

    async def told_to_end(self, mark: str) -> bool:
        return self.world.told_to_end(mark)

    async def alive(self, mark: str) -> bool:
        return self.world.alive(mark)

    async def lose(self, mark: str, handle: Handle) -> None:
        for name in [name for name, work in self.world.works.items() if work.script.mark == mark]:
            self.world.lose(name)


class SupervisedHarness(ScriptedHarness):
    """The same under supervision, which must not be noticed."""

    async def runtime(self, installation: str) -> Runtime:
        bare = await super().runtime(installation)
        return SupervisedRuntime("examined", bare, now=self.world.clock.now)


class ProcessHarness:
    """A runtime that runs bash scripts as processes of this machine. What they do is seen in a folder of files."""

    kind = StepKind.BASH
    installation = "conformance"

    def __init__(self, folder: Path, plugin: RuntimePlugin) -> None:
        self._plugin = plugin
        self._state = folder / "state"
        self._seen = folder / "seen"
        self._seen.mkdir(parents=True)
        self._inputs = 0
        self.folder = folder / "workflow"
        self.folder.mkdir()

    async def runtime(self, installation: str) -> Runtime:
        context = runtime_context(self._state / installation, installation=installation, clock=RealClock())
        return self._plugin.create("examined", self._plugin.config(), context)

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        return {"script": self.script(behaviour)}

    def script(self, behaviour: Behaviour) -> str:
        mark = self._seen / (behaviour.mark or "unmarked")
        lines = [f"cat {self._input(behaviour.stdout)}", f"cat {self._input(behaviour.stderr)} >&2"]
        on_term = ":" if behaviour.ignores_term else f"echo > {mark}.told; exit 143"
        lines.append(f"trap {shlex.quote(on_term)} TERM")
        if behaviour.child:
            lines.append(f"setsid bash -c {shlex.quote(f'echo $$ >> {mark}.pids; exec sleep 300')} &")
            lines.append(f"until [ -s {mark}.pids ]; do sleep 0.01; done")
        lines.append(f"echo $$ >> {mark}.pids; echo >> {mark}.begun")
        if behaviour.gate:
            lines.append(f"until [ -e {self._seen / behaviour.gate}.open ]; do sleep 0.02; done")
        if behaviour.signal_name:
            lines.append(f"kill -s {behaviour.signal_name.removeprefix('SIG')} $$")
        lines.extend(self._telling(behaviour.output))
        lines.append(f"exit {behaviour.exit_code}")
        return "\n".join(lines)

    def invalid_parameters(self) -> Mapping[str, JSON]:
        return {"script": "true", "no_such_parameter": 1}

    async def open(self, gate: str) -> None:
        (self._seen / f"{gate}.open").touch()

    async def begun(self, mark: str) -> int:
        return len(self._lines(mark, "begun"))

    async def told_to_end(self, mark: str) -> bool:
        return (self._seen / f"{mark}.told").exists()

    async def alive(self, mark: str) -> bool:
        return any(_is_alive(int(pid)) for pid in self._lines(mark, "pids"))

    async def lose(self, mark: str, handle: Handle) -> None:
        """Kill the shim first, so that nobody is left to write how the work ended."""
        for pid in self._lines(mark, "pids"):
            work = psutil.Process(int(pid))
            above = [each for each in work.parents() if each.pid not in (1, os.getpid())]
            ours = {each.pid for each in psutil.Process().parents()}
            for process in reversed([work, *(each for each in above if each.pid not in ours)]):
                process.send_signal(signal.SIGKILL)
            psutil.wait_procs([work], timeout=5)

    def _telling(self, output: JSON) -> list[str]:
        """Give the lines of the script that make a value its result."""
        return [f'cat {self._input(json.dumps(output).encode())} > "$FLEXCORE_RESULT"']

    def _lines(self, mark: str, suffix: str) -> list[str]:
        path = self._seen / f"{mark}.{suffix}"
        return path.read_text().splitlines() if path.exists() else []

    def _input(self, data: bytes) -> Path:
        """Put bytes where the script can read them."""
        self._inputs += 1
        path = self._seen / f"input-{self._inputs}"
        path.write_bytes(data)
        return path


MELTANO_PROJECT = """\
project_id: conformance
send_anonymous_usage_stats: false
plugins:
  utilities:
  - name: worker
    namespace: worker
    executable: bash
"""


class MeltanoHarness(ProcessHarness):
    """A `meltano` step that invokes a utility, which is bash, in a project that all checks share."""

    kind = StepKind.MELTANO

    def __init__(self, folder: Path, plugin: RuntimePlugin, workflow: Path) -> None:
        super().__init__(folder, plugin)
        self.folder = workflow

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        script = self._input(self.script(behaviour).encode())
        return {"project": "project", "args": ["invoke", "worker", str(script)]}

    def invalid_parameters(self) -> Mapping[str, JSON]:
        return {"project": "project", "args": ["invoke", "worker"], "no_such_parameter": 1}

    def _telling(self, output: JSON) -> list[str]:
        """The last line of the output is the result; where null is wanted, nothing is added to the output."""
        return [] if output is None else [f"cat {self._input(json.dumps(output).encode())}"]


def meltano_project(workflow: Path) -> Path:
    """Make the workflow's folder with the project in it."""
    (workflow / "project").mkdir(parents=True)
    (workflow / "project" / "meltano.yml").write_text(MELTANO_PROJECT)
    return workflow


def _is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
