"""An explanation is true: its figures make the score, and the same question has the same answer everywhere."""

import hashlib
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from unit.analyzer.learned_cases import STEP, able, as_text, random_answers, seen

from flexcore.analyzer.explain import explain, why
from flexcore.analyzer.place import place
from flexcore.analyzer.predict import Model
from flexcore.analyzer.snapshot import Snapshot
from flexcore.analyzer.workload import facts
from flexcore.model.workflow import Requirements, StepKind

ROOT = Path(__file__).parents[3]


def digest(count: int) -> str:
    placements = [each[3] for each in random_answers(seed=7, snapshots=count // 200, steps=200)]
    return hashlib.sha256("".join([as_text(placements), *(why(each) for each in placements)]).encode()).hexdigest()


@pytest.mark.parametrize("count", [3_000, pytest.param(100_000, marks=pytest.mark.campaign)])
def test_the_parts_that_are_shown_make_the_score(count: int) -> None:
    judged = 0
    for _, _, policy, placement in random_answers(seed=3, snapshots=count // 200, steps=200):
        weights = placement.weights
        for verdict in placement.verdicts:
            found = verdict.prediction
            if found is None:
                continue
            judged += 1
            total = found.wait.mean + found.start.mean + found.move.mean + found.exec.mean
            risk = found.p_miss if found.p_miss > weights["tolerated_miss"] else 0.0
            restated = (
                weights["time"] * total / (1 - found.p_fail)
                + weights["cost"] * (found.cost or 0.0) * weights["seconds_per_unit"]
                + weights["risk"] * risk * weights["deadline_penalty"]
                + found.score.degraded
            )
            assert verdict.score == pytest.approx(sum(found.score), rel=1e-9, abs=1e-9)
            assert verdict.score == pytest.approx(restated, rel=1e-9, abs=1e-9)
            assert found.total.mean == pytest.approx(total, rel=1e-9)
            assert found.score.degraded in (0.0, policy.degraded_penalty.total_seconds())
            assert 0 <= found.p_best <= 1 and found.total.p50 <= found.total.p90

    assert judged > count / 2


def test_the_choice_is_among_the_candidates_and_every_answer_can_be_said() -> None:
    for _, snapshot, _, placement in random_answers(seed=11, snapshots=20, steps=50):
        assert placement.chosen is None or placement.chosen in snapshot.names
        assert placement.fault == ""
        assert all(explain(placement))


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("count", [1_000, pytest.param(100_000, marks=pytest.mark.campaign)])
def test_another_process_with_other_hashes_gives_the_same_answers(count: int) -> None:
    code = f"from unit.analyzer.test_explanation import digest; print(digest({count}))"
    path = os.pathsep.join(str(each) for each in (ROOT, ROOT / "tests"))
    environments = [{**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": seed} for seed in ("1", "2024")]
    others = [
        subprocess.run([sys.executable, "-c", code], env=each, capture_output=True, text=True, check=True)
        for each in environments
    ]

    assert {each.stdout.strip() for each in others} == {digest(count)}


def test_the_same_question_to_an_equal_snapshot_has_the_same_answer() -> None:
    for step, snapshot, policy, placement in random_answers(seed=5, snapshots=4, steps=50):
        fresh = replace(snapshot, model=Model(snapshot.model.memory))

        assert place(step, fresh, policy) == placement
        assert place(step, fresh, policy, seed="another") == placement


def learned() -> Snapshot:
    runs = [seen(name, seconds) for _ in range(4) for name, seconds in (("meltano", 100), ("ray", 10))]
    return able(Model().observed(runs), ("meltano", "ray"))


def test_the_line_of_a_learned_choice_has_the_figures_that_decided() -> None:
    line = why(place(STEP, learned()))

    assert line.startswith("ray, because earlier runs say about 1")
    assert "on meltano; the rules (P4: nothing else applies) choose meltano" in line


def test_the_sentences_have_phases_odds_and_weights() -> None:
    sentences = explain(place(STEP, learned()))

    assert any(each.startswith("ray: about") and "start 0.1 s, run" in each for each in sentences)
    assert any("is the best" in each and "from 4 runs of the step there" in each for each in sentences)
    assert any(each.startswith("policy balanced: time 1, cost 1") for each in sentences)


def test_what_is_inferred_says_from_what() -> None:
    step = replace(STEP, signature="", facts=facts(StepKind.PYTHON, "import torch\n"))

    asking = replace(step, requirements=Requirements(cpu=2))

    assert any("complexity ml (inferred: imports torch)" in each for each in explain(place(asking, able())))
    assert any("imports torch, not acted on, as" in each for each in explain(place(step, able())))
