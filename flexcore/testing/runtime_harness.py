"""What the conformance kit for runtimes needs: a way to say what work shall do, and to look at it from outside.

Whoever brings a runtime writes one `Harness` for it. The kit itself knows no kind of step, no parameter, no process
and no folder: where work runs, and how it is looked at there, is the harness's knowledge alone.
"""

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from flexcore.model.execution import Handle
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Runtime

WRONG_PARAMETER = "no_such_parameter"


class CheckFailed(AssertionError):
    """A runtime does not do what the check asks for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Behaviour:
    """What a piece of work shall do, in this order.

    Write to its streams (`stdout` so many times); arrange for its end (`ignores_term`, `child`); note that it has
    begun under `mark`; hold `memory_bytes` for two seconds; wait for `gate`; write `stdout_after`; end by
    `signal_name` (such as `SIGUSR1`), with `exit_code`, or with a result: `output`, or instead of it what it found:
    `{"hex": …}`, the bytes of the variable `tells_env` (null when there is none) or of the workflow's file
    `tells_file`; `{"length": …}` of a text of `carries` letters that came with its parameters.
    """

    stdout: bytes = b""
    stdout_times: int = 1
    stderr: bytes = b""
    ignores_term: bool = False
    child: bool = False  # has a child process in a session of its own that lives until killed
    mark: str = ""
    memory_bytes: int = 0
    gate: str = ""
    stdout_after: bytes = b""
    signal_name: str = ""
    exit_code: int = 0
    output: JSON = None
    tells_env: str = ""
    tells_file: str = ""
    carries: int = 0


class Harness(Protocol):
    """A runtime under examination, in an outside world of its own with room for four pieces of work at a time."""

    kind: StepKind
    installation: str
    folder: Path  # where the files of the workflow are, as the control plane sees it
    exempt: Mapping[str, str]  # checks that cannot be put to this kind of step → why; for runtimes in general, none

    async def runtime(self, installation: str) -> Runtime:
        """Make a new instance over the same outside world, as after a restart of the control plane."""
        ...

    async def unreachable(self) -> Runtime:
        """Make an instance that cannot reach what it needs, or a new one where there is nothing to be missed."""
        ...

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        """Say in the `with` of the kind what the work shall do."""
        ...

    def invalid_parameters(self) -> Mapping[str, JSON]:
        """Give parameters that would be right but for the key `WRONG_PARAMETER`."""
        ...

    async def put(self, name: str, data: bytes) -> None:
        """Put a file into the workflow's folder, for work that comes after."""
        ...

    async def open(self, gate: str) -> None:
        """Let work that waits at the gate go on."""
        ...

    async def begun(self, mark: str) -> int:
        """Count how often marked work has begun."""
        ...

    async def told_to_end(self, mark: str) -> bool:
        """Say whether marked work noticed that it was asked to end."""
        ...

    async def alive(self, mark: str) -> bool:
        """Say whether any process of the marked work, a child too, is still there."""
        ...

    async def lose(self, mark: str, handle: Handle) -> None:
        """Let marked work vanish without a word, with everything that watches over it."""
        ...

    async def shown(self, text: str) -> list[str]:
        """Name where others can read the text while work runs: command lines, descriptions, labels."""
        ...

    async def kept(self, text: str) -> list[str]:
        """Name where the text still stands once work was cleaned up: files, objects, records."""
        ...


HarnessFactory = Callable[[], Harness]


def expect(condition: object, message: str) -> None:
    """Fail the check with the message unless the condition holds."""
    if not condition:
        raise CheckFailed(message)


def fresh_name(prefix: str) -> str:
    """Make a name that no other check uses."""
    return f"{prefix}{uuid.uuid4().hex[:12]}"


def gated(prefix: str = "m") -> Behaviour:
    """Describe work that waits until it is let go; mark and gate have the same name."""
    mark = fresh_name(prefix)
    return Behaviour(mark=mark, gate=mark, output={"mark": mark})
