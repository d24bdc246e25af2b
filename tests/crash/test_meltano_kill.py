"""SIGKILL below the control plane: Meltano, its group, the tap alone, the target alone, while rows flow."""

import os
import random

import pytest

from flexcore.testing.campaign import Ground
from flexcore.testing.meltano_campaign import Victim, killed, plan

SEED = int(os.environ.get("FLEXCORE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)
ROWS_FLOW_S = 2.5  # about as long as tap and target live undisturbed


@pytest.mark.parametrize("victim", Victim)
def test_a_run_that_was_killed_is_run_again_and_loses_and_doubles_nothing(ground: Ground, victim: Victim) -> None:
    chance = random.Random(SEED)
    planned = next(each for each in plan(len(Victim), ROWS_FLOW_S, chance) if each.victim is victim)

    each = killed(ground, planned)

    print(f"seed {SEED}: {each}")
    assert each.problems == [], f"FLEXCORE_TEST_SEED={SEED}: {each}"
