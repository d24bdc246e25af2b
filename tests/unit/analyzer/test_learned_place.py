"""Placement by what was learned: when it may overrule the rules, by what it scores, and when it must not."""

import itertools
from dataclasses import replace
from datetime import timedelta

import pytest
from unit.analyzer.learned_cases import STEP, able, candidate, seen

from flexcore.analyzer.place import Policy, StepView, place
from flexcore.analyzer.policy import PolicyName, Weights
from flexcore.analyzer.predict import Model
from flexcore.analyzer.snapshot import Load, Snapshot
from flexcore.analyzer.view import Measured, Source, Stored
from flexcore.analyzer.workload import facts
from flexcore.model.observation import Observation
from flexcore.model.placement import Placement, Prediction
from flexcore.model.workflow import Complexity, Requirements, StepKind
from flexcore.runtime.interface import Health


def after(*runs: Observation, names: tuple[str, ...] = ("local", "meltano", "ray", "kubernetes")) -> Snapshot:
    return able(Model().observed(runs), names)


def times(count: int, **seconds: float) -> list[Observation]:
    return [seen(name, each) for _ in range(count) for name, each in seconds.items()]


def reasons(placement: Placement, runtime: str) -> list[str]:
    return [each.code.value for found in placement.verdicts if found.runtime == runtime for each in found.infeasible]


def expected(placement: Placement, runtime: str) -> Prediction:
    found = next(each.prediction for each in placement.verdicts if each.runtime == runtime)
    assert found is not None
    return found


def test_after_enough_runs_the_faster_runtime_is_taken() -> None:
    placement = place(STEP, after(*times(4, meltano=100, ray=10)))

    assert (placement.chosen, placement.source, placement.rule_would_choose) == ("ray", "learned", "meltano")
    assert (placement.chosen_kind, placement.fallback_reason) == ("ray", None)


def test_a_step_that_never_ran_goes_by_the_rules_until_its_family_is_known() -> None:
    kin = [seen("ray", 1, signature="w/other")]

    assert place(STEP, after(*kin * 4)).verdicts[0].prediction is None
    assert place(STEP, after(*kin * 5)).source == "rule"
    assert place(STEP, after(*kin * 5)).verdicts[0].prediction is not None


def test_with_few_runs_the_rules_stand_unless_another_is_almost_certainly_better() -> None:
    assert place(STEP, after(seen("meltano", 11), seen("ray", 10))).source == "rule"
    assert place(STEP, after(seen("meltano", 100_000), seen("ray", 1), seen("ray", 1))).chosen == "ray"


def test_a_step_without_a_signature_goes_by_the_rules() -> None:
    assert place(replace(STEP, signature=""), after(*times(9, meltano=100, ray=1))).source == "rule"


def test_a_small_gain_does_not_move_a_step() -> None:
    snapshot = after(*times(30, ray=100, kubernetes=100))
    there = place(STEP, replace(snapshot, incumbents={"w/s": "kubernetes"}))
    here = place(STEP, replace(snapshot, incumbents={"w/s": "ray"}))

    assert (there.chosen, here.chosen) == ("kubernetes", "ray")


def test_a_gain_above_the_hysteresis_moves_a_step() -> None:
    snapshot = replace(after(*times(200, ray=100, kubernetes=90)), incumbents={"w/s": "ray"})

    assert place(STEP, snapshot).chosen == "kubernetes"
    assert place(STEP, snapshot, Policy(hysteresis=0.5)).chosen == "ray"


def test_ties_go_by_priority_then_name() -> None:
    model = Model().observed(times(5, **{"ray-b": 10, "ray-a": 10, "ray-c": 10}))
    names = (("ray-b", 2), ("ray-a", 2), ("ray-c", 1))
    snapshot = Snapshot(tuple(candidate(name, priority=p) for name, p in names), model=model, incumbents={"w/s": "-"})
    equal = Snapshot(snapshot.candidates[1:], model=model, incumbents={"w/s": "-"})

    assert place(STEP, snapshot).chosen == "ray-c"
    assert place(STEP, equal).chosen == "ray-a"


