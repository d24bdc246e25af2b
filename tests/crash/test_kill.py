"""SIGKILL of the control plane at random moments of the main job: Meltano, its tap and its target on real data."""

import os
import random
from pathlib import Path

import pytest

from flexcore.testing.campaign import Ground, Round, plan, run_round

KILLS = 6
SEED = int(os.environ.get("FLEXCORE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The job's folder, with everything installed once."""
    found = Ground(tmp_path_factory.mktemp("kill") / "site")
    found.prepare()
    return found


@pytest.mark.parametrize("number", range(KILLS))
def test_the_main_job_survives_a_kill(ground: Ground, number: int) -> None:
    each: Round = plan(KILLS, ground.usual_s, random.Random(SEED))[number]

    run_round(ground, each, random.Random(SEED + number), again=0)

    print(f"seed {SEED}: {each}")
    assert each.problems == [], f"FLEXCORE_TEST_SEED={SEED}: {each}"


def test_the_auditor_sees_what_is_wrong(ground: Ground, tmp_path: Path) -> None:
    """Doubling what the tap wrote down, and a process left in the folder, must not go unnoticed."""
    journal = ground.project / "effects.jsonl"
    before = journal.read_text()
    journal.write_text(before + before.replace('"pid": ', '"pid": 9'))
    target = ground.site.folder / "singer_extraction" / "output" / "flights.duckdb"
    target.rename(tmp_path / "elsewhere.duckdb")

    found = "; ".join(ground.problems())

    assert "was read 2 times for 1 attempts" in found
    assert "at the same time" in found
    assert "there is no target" in found
