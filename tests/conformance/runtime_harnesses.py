"""The scripted runtime under the conformance kit, in a world of its own."""

import base64
from collections.abc import Mapping
from pathlib import Path

from flexcore.model.execution import Handle
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Health, Runtime
from flexcore.runtime.supervised import SupervisedRuntime
from flexcore.testing.clock import RealClock
from flexcore.testing.fakes import ScriptedConfig, ScriptedRuntime, World
from flexcore.testing.runtime_harness import WRONG_PARAMETER, Behaviour

CONFIG = ScriptedConfig(kinds=[StepKind.PYTHON])


class ScriptedHarness:
    """The scripted runtime, on the machine's clock."""

    kind = StepKind.PYTHON
    installation = "conformance"
    exempt: Mapping[str, str] = {}

    def __init__(self, folder: Path) -> None:
        self.world = World(RealClock(), keeps_deadlines=True)
        self.folder = folder

    async def runtime(self, installation: str) -> Runtime:
        return self.instance(self.world, installation)

    async def unreachable(self) -> Runtime:
        world = World(RealClock())
        world.reachable, world.health = False, Health.DOWN
        return self.instance(world, self.installation)

    def instance(self, world: World, installation: str) -> Runtime:
        return ScriptedRuntime(world, installation, CONFIG)

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        return {
            "stdout_base64": base64.b64encode(behaviour.stdout).decode(),
            "stdout_times": behaviour.stdout_times,
            "stderr": behaviour.stderr.decode(),
            "ignores_term": behaviour.ignores_term,
            "child": behaviour.child,
            "mark": behaviour.mark,
            "memory_bytes": behaviour.memory_bytes,
            "gate": behaviour.gate,
            "stdout_after": behaviour.stdout_after.decode(),
            "signal": behaviour.signal_name,
            "exit_code": behaviour.exit_code,
            "output": behaviour.output,
            "tells_env": behaviour.tells_env,
            "tells_file": behaviour.tells_file,
            "carried": "x" * behaviour.carries,
            "cpu_s": 0.01,
        }

    def invalid_parameters(self) -> Mapping[str, JSON]:
        return {WRONG_PARAMETER: 1}

    async def put(self, name: str, data: bytes) -> None:
        (self.folder / name).write_bytes(data)

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

    async def shown(self, text: str) -> list[str]:
        return [each for each in self.world.shown if text in each]

    async def kept(self, text: str) -> list[str]:
        return [each for each in self.world.kept if text in each]


class SupervisedHarness(ScriptedHarness):
    """The same under supervision, which must not be noticed."""

    def instance(self, world: World, installation: str) -> Runtime:
        return SupervisedRuntime("examined", super().instance(world, installation), now=world.clock.now)