def test_policies_weigh_time_and_money() -> None:
    snapshot = replace(after(*times(10, meltano=400, ray=40, kubernetes=100)), prices={"ray": 60.0, "kubernetes": 6.0})
    snapshot = replace(snapshot, candidates=tuple(each for each in snapshot.candidates if each.name != "local"))

    chosen = {name: place(STEP, snapshot, Policy(name=name)).chosen for name in PolicyName}

    assert chosen == {"fastest": "ray", "balanced": "kubernetes", "cheapest": "meltano"} | {
        "deadline": "meltano",
        "rules": "meltano",
    }


def test_the_policy_of_deadlines_takes_the_least_money_that_makes_it() -> None:
    snapshot = replace(
        after(*times(60, ray=40, kubernetes=100, local=400), names=("local", "ray", "kubernetes")),
        prices={"ray": 60.0, "kubernetes": 6.0},
    )
    policy = Policy(name=PolicyName.DEADLINE)
    chosen = [
        place(replace(STEP, deadline=timedelta(seconds=each)), snapshot, policy).chosen for each in (4000, 200, 60)
    ]

    assert chosen == ["local", "kubernetes", "ray"]


def test_weights_can_be_set() -> None:
    snapshot = replace(after(*times(10, meltano=400, ray=40)), prices={"ray": 60.0})
    policy = Policy(weights=Weights(seconds_per_unit=1.0))

    assert place(STEP, snapshot, policy).chosen == "ray"
    assert place(STEP, snapshot, policy).weights["seconds_per_unit"] == 1.0


def test_a_deadline_leaves_out_what_is_known_to_be_too_slow() -> None:
    view = replace(STEP, deadline=timedelta(seconds=50))
    placement = place(view, after(*times(3, meltano=100, ray=10)))

    reasons = {verdict.runtime: [each.code.value for each in verdict.infeasible] for verdict in placement.verdicts}
    assert reasons["meltano"] == ["DEADLINE"]
    assert placement.chosen != "meltano"
    assert "by 3 earlier runs there" in (placement.fallback_reason or placement.verdicts[1].infeasible[0].reason)


def test_with_a_run_or_two_a_late_choice_of_the_rules_falls_back_like_an_infeasible_one() -> None:
    view = replace(STEP, deadline=timedelta(seconds=50))
    placement = place(view, after(seen("meltano", 100), seen("local", 2), names=("meltano", "local", "ray")))

    assert (placement.chosen, placement.source) == ("local", "rule")
    assert "50 s are left" in (placement.fallback_reason or "")


def test_where_nothing_makes_the_deadline_the_fastest_is_taken_with_a_warning() -> None:
    view = replace(STEP, deadline=timedelta(seconds=1))
    placement = place(view, after(*times(5, local=400, meltano=100, ray=40, kubernetes=90)))

    assert placement.chosen == "ray"
    assert placement.warnings == (
        "nothing is predicted to make the deadline; ray is the fastest with about "
        f"{expected(placement, 'ray').total.mean:.0f} s",
    )


def test_a_pin_is_kept_although_it_misses_the_deadline() -> None:
    view = replace(STEP, deadline=timedelta(seconds=1), pin="ray")
    placement = place(view, after(*times(5, ray=40)))

    assert (placement.chosen, placement.source) == ("ray", "pinned")
    assert placement.warnings


def test_without_evidence_a_deadline_excludes_nothing() -> None:
    placement = place(replace(STEP, deadline=timedelta(microseconds=1)), after())

    assert (placement.chosen, placement.source) == ("meltano", "rule")


def test_a_degraded_runtime_is_penalised() -> None:
    snapshot = after(*times(10, meltano=100, ray=90))
    sick = tuple(
        candidate(each.name, Health.DEGRADED if each.name == "ray" else Health.UP) for each in snapshot.candidates
    )

    assert place(STEP, snapshot).chosen == "ray"
    placement = place(STEP, replace(snapshot, candidates=sick))
    assert placement.chosen != "ray"
    assert expected(placement, "ray").score.degraded == 60


