"""The rules of `decide`, over thousands of seeded simulations of random workflows in a hostile world."""

import pytest

from flexcore.model.lifecycle import EXECUTION_TRANSITIONS, STEP_TRANSITIONS
from flexcore.testing.simulation import Simulation

SEEDS = 800


def test_simulations_keep_every_invariant_and_reach_the_whole_transition_table() -> None:
    seen: set[tuple[object, object]] = set()
    for seed in range(SEEDS):
        simulation = Simulation(seed)

        simulation.run()

        seen |= simulation.transitions
    wanted = {(old, new) for old, allowed in STEP_TRANSITIONS.items() for new in allowed}
    wanted |= {(old, new) for old, allowed in EXECUTION_TRANSITIONS.items() for new in allowed}
    assert wanted - seen == set(), f"never reached in {SEEDS} seeds"


@pytest.mark.parametrize("seed", [3, 77])
def test_the_same_seed_gives_the_same_history(seed: int) -> None:
    first, second = Simulation(seed), Simulation(seed)

    first.run()
    second.run()

    assert first.history == second.history
