"""Feasibility, the fallback order, pins, and when a step waits."""

import itertools
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from flexcore.analyzer.explain import explain, why
from flexcore.analyzer.place import StepView, place, waits
from flexcore.analyzer.rules import GB, rule_choice
from flexcore.analyzer.snapshot import Candidate, Snapshot
from flexcore.model.placement import Infeasibility, Placement, ReasonCode
from flexcore.model.workflow import Complexity, Requirements, StepKind
from flexcore.runtime.interface import Capabilities, Health, HealthStatus, Resources

EVERYTHING = frozenset(StepKind)
PLAIN = frozenset({StepKind.PYTHON, StepKind.BASH, StepKind.SQL, StepKind.HTTP, StepKind.FUNCTION})
PIPELINES = frozenset({StepKind.SINGER, StepKind.DBT, StepKind.MELTANO})


def health(state: Health = Health.UP, reason: str = "answers") -> HealthStatus:
    return HealthStatus(state=state, reason=reason, checked_at=datetime(2026, 1, 1, tzinfo=UTC))


def candidate(
    name: str,
    kinds: frozenset[StepKind] = EVERYTHING,
    *,
    kind: str | None = None,
    priority: int = 1,
    state: Health = Health.UP,
    enabled: bool = True,
    limits: Resources | None = None,
    obstacle: Infeasibility | None = None,
) -> Candidate:
    return Candidate(
        name=name,
        kind=kind or name,
        priority=priority,
        capabilities=Capabilities(step_kinds=kinds, limits=limits or Resources()),
        health=health(state, "connection refused" if state is Health.DOWN else "answers"),
        enabled=enabled,
        obstacle=obstacle,
    )


def four(**states: Health) -> Snapshot:
    """Four runtimes as they are in the world."""
    limits = Resources(cpu=4, memory=16 * GB, gpu=0)
    return Snapshot(
        (
            candidate("local", PLAIN, priority=4, limits=limits, state=states.get("local", Health.UP)),
            candidate("meltano", PIPELINES, priority=1, state=states.get("meltano", Health.UP)),
            candidate("ray", PLAIN | {StepKind.RAY}, priority=2, state=states.get("ray", Health.UP)),
            candidate("kubernetes", priority=3, state=states.get("kubernetes", Health.UP)),
        )
    )


def step(kind: StepKind = StepKind.PYTHON, **needs: object) -> StepView:
    return StepView(kind=kind, requirements=Requirements(**needs))  # type: ignore[arg-type]  # a test's shorthand


def codes(placement: Placement, runtime: str) -> list[str]:
    return [
        each.code.value for verdict in placement.verdicts if verdict.runtime == runtime for each in verdict.infeasible
    ]


def test_where_nothing_is_chosen_only_what_counts_is_named() -> None:
    local, down = candidate("local"), candidate("ray", state=Health.DOWN)
    kinds = candidate("meltano", PIPELINES)
    snapshot = Snapshot((local, down, kinds))
    waiting = place(StepView(kind=StepKind.PYTHON, pin="ray"), snapshot)
    pinned = place(StepView(kind=StepKind.PYTHON, pin="meltano"), snapshot)
    absent = place(StepView(kind=StepKind.PYTHON, pin="nowhere"), snapshot)

    assert [[each.runtime for each in found.in_the_way] for found in (waiting, pinned, absent)] == [
        ["ray"], ["meltano"], ["nowhere"],
    ]  # fmt: skip


def test_where_everything_is_feasible_the_answer_is_the_tables() -> None:
    able = Snapshot(tuple(candidate(name) for name in ("local", "meltano", "ray", "kubernetes")))
    sizes = (None, 10 * GB - 1, 10 * GB, 100 * GB, 100 * GB + 1)
    flags = (None, False, True)
    for kind, size, complexity, cpu, parallel, scalable in itertools.product(
        StepKind, sizes, (None, *Complexity), (None, 2, 8), flags, flags
    ):
        view = step(kind, data_size=size, complexity=complexity, cpu=cpu, parallelizable=parallel, scalable=scalable)

        placement = place(view, able)

        expected = rule_choice(kind, view.requirements)
        found = (placement.chosen, placement.rule_would_choose, placement.rule, placement.source)
        assert found == (expected.runtime, expected.runtime, expected.row, "rule")
        assert placement.fallback_reason is None