def test_a_long_queue_sends_a_step_elsewhere() -> None:
    snapshot = after(*times(10, meltano=100, ray=20))
    busy = replace(snapshot, loads={"ray": Load(queued=20, running=4, slots=4)})

    assert place(STEP, snapshot).chosen == "ray"
    assert place(STEP, busy).chosen != "ray"
    assert expected(place(STEP, busy), "ray").wait.mean == pytest.approx(21 / 4 * 20, rel=0.01)


def test_data_that_is_not_in_place_has_to_be_moved() -> None:
    view = replace(STEP, inputs=(Stored("s3", 10**9), Stored("file", 10**12)))
    placement = place(view, after(*times(5, meltano=10, ray=10)))

    assert expected(placement, "ray").move.mean == pytest.approx(10.05)


def test_failures_count_as_repeats() -> None:
    runs = [*times(10, meltano=11, ray=10), *[seen("ray", 1, outcome="lost", start=None)] * 10]
    placement = place(STEP, after(*runs))

    assert expected(placement, "ray").p_fail > 0.2
    assert placement.chosen == "meltano"


def test_the_size_decides_between_a_quick_start_and_a_fast_machine() -> None:
    runs = [
        seen(name, seconds * size / 10**8, size, start=start)
        for size in (10**8, 10**9, 10**10)
        for name, seconds, start in (("meltano", 2.0, 0.1), ("ray", 0.2, 30.0))
    ]
    snapshot = after(*runs * 5, names=("meltano", "ray"))

    assert place(replace(STEP, data=Measured(10**8, Source.MEASURED)), snapshot).chosen == "meltano"
    assert place(replace(STEP, data=Measured(10**10, Source.MEASURED)), snapshot).chosen == "ray"


def test_an_unknown_size_widens_the_prediction() -> None:
    runs = [seen("ray", size / 10**8, size) for size in (10**8, 10**9, 10**10)] * 5
    known = place(replace(STEP, data=Measured(10**9, Source.MEASURED)), after(*runs))
    unknown = place(STEP, after(*runs))

    assert expected(unknown, "ray").exec.p90 > 2 * expected(known, "ray").exec.p90
    assert unknown.analysis["data_size"]["source"] == "learned"  # type: ignore[call-overload,index]  # JSON
    assert unknown.input_bytes is None


def test_the_cost_of_the_choice_is_estimated() -> None:
    snapshot = replace(after(*times(50, ray=36), names=("ray",)), prices={"ray": 100.0})
    placement = place(STEP, snapshot)

    assert placement.estimated_cost == pytest.approx(1.0, rel=0.05)
    assert place(STEP, replace(snapshot, prices={})).estimated_cost is None


def test_a_ceiling_on_cost_goes_by_what_the_step_costs_where_it_has_run() -> None:
    costly = {"meltano": 36.0, "ray": 36.0}
    view = replace(STEP, requirements=Requirements(max_cost=1.0))
    cheap = replace(after(*times(9, meltano=5, ray=500), names=("meltano", "ray")), prices=costly)
    unknown = place(view, replace(cheap, model=Model()))
    known = place(view, cheap)

    assert [reasons(unknown, name) for name in costly] == [["COST_CEILING"], ["COST_CEILING"]]
    assert (known.chosen, reasons(known, "ray")) == ("meltano", ["COST_CEILING"])
    sentence = known.verdicts[1].infeasible[0].reason
    assert sentence.startswith("would cost about 5") and sentence.endswith(
        "on ray by 9 earlier runs there, the ceiling is 1"
    )
    assert place(replace(view, pin="ray"), cheap).chosen is None
    assert place(view, replace(cheap, prices={"ray": 36.0, "meltano": 3600.0})).chosen is None


def test_a_placement_says_what_the_rules_would_have_taken_instead() -> None:
    snapshot = after(*times(9, meltano=100, ray=1))

    assert (place(STEP, snapshot).chosen, place(STEP, snapshot).by_rule) == ("ray", "meltano")
    assert place(STEP, after()).by_rule == "meltano"
    assert place(replace(STEP, pin="ray"), snapshot).by_rule is None


