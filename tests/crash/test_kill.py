"""SIGKILL of the control plane at random moments of the main job: Meltano, its tap and its target on real data."""

import os
import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from flexcore.testing import auditor
from flexcore.testing.campaign import WORKFLOW, Ground, killed, plan
from flexcore.testing.command import until

KILLS = 4
SEED = int(os.environ.get("FLEXCORE_TEST_SEED", "0")) or random.SystemRandom().randrange(1, 2**32)


@pytest.mark.parametrize("number", range(KILLS))
def test_the_main_job_survives_a_kill(ground: Ground, number: int) -> None:
    planned = plan(KILLS, ground.usual_s, random.Random(SEED))[number]

    each = killed(ground, planned, random.Random(SEED + number), again=0)

    print(f"seed {SEED}: {each}")
    assert each.problems == [], f"FLEXCORE_TEST_SEED={SEED}: {each}"


def test_the_auditor_sees_what_is_wrong(ground: Ground, tmp_path: Path) -> None:
    """After a sound run: what the tap wrote down is there twice, the target and a status are not what they were."""
    assert list(ground.problems()) == []
    journal = ground.project / "effects.jsonl"
    before = journal.read_text()
    journal.write_text(before + before.replace('"pid": ', '"pid": 9'))
    target = ground.site.folder / WORKFLOW / "output" / "flights.duckdb"
    target.rename(tmp_path / "elsewhere.duckdb")
    with closing(sqlite3.connect(ground.site.database)) as connection, connection:
        connection.execute("UPDATE steps SET status = 'failed' WHERE path = 'check'")

    found = "; ".join(ground.problems())

    assert "was read 2 times for 1 attempts" in found
    assert "at the same time" in found
    assert "there is no target" in found
    assert "their history says" in found


@pytest.mark.parametrize("owner_dies", [False, True])
def test_a_cancel_reaches_tap_and_target_and_the_next_run_loses_nothing(ground: Ground, owner_dies: bool) -> None:
    ground.reset()
    site = ground.site
    owner = site.start("workflow", "execute", WORKFLOW)
    until(
        lambda: plugins(ground) == {"tap-flights", "target-duckdb"} and (ground.project / "effects.jsonl").exists(),
        "rows flow",
    )
    (told,) = auditor.executions(site.database)
    if owner_dies:
        owner.kill(group=True)

    cancelled = site.run("--output", "json", "workflow", "cancel", told.id)

    assert cancelled.document["status"] == "cancelled", cancelled.err
    assert plugins(ground) == set()
    assert owner_dies or owner.ended().code == 4
    assert auditor.processes_of(site.folder) == {}
    after = site.run("workflow", "execute", WORKFLOW)
    assert after.code == 0, after.err
    target = site.folder / WORKFLOW / "output" / "flights.duckdb"
    assert list(auditor.target_problems(ground.project, target)) == []
    assert list(auditor.store_problems(auditor.executions(site.database))) == []


def plugins(ground: Ground) -> set[str]:
    commands = " ".join(auditor.processes_of(ground.site.folder).values())
    return {name for name in ("tap-flights", "target-duckdb") if f"/venv/bin/{name}" in commands}
