"""What transitions teach, and what placement is told of a step."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from flexcore.analyzer.view import Measured, Source, StepView
from flexcore.engine.attempts import measured
from flexcore.engine.draft import Draft
from flexcore.engine.fold import apply, empty
from flexcore.engine.observing import observations
from flexcore.engine.viewing import stores_of, view_of
from flexcore.engine.work import Env, Work
from flexcore.model import changes as c
from flexcore.model.changes import Change, HistoryEntry
from flexcore.model.execution import ExecutionState, Phase, StepState, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import build
from flexcore.model.ids import ExecutionId, StepPath, benchmark_name, signature_of
from flexcore.model.lifecycle import StepStatus
from flexcore.model.observation import Observation
from flexcore.model.placement import Estimate, Evidence, Placement, Prediction, Score, Verdict
from flexcore.model.template import Expression, MapTemplate
from flexcore.model.values import JSON, Payload, Ref
from flexcore.model.workflow import Requirements, Step, StepId, StepKind, Task
from flexcore.testing.factories import task_step, workflow

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
LOAD = StepPath("load")
PLACED = Placement(chosen="local", source="rule", chosen_kind="local", input_bytes=10**9)


def history(*changes: Change) -> tuple[ExecutionState, ExecutionState, list[HistoryEntry]]:
    """Tell a story, a second each; give the state before its last change, after it, and that change's entry."""
    draft = Draft(empty(ExecutionId("exe_1")))
    before, entry = draft.freeze(), None
    for seq, change in enumerate((c.ExecutionAccepted(workflow="etl", version="v"), *changes), 1):
        before = draft.freeze()
        entry = HistoryEntry(seq, AT + timedelta(seconds=seq), change)
        apply(draft, change, entry.at)
    assert entry is not None
    return before, draft.freeze(), [entry]


def dispatched(path: StepPath = LOAD) -> c.StepDispatched:
    return c.StepDispatched(path=path, kind="python", attempt=1, token=1, runtime="local", placement=PLACED)


def taught(*changes: Change) -> list[Observation]:
    return list(observations(*history(*changes)))


def test_a_success_teaches_how_long_each_phase_took() -> None:
    path = StepPath("fan[3].load")
    phases = {Phase.START: timedelta(seconds=1), Phase.RUN: timedelta(seconds=2)}
    end = c.StepSucceeded(path=path, kind="python", attempt=1, phases=phases, usage=Usage(cpu_s=1.5))

    (found,) = taught(dispatched(path), end)

    assert (found.signature, found.family, found.runtime, found.runtime_kind) == (
        "etl/fan.load", "python", "local", "local",
    )  # fmt: skip
    assert (found.outcome, found.seconds) == ("succeeded", {Phase.START: 1.0, Phase.RUN: 2.0})
    assert (found.input_bytes, found.cpu_s, found.at) == (10**9, 1.5, AT + timedelta(seconds=3))


def test_what_no_runtime_did_teaches_nothing() -> None:
    cached = c.StepSucceeded(path=LOAD, kind="python", cached=True)
    transformed = c.StepSucceeded(path=StepPath("shape"), kind="transform")
    reused = c.StepReused(path=LOAD, kind="python", status=StepStatus.SUCCEEDED)

    assert taught(cached) == taught(transformed) == taught(reused) == []


@pytest.mark.parametrize("error_class", ErrorClass)
def test_a_failure_teaches_that_the_runtime_fails_unless_it_is_no_fault_of_it(error_class: ErrorClass) -> None:
    failure = Failure(message="no", error_class=error_class)
    failed = taught(dispatched(), c.StepFailed(path=LOAD, kind="python", attempt=1, failure=failure))
    again = c.StepRetryScheduled(path=LOAD, attempt=1, failure=failure, budget="user", due_at=AT)
    retried = taught(dispatched(), again)

    silent = error_class in {ErrorClass.CANCELLED, ErrorClass.INPUT, ErrorClass.INTERNAL}
    assert [each.outcome for each in failed] == ([] if silent else [error_class.value])
    assert [each.outcome for each in retried] == ([] if silent else [error_class.value])


def test_a_time_out_teaches_how_long_it_ran() -> None:
    failure = Failure(message="late", error_class=ErrorClass.TIMEOUT)

    (found,) = taught(dispatched(), c.StepFailed(path=LOAD, kind="python", attempt=1, failure=failure))

    assert found.seconds == {Phase.RUN: 1.0}


@given(st.dictionaries(st.sampled_from(list(Phase)), st.timedeltas(timedelta(), timedelta(hours=1))), st.floats(0, 1e4))
def test_the_phases_of_an_attempt_are_at_least_as_long_as_it_was(
    phases: dict[Phase, timedelta], seconds: float
) -> None:
    took = timedelta(seconds=seconds)

    found = measured(phases, took)

    told = sum(phases.values(), timedelta())
    assert sum(found.values(), timedelta()) == max(took, told)


def test_a_benchmark_teaches_the_step_it_is_of() -> None:
    assert signature_of(benchmark_name("etl"), LOAD) == signature_of("etl", LOAD) == "etl/load"
    assert len(benchmark_name("a" * 63)) == 63


# --- what placement is told


