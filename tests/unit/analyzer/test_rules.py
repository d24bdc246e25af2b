"""The tables, against a plain re-statement of them that shares no code with the rows."""

import itertools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from unit.analyzer.learned_cases import FLAGS, SIZES, restated

from flexcore.analyzer.rules import GB, Thresholds, is_resource_intensive, rule_choice
from flexcore.model.workflow import Complexity, Requirements, StepKind

CPUS = (None, 0.0, 7.99, 8.0, 8.01)
MEMORIES = (None, 32 * GB - 1, 32 * GB, 32 * GB + 1)
GPUS = (None, 0.0, 0.5, 1.0)


def test_every_kind_flag_and_size_follows_the_tables() -> None:
    grid = itertools.product(StepKind, SIZES, (None, *Complexity), FLAGS, FLAGS, FLAGS, FLAGS)
    wrong = []
    for kind, size, complexity, intensive, parallel, contained, scalable in grid:
        needs = Requirements(
            data_size=size,
            complexity=complexity,
            resource_intensive=intensive,
            parallelizable=parallel,
            containerized=contained,
            scalable=scalable,
        )
        if rule_choice(kind, needs) != restated(kind, needs):
            wrong.append((kind, needs))

    assert wrong == []


@pytest.mark.parametrize("parallel", FLAGS)
@pytest.mark.parametrize("intensive", FLAGS)
def test_amounts_at_and_around_the_thresholds_follow_the_tables(intensive: bool | None, parallel: bool | None) -> None:
    for cpu, memory, gpu in itertools.product(CPUS, MEMORIES, GPUS):
        needs = Requirements(cpu=cpu, memory=memory, gpu=gpu, resource_intensive=intensive, parallelizable=parallel)

        assert rule_choice(StepKind.PYTHON, needs) == restated(StepKind.PYTHON, needs)


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.sampled_from(StepKind),
    st.builds(
        Requirements,
        data_size=st.none() | st.sampled_from(SIZES) | st.integers(0, 10**13),
        complexity=st.none() | st.sampled_from(Complexity),
        cpu=st.none() | st.floats(0, 64),
        memory=st.none() | st.integers(0, 10**12),
        gpu=st.none() | st.floats(0, 8),
        resource_intensive=st.sampled_from(FLAGS),
        parallelizable=st.sampled_from(FLAGS),
        containerized=st.sampled_from(FLAGS),
        scalable=st.sampled_from(FLAGS),
    ),
)
def test_random_steps_follow_the_tables(kind: StepKind, needs: Requirements) -> None:
    assert rule_choice(kind, needs) == restated(kind, needs)


@pytest.mark.parametrize(
    ("size", "row"), [(10 * GB - 1, "P1"), (10 * GB, "P4"), (100 * GB, "P4"), (100 * GB + 1, "P2"), (None, "P4")]
)
def test_bounds_are_strict_and_unknown_is_not_zero(size: int | None, row: str) -> None:
    needs = Requirements(data_size=size, complexity=Complexity.SIMPLE)

    assert rule_choice(StepKind.MELTANO, needs).row == row


def test_resource_intensive_is_unknown_when_no_amount_is_declared() -> None:
    assert is_resource_intensive(Requirements()) is None
    assert is_resource_intensive(Requirements(cpu=2)) is False


def test_thresholds_are_configurable() -> None:
    assert is_resource_intensive(Requirements(cpu=2), Thresholds(cpu=2)) is True
