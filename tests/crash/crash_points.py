"""The control plane dies at every moment of an attempt's life, for any runtime that the conformance kit can examine.

What came of it is counted where the work runs: by marks that the work itself leaves, and by what the runtime lists,
never by FlexCore's own records alone. The moments within a moment are drawn at random; the seed is in the test's name.
"""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest
from crash.crashing_child import Moment

from flexcore.model.values import JSON
from flexcore.testing import auditor
from flexcore.testing.runtime_harness import Behaviour, Harness, fresh_name

KILLED = -9
SUITE, CAMPAIGN = 2, 20  # how often each moment is tried
MOMENTS = list(Moment)
_MOST_RESUMES = 5
_GONE_WITHIN_S = 20

Listing = Callable[[], Awaitable[list[str]]]


@dataclass(slots=True)
class Crasher:
    """A process that forks control planes which die."""

    process: "subprocess.Popen[str]"

    def play(self, folder: Path, workflow: Path, act: str, kind: str, moment: Moment | None, delay_s: float) -> int:
        """Let one live, or die; give its exit code, -9 for a SIGKILL."""
        asked = {"folder": str(folder), "workflow": str(workflow), "act": act, "kind": kind}
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps({**asked, "moment": moment, "delay_s": delay_s}) + "\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())


@contextmanager
def crasher() -> Iterator[Crasher]:
    """Start the process; it ends with its input."""
    command = [sys.executable, str(Path(__file__).with_name("crashing_child.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield Crasher(process)


@dataclass(slots=True, kw_only=True)
class Ground:
    """A runtime under examination, named in settings, and a folder for one control plane after the other.

    `runtimes` is the section of the settings. `listing` names what the runtime itself says is there now.
    """

    harness: Harness
    folder: Path
    runtimes: Mapping[str, JSON]
    runtime: str
    listing: Listing
    crasher: Crasher
    seconds: float = 0.5  # how long the work takes, about
    before: list[str] = field(default_factory=list)

    async def crash_and_judge(self, moment: Moment, seed: int) -> None:
        """Run one step, die at the moment, resume until all is done, and count."""
        chance = random.Random(seed)
        mark = fresh_name("c")
        self.before = await self.listing()
        workflow = self._write(mark)
        if moment is Moment.AFTER_FINISH:
            await self.harness.open(mark)
        delay = self._delay(moment, chance)
        first = self.crasher.play(self.folder, workflow, "execute", self.harness.kind.value, moment, delay)
        assert first == KILLED, f"the control plane was to die {moment}, and ended with {first}: {self.log}"
        if moment is not Moment.AFTER_FINISH:
            await self.harness.open(mark)  # it ends, maybe before anybody looks after it again
        for _ in range(_MOST_RESUMES):
            if self.crasher.play(self.folder, workflow, "resume", self.harness.kind.value, None, 0) == 0:
                break
        await self._judge(mark)

    def _delay(self, moment: Moment, chance: random.Random) -> float:
        if moment is Moment.MID_RUN:
            return chance.uniform(0.05, self.seconds)
        # Every other time at random within the submission instead of right after it.
        return chance.uniform(0.001, 0.1) if moment is Moment.AFTER_SUBMIT and chance.random() < 0.5 else 0.0

    def _write(self, mark: str) -> Path:
        behaviour = Behaviour(mark=mark, stdout=b"at work\n", gate=mark, output={"mark": mark})
        step: dict[str, Any] = {"id": "work", "type": self.harness.kind.value, "runtime": self.runtime}
        step["with"] = self.harness.parameters(behaviour)
        workflow = {"name": "crashes", "steps": [step], "output": "${{ results.work }}"}
        self.folder.mkdir(parents=True, exist_ok=True)
        settings = {"runtimes": {**self.runtimes}, "policy": {"recheck": "1s"}}
        (self.folder / "flexcore.yaml").write_bytes(msgspec.json.encode(settings))
        (self.folder / "config").mkdir(exist_ok=True)
        (self.folder / "config" / "flexcore.yaml").write_bytes(msgspec.json.encode(settings))
        path = self.harness.folder / "crashes.yaml"
        path.write_bytes(msgspec.json.encode(workflow))
        return path

    async def _judge(self, mark: str) -> None:
        told = auditor.executions(self.folder / ".flexcore" / "flexcore.db")
        assert [each.status for each in told] == ["succeeded"], self.log
        assert list(auditor.store_problems(told)) == []
        dispatched = [each for each in told[0].history if each.kind == "StepDispatched"]
        assert len(dispatched) == 1, f"{len(dispatched)} attempts: {self.log}"
        begun = await self.harness.begun(mark)
        assert begun == 1, f"the work began {begun} times: {self.log}"
        assert not await self.harness.alive(mark), "the work, or a child of it, is still there"
        left = await self._left()
        assert left == [], f"left on the runtime: {left}: {self.log}"

    async def _left(self) -> list[str]:
        """Name what is there and was not before; some runtimes take a moment to let go of what they ended."""
        until = time.monotonic() + _GONE_WITHIN_S
        while (left := sorted(set(await self.listing()) - set(self.before))) and time.monotonic() < until:
            await asyncio.sleep(0.1)
        return left

    @property
    def log(self) -> str:
        """What the control planes said."""
        log = self.folder / "log"
        return log.read_text()[-3000:] if log.exists() else ""


def cases() -> list[Any]:
    """Give every moment so often as the suite tries it, and as the campaign does; each time with a seed of its own."""
    return _cases(SUITE, 1) + _cases(CAMPAIGN, 1000, pytest.mark.campaign)


def _cases(times: int, first_seed: int, *marks: pytest.MarkDecorator) -> list[Any]:
    return [
        pytest.param(moment, seed, marks=marks, id=f"{moment.value.replace(' ', '-').replace(',', '')}-{seed}")
        for moment in MOMENTS
        for seed in range(first_seed, first_seed + times)
    ]
