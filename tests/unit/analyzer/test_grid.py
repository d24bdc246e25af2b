"""Cold start is the tables, exactly: through `place`, with everything feasible, on a grid and at random."""

import itertools
import random

import pytest
from unit.analyzer.learned_cases import FLAGS, SIZES, able, random_model, random_requirements, restated

from flexcore.analyzer.place import Policy, StepView, place
from flexcore.analyzer.policy import PolicyName
from flexcore.model.placement import Placement
from flexcore.model.workflow import Complexity, Requirements, StepKind


def is_the_tables(placement: Placement, kind: StepKind, needs: Requirements) -> bool:
    runtime, row = restated(kind, needs)
    found = (placement.chosen, placement.rule_would_choose, placement.rule, placement.source, placement.fallback_reason)
    return found == (runtime, runtime, row, "rule", None)


def test_every_kind_flag_and_size_is_placed_by_the_tables() -> None:
    snapshot = able()
    wrong = []
    for kind, size, complexity, intensive, parallel, contained, scalable in itertools.product(
        StepKind, SIZES, (None, *Complexity), FLAGS, FLAGS, FLAGS, FLAGS
    ):
        needs = Requirements(
            data_size=size,
            complexity=complexity,
            resource_intensive=intensive,
            parallelizable=parallel,
            containerized=contained,
            scalable=scalable,
        )
        if not is_the_tables(place(StepView(kind=kind, requirements=needs), snapshot), kind, needs):
            wrong.append((kind, needs))

    assert wrong == []


@pytest.mark.parametrize("count", [10_000, pytest.param(100_000, marks=pytest.mark.campaign)])
def test_random_steps_are_placed_by_the_tables(count: int) -> None:
    draw = random.Random(count)
    snapshot, kinds = able(), list(StepKind)
    wrong = []
    for _ in range(count):
        kind, needs = draw.choice(kinds), random_requirements(draw)
        if not is_the_tables(place(StepView(kind=kind, requirements=needs), snapshot), kind, needs):
            wrong.append((kind, needs))

    assert wrong == []


def test_the_policy_of_rules_is_the_tables_whatever_was_learned() -> None:
    draw = random.Random(5)
    snapshot, policy = able(random_model(draw)), Policy(name=PolicyName.RULES)
    for _ in range(2_000):
        kind, needs = draw.choice(list(StepKind)), random_requirements(draw)
        view = StepView(kind=kind, requirements=needs, signature=f"w/{draw.randrange(12)}", family="python")

        assert is_the_tables(place(view, snapshot, policy), kind, needs)
