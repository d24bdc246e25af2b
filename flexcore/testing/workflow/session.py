"""Runs the tests of some files one after the other and says what came of each; secrets are taken out of everything."""

import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from fnmatch import fnmatchcase
from pathlib import Path

from flexcore.engine.evaluate import ExpressionPool
from flexcore.model.units import format_duration
from flexcore.security.secrets import Redactor
from flexcore.testing.workflow.player import Played, PlayedStep, play
from flexcore.testing.workflow.scenario import Scenario
from flexcore.testing.workflow.stand_ins import Kinds
from flexcore.testing.workflow.suite import Suite
from flexcore.testing.workflow.verdict import failure_text, problems

_MOST_STEPS = 60


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """A test that has run. `seconds` are real, `virtual` is how long the workflow thinks that it took."""

    file: Path
    workflow: str
    name: str
    problems: tuple[str, ...]
    steps: tuple[str, ...]  # what ran, a line each
    virtual: timedelta
    seconds: float

    @property
    def passed(self) -> bool:
        """Say whether all was as expected."""
        return not self.problems

    def document(self) -> Mapping[str, object]:
        """Give it as a plain document."""
        return {
            "file": str(self.file),
            "workflow": self.workflow,
            "name": self.name,
            "outcome": "passed" if self.passed else "failed",
            "problems": list(self.problems),
            "steps": list(self.steps),
            "virtual_s": self.virtual.total_seconds(),
            "duration_s": round(self.seconds, 3),
        }


def chosen(suite: Suite, pattern: str | None) -> Sequence[Scenario]:
    """Give the tests of a file whose names fit a pattern (`*` and `?`), or are it; all without one."""
    if pattern is None:
        return suite.scenarios
    plain_brackets = pattern.replace("[", "[[]")  # names of tests have them, and mean nothing by them
    return [each for each in suite.scenarios if fnmatchcase(each.name, plain_brackets)]


async def run(suites: Sequence[Suite], kinds: Kinds, pattern: str | None = None) -> AsyncIterator[Outcome]:
    """Run tests; give each as soon as it is done."""
    async with ExpressionPool() as pool:
        for suite in suites:
            for scenario in chosen(suite, pattern):
                begun = time.perf_counter()
                played = await play(suite.program, scenario, kinds, pool)
                yield _outcome(suite, scenario, played, time.perf_counter() - begun)


def _outcome(suite: Suite, scenario: Scenario, played: Played, seconds: float) -> Outcome:
    redactor = Redactor(scenario.secrets.values())
    return Outcome(
        file=suite.path,
        workflow=suite.program.name,
        name=scenario.name,
        problems=tuple(redactor.text(each) for each in problems(scenario.expected, played)),
        steps=tuple(redactor.text(each) for each in _lines(played)),
        virtual=played.duration,
        seconds=seconds,
    )


def _lines(played: Played) -> Iterator[str]:
    """Show what ran as a tree: steps in the order of their turns, each with what is inside it below."""
    begun = {path: number for number, path in enumerate(played.steps)}

    def place(step: PlayedStep) -> list[int]:
        parts = step.path.split(".")
        owners = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        # `fan[2]` is inside `fan`; a part that is no step, such as the name of a branch, has no place of its own.
        return [begun[each] for owner in owners for each in (owner.partition("[")[0], owner) if each in begun]

    ordered = sorted(played.steps.values(), key=place)
    for step in ordered[:_MOST_STEPS]:
        yield f"{'  ' * step.path.count('.')}{step.path}  {_told(step)}"
    if len(ordered) > _MOST_STEPS:
        yield f"… and {len(ordered) - _MOST_STEPS} more"


def _told(step: PlayedStep) -> str:
    state = step.state
    parts = [state.status.value]
    if state.runtime is not None:
        parts.append(f"on {state.runtime}")
    if state.attempt > 1:
        parts.append(f"attempt {state.attempt}")
    if step.duration:
        parts.append(format_duration(step.duration))
    if state.failure is not None:
        parts.append(failure_text(state.failure))
    if state.skipped_reason:
        parts.append(state.skipped_reason)
    if state.waiting_for:
        parts.append(f"waits for {state.waiting_for}")
    return ", ".join(parts)