def test_a_plain_step_falls_back_to_local_first() -> None:
    placement = place(step(), four())

    assert (placement.chosen, placement.source, placement.rule_would_choose) == ("local", "rule", "meltano")
    assert placement.fallback_reason == "the rules (P4) would choose meltano, but meltano cannot run python steps"
    assert codes(placement, "meltano") == ["TYPE_UNSUPPORTED"]


@pytest.mark.parametrize("needs", [{"gpu": 0.5}, {"cpu": 6}, {"memory": 17 * GB}])
def test_what_a_local_process_cannot_hold_falls_back_by_priority(needs: dict[str, object]) -> None:
    assert place(step(StepKind.PYTHON, **needs), four()).chosen == "ray"


def test_ml_and_scalable_steps_do_not_fall_back_to_local_first() -> None:
    assert place(step(complexity=Complexity.ML), four(ray=Health.DOWN)).chosen == "kubernetes"
    assert place(step(scalable=True), four(kubernetes=Health.DOWN)).chosen == "ray"


def test_local_is_the_last_resort_for_what_it_cannot_hold_whatever_its_priority() -> None:
    snapshot = Snapshot((candidate("local", priority=0), candidate("kubernetes", priority=3)))

    assert place(step(complexity=Complexity.ML), snapshot).chosen == "kubernetes"


def test_local_holds_exactly_its_limits() -> None:
    placement = place(step(cpu=4, memory=16 * GB), four())

    assert placement.chosen == "local"


def test_the_only_feasible_runtime_is_taken() -> None:
    placement = place(step(scalable=True), Snapshot((candidate("local", PLAIN),)))

    assert (placement.chosen, placement.source) == ("local", "only-feasible")
    assert codes(placement, "kubernetes") == ["NOT_CONFIGURED"]
    assert "kubernetes is not configured; present: local" in (placement.fallback_reason or "")


def test_of_several_instances_of_a_type_the_best_feasible_is_taken() -> None:
    names = (("ray-b", 2, Health.UP), ("ray-a", 2, Health.UP), ("ray-first", 1, Health.DOWN))
    snapshot = Snapshot(tuple(candidate(n, kind="ray", priority=p, state=s) for n, p, s in names))

    placement = place(step(complexity=Complexity.ML), snapshot)

    assert (placement.chosen, placement.source) == ("ray-a", "rule")
    assert placement.fallback_reason == (
        "the rules (P2) would choose ray-first, but ray-first is down: connection refused"
    )


def test_a_pin_is_kept() -> None:
    placement = place(StepView(kind=StepKind.PYTHON, pin="ray"), four())

    assert (placement.chosen, placement.source, placement.rule_would_choose) == ("ray", "pinned", "meltano")
    assert codes(placement, "local") == ["PINNED_ELSEWHERE"]


def test_an_infeasible_pin_is_not_replaced() -> None:
    placement = place(StepView(kind=StepKind.PYTHON, pin="meltano"), four())

    assert (placement.chosen, placement.source, waits(placement)) == (None, "none", False)
    assert codes(placement, "meltano") == ["TYPE_UNSUPPORTED"]


def test_a_pin_on_an_unknown_runtime_names_those_present() -> None:
    placement = place(StepView(kind=StepKind.PYTHON, pin="mars"), four())

    assert placement.chosen is None
    assert codes(placement, "mars") == ["NOT_CONFIGURED"]
    assert "mars is not configured; present: kubernetes, local, meltano, ray" in why(placement)


def test_a_pin_on_a_runtime_that_is_down_waits() -> None:
    placement = place(StepView(kind=StepKind.PYTHON, pin="ray"), four(ray=Health.DOWN))

    assert placement.chosen is None
    assert waits(placement)


def test_a_wish_holds_for_what_the_runtime_can_run() -> None:
    assert place(StepView(kind=StepKind.PYTHON, preferred="ray"), four()).source == "pinned"
    assert place(StepView(kind=StepKind.SINGER, preferred="ray"), four()).chosen == "meltano"
    assert waits(place(StepView(kind=StepKind.PYTHON, preferred="ray"), four(ray=Health.DOWN)))


def test_a_pin_is_stronger_than_a_wish() -> None:
    assert place(StepView(kind=StepKind.PYTHON, pin="local", preferred="ray"), four()).chosen == "local"