def view(parameters: JSON, step: Step | None = None, **changes: object) -> StepView:
    """Describe a step whose parameters are these, after `extract` has put out a million bytes."""
    step = step or task_step("load", parameters=parameters)
    assert isinstance(step.action, Task)
    state = empty(ExecutionId("exe_1"))
    extract = StepState(
        path=StepPath("extract"), kind="singer", status=StepStatus.SUCCEEDED, usage=Usage(bytes_out=10**6)
    )
    state = replace(state, steps={extract.path: extract}, header=replace(state.header, workflow="etl"))
    env = Env(now=AT, entropy=b"", place=lambda _: PLACED, data_store="s3")
    work = Work(build(workflow(task_step("extract"), step)), state, env)
    payload = parameters if isinstance(parameters, Payload) else Payload(parameters)
    known = StepState(path=LOAD, kind="python", status=StepStatus.WAITING, parameters=payload, **changes)  # type: ignore[arg-type]  # fields by name
    return view_of(work, step, step.action, known)


def test_references_in_parameters_are_measured_each_once() -> None:
    model: JSON = {"uri": "artifact:made-1", "format": "joblib", "bytes": 100}
    rows: JSON = {"uri": "file:///data/a.parquet", "format": "parquet", "bytes": 40, "rows": 3}

    found = view({"inputs": {"model": {"from": model}}, "args": {"again": model, "rows": [rows]}})

    assert found.data == Measured(140, Source.MEASURED)
    assert sorted(found.inputs) == [("file", 40), ("s3", 100)]
    assert found.data_stores == {"s3"}


def test_without_references_what_the_steps_put_out_whose_results_are_read_is_measured() -> None:
    reads = Expression(source="results.extract.n", reads=(("results", "extract", "n"),))
    step = Step(id=StepId("load"), action=Task(kind=StepKind.PYTHON, parameters=MapTemplate(items=(("args", reads),))))

    assert view({"args": 3}, step).data == Measured(10**6, Source.MEASURED)
    assert view({"args": 3}).data == Measured()


def test_parameters_out_of_line_are_as_large_as_they_are() -> None:
    found = view(Payload(ref=Ref(uri="artifact:sha256-1", bytes=5000)))  # type: ignore[arg-type]  # taken as it is

    assert found.data.value == 5000


def test_a_deadline_counts_from_when_the_turn_came() -> None:
    step = task_step("load", requirements=Requirements(deadline=timedelta(minutes=5)))

    assert view({}, step).deadline == timedelta(minutes=5)
    assert view({}, step, created_at=AT - timedelta(minutes=2)).deadline == timedelta(minutes=3)
    assert view({}, step, created_at=AT - timedelta(hours=2)).deadline == timedelta()


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["uri", "bytes", "a"]), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["inputs", "outputs", "args"]), JSON_VALUES))
def test_no_parameters_are_too_odd_to_be_looked_at(parameters: dict[str, JSON]) -> None:
    assert view(parameters).signature == "etl/load"
    assert stores_of(parameters, "file") <= {"file", "s3"}


# --- what learned choices came to


def predicted(seconds: float, cost: float | None = None, p_miss: float = 0.0) -> Prediction:
    total, nothing = Estimate(seconds, seconds, seconds), Estimate(0.0, 0.0, 0.0)
    score = Score(seconds, 0.5, 0.0 if cost is None else 600 * cost, 0.0, 0.0)
    return Prediction(nothing, nothing, nothing, total, total, score, cost, 0.05, p_miss, 0.9, 4, Evidence.OWN)


def placed(source: Any = "learned", by_rule: str = "meltano", **ray: Any) -> Placement:
    verdicts = (
        Verdict(runtime="meltano", prediction=predicted(20.0)),
        Verdict(runtime="ray", prediction=predicted(4.0, **ray)),
    )
    weights = {"time": 1.0, "cost": 1.0, "seconds_per_unit": 600.0}
    return structs.replace(
        PLACED, chosen="ray", source=source, by_rule=by_rule, verdicts=verdicts, weights=weights, input_store="s3"
    )


def came_to(placement: Placement, outcome: ErrorClass | None = None) -> tuple[float | None, float | None]:
    begin = c.StepDispatched(path=LOAD, kind="python", attempt=1, token=1, runtime="ray", placement=placement)
    if outcome is None:
        phases = {Phase.START: timedelta(seconds=2), Phase.RUN: timedelta(seconds=8)}
        (found,) = taught(begin, c.StepSucceeded(path=LOAD, kind="python", attempt=1, phases=phases))
    else:
        failure = Failure(message="no", error_class=outcome)
        (found,) = taught(begin, c.StepFailed(path=LOAD, kind="python", attempt=1, failure=failure))
    assert found.store == "s3"
    return found.score, found.rule_score


def test_a_learned_choice_is_held_against_the_rules() -> None:
    assert came_to(placed()) == (10.0, 20.5)
    assert came_to(placed(cost=0.1)) == (10.0 + 600 * 0.1 * 10 / 4, 20.5)
    assert came_to(placed(by_rule="ray")) == (10.0, 10.0)


def test_what_a_learned_choice_lost_is_its_own() -> None:
    assert came_to(placed(), ErrorClass.LOST) == (1.0, 0.0)  # a second between the two entries
    assert came_to(placed(), ErrorClass.TIMEOUT) == (1.0, 1.0)
    assert came_to(placed(), ErrorClass.USER) == (None, None)


def test_neither_the_rules_own_choices_nor_those_under_a_deadline_are_held_against_them() -> None:
    assert came_to(placed(source="rule")) == came_to(placed(source="pinned")) == (None, None)
    assert came_to(placed(p_miss=0.1)) == (None, None)