def test_a_placement_says_in_which_store_the_input_is() -> None:
    found = [
        place(replace(STEP, inputs=tuple(Stored(store, 1) for store in stores)), after()).input_store
        for stores in (["s3", "s3"], ["s3", "file"], [])
    ]

    assert found == ["s3", "", ""]


def test_what_is_infeasible_is_never_scored_or_chosen() -> None:
    snapshot = after(*times(10, local=1, meltano=100, ray=100))
    small = tuple(candidate(each.name, gpu=0 if each.name == "local" else 8) for each in snapshot.candidates)
    placement = place(replace(STEP, requirements=Requirements(gpu=1)), replace(snapshot, candidates=small))

    assert placement.chosen != "local"
    assert next(each for each in placement.verdicts if each.runtime == "local").score is None


def test_placement_does_not_depend_on_the_order_of_candidates() -> None:
    snapshot = after(*times(5, local=3, meltano=100, ray=10))
    orders = itertools.permutations(snapshot.candidates)
    answers = [place(STEP, replace(snapshot, candidates=order)) for order in orders]

    assert all(each == answers[0] for each in answers)


def test_a_bug_under_a_ceiling_on_cost_leaves_the_choice_to_the_rules_too() -> None:
    model = Model().observed(times(9, meltano=100, ray=1))
    step = replace(STEP, requirements=Requirements(max_cost=9.0))
    placement = place(step, replace(able(Broken(model.memory)), prices={"ray": 1.0}))

    assert (placement.chosen, placement.source) == ("meltano", "rule")
    assert placement.fault.startswith("ZeroDivisionError")


class Broken(Model):
    """A model with a bug."""

    def outlook(self, signature: str, family: str, runtime: str) -> object:  # type: ignore[override]
        raise ZeroDivisionError("float division by zero")


def test_a_bug_in_what_is_learned_leaves_the_choice_to_the_rules() -> None:
    model = Model().observed(times(9, meltano=100, ray=1))
    placement = place(STEP, able(Broken(model.memory)))

    assert (placement.chosen, placement.source) == ("meltano", "rule")
    assert placement.fault == "ZeroDivisionError: float division by zero"


def test_a_runtime_that_cannot_reach_the_data_is_left_out() -> None:
    view = replace(STEP, data_stores=frozenset({"s3", "tape"}))
    placement = place(view, after())

    assert placement.chosen is None
    assert [each.code.value for each in placement.verdicts[0].infeasible] == ["DATA_UNREACHABLE"]
    assert placement.verdicts[0].infeasible[0].reason == (
        "needs data from a store of type tape; local reaches: file, s3"
    )


def test_machine_learning_is_inferred_for_steps_that_ask_for_something() -> None:
    view = StepView(kind=StepKind.PYTHON, facts=facts(StepKind.PYTHON, "import sklearn.svm"))
    asking = replace(view, requirements=Requirements(cpu=2))
    declared = replace(view, requirements=Requirements(complexity=Complexity.SIMPLE, cpu=2))

    assert [place(each, able()).rule for each in (view, asking, declared)] == ["P4", "P2", "P4"]
    assert place(asking, able()).analysis["complexity"] == {
        "value": "ml", "source": "inferred", "because": ["imports sklearn"],
    }  # fmt: skip
    assert place(view, able()).analysis["complexity"] == {
        "value": "ml",
        "source": "inferred",
        "because": ["imports sklearn", "not acted on, as the step asks for no resources"],
    }


def test_without_ray_what_is_only_inferred_to_be_machine_learning_stays_on_the_machine() -> None:
    view = StepView(
        kind=StepKind.PYTHON, requirements=Requirements(cpu=2), facts=facts(StepKind.PYTHON, "import torch")
    )
    declared = replace(view, requirements=Requirements(complexity=Complexity.ML))
    laptop = able(names=("local", "kubernetes"))

    assert place(view, laptop).chosen == "local"
    assert place(declared, laptop).chosen == "kubernetes"