def test_nothing_feasible_fails_for_lasting_reasons() -> None:
    placement = place(step(gpu=1), Snapshot((candidate("local", limits=Resources(gpu=0)),)))

    assert (placement.chosen, placement.source, waits(placement)) == (None, "none", False)
    assert codes(placement, "local") == ["GPU"]


def test_a_lasting_reason_beside_a_temporary_one_does_not_wait() -> None:
    down = candidate("local", limits=Resources(cpu=2), state=Health.DOWN)

    placement = place(step(cpu=3), Snapshot((down,)))

    assert codes(placement, "local") == ["CPU", "UNHEALTHY"]
    assert not waits(placement)


def test_an_open_circuit_waits() -> None:
    obstacle = Infeasibility(ReasonCode.CIRCUIT_OPEN, "ray did not answer five times in a row")
    placement = place(step(), Snapshot((candidate("ray", obstacle=obstacle),)))

    assert codes(placement, "ray") == ["CIRCUIT_OPEN"]
    assert waits(placement)


def test_degraded_runtimes_are_allowed() -> None:
    assert place(step(StepKind.SINGER), four(meltano=Health.DEGRADED)).chosen == "meltano"


def test_disabled_runtimes_are_not_used() -> None:
    placement = place(step(), Snapshot((candidate("local", enabled=False),)))

    assert codes(placement, "local") == ["DISABLED"]
    assert not waits(placement)


def test_tags_and_costs_are_held_against_the_runtime() -> None:
    priced = Capabilities(step_kinds=EVERYTHING, tags=frozenset({"eu"}), price_per_hour=Decimal("3"))
    snapshot = Snapshot((Candidate(name="ray", kind="ray", capabilities=priced, health=health()),))

    assert codes(place(step(tags=("eu",), max_cost=3), snapshot), "ray") == []
    assert codes(place(step(tags=("eu", "gpu-zone")), snapshot), "ray") == ["TAGS"]
    assert codes(place(step(max_cost=2.99), snapshot), "ray") == ["COST_CEILING"]
    assert codes(place(step(max_cost=1.5, deadline=timedelta(minutes=30)), snapshot), "ray") == []


def test_reasons_name_the_figures() -> None:
    reasons = [
        each.reason
        for verdict in place(step(cpu=16, memory=64 * GB, gpu=2), four()).verdicts
        for each in verdict.infeasible
        if verdict.runtime == "local"
    ]

    assert reasons == [
        "needs 16 cpu, local has at most 4",
        "needs 64 GB of memory, local has at most 16 GB",
        "needs 2 gpu, local has none",
    ]


def test_the_analysis_gives_every_value_its_source() -> None:
    analysis = place(step(StepKind.CONTAINER, cpu=8, complexity=Complexity.ML, tags=("eu",)), four()).analysis

    assert analysis["cpu"] == {"value": 8, "source": "declared"}
    assert analysis["complexity"] == {"value": "ml", "source": "declared"}
    assert analysis["resource_intensive"] == {"value": True, "source": "inferred"}
    assert analysis["containerized"] == {"value": True, "source": "inferred"}
    assert analysis["data_size"] == {"value": None, "source": "unknown"}
    assert analysis["tags"] == {"value": ["eu"], "source": "declared"}


def test_placement_does_not_depend_on_the_order_of_candidates() -> None:
    candidates = four().candidates
    answers = [place(step(cpu=6), Snapshot(order)) for order in itertools.permutations(candidates)]

    assert all(each == answers[0] for each in answers)


def test_the_explanation_says_what_was_chosen_and_why() -> None:
    placement = place(step(), four())

    assert why(placement) == (
        "local, because it is next in the fallback order; "
        "the rules (P4) would choose meltano, but meltano cannot run python steps"
    )
    assert "meltano: meltano cannot run python steps [TYPE_UNSUPPORTED]" in explain(placement)
    assert "ray: could run it too" in explain(placement)


@pytest.mark.parametrize("view", [step(StepKind.SINGER), step(gpu=1), StepView(kind=StepKind.BASH, pin="ray")])
def test_every_source_has_an_explanation(view: StepView) -> None:
    assert explain(place(view, four()))[0].startswith(place(view, four()).chosen or "none")
