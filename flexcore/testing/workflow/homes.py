"""Which runtimes a test has when it does not say: one of each kind that its steps may go to."""

from collections.abc import Iterable, Mapping

from flexcore.analyzer.rules import KUBERNETES, LOCAL, MELTANO, RAY, rule_choice
from flexcore.model.workflow import Step, StepKind, Task

HOMES: Mapping[StepKind, str] = {
    StepKind.SINGER: MELTANO,
    StepKind.DBT: MELTANO,
    StepKind.MELTANO: MELTANO,
    StepKind.RAY: RAY,
    StepKind.CONTAINER: KUBERNETES,
    StepKind.KUBERNETES: KUBERNETES,
}
"""Kinds of step that are for one type of runtime alone."""


def runtimes_needed(steps: Iterable[Step]) -> tuple[str, ...]:
    """Name one runtime of each kind that some steps may go to: their pins, the rules' choices, and `local`."""
    names = {LOCAL: None}
    for step in steps:
        if isinstance(step.action, Task):
            kind = step.action.kind
            wanted = (step.runtime,) if step.runtime else (rule_choice(kind, step.requirements)[0], HOMES.get(kind))
            names |= dict.fromkeys(each for each in wanted if each)
    return tuple(names)
