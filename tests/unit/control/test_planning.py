"""The holder of the snapshot: what it counts, and what it says of it."""

from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from unit.analyzer.learned_cases import STEP, able, candidate, seen

from flexcore.analyzer.policy import Policy
from flexcore.analyzer.predict import Model
from flexcore.analyzer.snapshot import Snapshot
from flexcore.control.planning import Planner
from flexcore.engine.ports import Loaded
from flexcore.language.native import parse
from flexcore.model.graph import build
from flexcore.model.workflow import StepKind
from flexcore.monitor.lookout import Lookout
from flexcore.monitor.metrics import Metrics
from flexcore.runtime.candidate import Candidate
from flexcore.runtime.interface import Capabilities, Health


class Broken(Model):
    """A model with a bug."""

    def outlook(self, signature: str, family: str, runtime: str) -> object:  # type: ignore[override]
        raise ZeroDivisionError("float division by zero")


def planner(lookout: Lookout, snapshot: Snapshot) -> Planner:
    return Planner(lookout=lookout, policy=Policy(), snapshot=snapshot)


@pytest.fixture
def lookout() -> Lookout:
    """One that is never asked."""
    return Lookout(
        candidates=NotImplemented, known=tuple, loads=NotImplemented, prices={}, learning=None, now=NotImplemented
    )


def test_a_bug_in_what_is_learned_is_counted_each_time_and_logged_once(
    lookout: Lookout,
) -> None:
    model = Broken(Model().observed([seen("ray", 1.0)] * 9).memory)
    placing, metrics = planner(lookout, able(model)), Metrics()
    metrics.count_placement(lambda: placing.faults, lambda: len(placing.resting))

    with capture_logs() as logged:
        placed = [placing.place(replace(STEP, signature=name)) for name in ("w/s", "w/s", "w/other")]

    assert [each.chosen for each in placed] == ["meltano"] * 3
    assert [each["event"] for each in logged] == ["placement.fault"]
    assert b"flexcore_placement_faults 3.0" in metrics.render()


def test_families_whose_learning_rests_are_told(lookout: Lookout) -> None:
    model = Model().observed([seen("ray", 10, score=10.0, rule_score=2.0)] * 30)

    assert planner(lookout, able(model)).resting == ("python",)
    assert planner(lookout, able()).resting == ()


LOCAL = replace(candidate("local"), capabilities=Capabilities(step_kinds=frozenset({StepKind.BASH})))


@pytest.mark.parametrize(
    ("others", "hints"),
    [
        ((), 1),
        ((candidate("kubernetes", Health.DOWN),), 0),
        ((replace(candidate("kubernetes"), enabled=False),), 0),
        ((candidate("remote", Health.DOWN, priority=9),), 0),
    ],
    ids=["only a local one", "it is down", "it is disabled", "another that can is down"],
)
def test_a_step_for_kubernetes_says_that_none_is_configured(
    lookout: Lookout, others: tuple[Candidate, ...], hints: int
) -> None:
    text = "name: w\nsteps: [{id: a, type: container, with: {image: alpine}}, {id: b, type: bash, with: {script: x}}]"
    loaded = Loaded(graph=build(parse(text, "w.yaml")), folder=Path())

    found = planner(lookout, Snapshot((LOCAL, *others))).plan(loaded, None)["hints"]

    assert len(found) == hints
    assert all("add `runtimes: {kubernetes: …}` to the settings" in each for each in found)
