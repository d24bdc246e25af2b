"""What unfinished steps say they wait for. That each says something true is tried by the simulations."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flexcore.engine.fold import empty
from flexcore.model.execution import ExecutionState, LoopState, ScopeState, StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import build
from flexcore.model.ids import ROOT, ExecutionId, Scope, StepPath
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.pools import Claim, Party, PoolView, described, step_pool, workflow_pool
from flexcore.model.template import Literal
from flexcore.model.workflow import ForEach, Step, StepId
from flexcore.monitor.waiting import execution_waiting_for, waiting_for
from flexcore.testing.factories import task_step, workflow

AT = datetime(2026, 11, 1, 12, tzinfo=UTC)
LOAD = StepPath("load")
GRAPH = build(
    workflow(
        task_step("load"),
        task_step("side", needs=()),
        task_step("join", needs=(StepId("load"), StepId("side"))),
        Step(id=StepId("each"), action=ForEach(items=Literal([1, 2]), steps=(task_step("inner"),)), needs=()),
    )
)
POOL = step_pool("default", "etl", "load", "eu")


def state(*steps: StepState, scopes: tuple[ScopeState, ...] = ()) -> ExecutionState:
    header = replace(empty(ExecutionId("exe_1")).header, status=ExecutionStatus.RUNNING)
    opened = (ScopeState(scope=ROOT, status=StepStatus.RUNNING), *scopes)
    return ExecutionState(
        header=header, steps={each.path: each for each in steps}, scopes={each.scope: each for each in opened}
    )


def load(status: StepStatus, **changes: object) -> StepState:
    return StepState(path=LOAD, kind="python", status=status, **changes)  # type: ignore[arg-type]  # fields by name


CASES = {
    "running": (
        load(StepStatus.RUNNING, attempt=2, runtime="local", in_flight=True, started_at=AT),
        "attempt 2 on runtime 'local', which has it since 2026-11-01T12:00:00.000Z",
    ),
    "dispatched": (
        load(StepStatus.PENDING, attempt=1, runtime="ray", in_flight=True),
        "runtime 'ray' to take attempt 1",
    ),
    "postponed": (
        load(
            StepStatus.RUNNING,
            attempt=1,
            runtime="ray",
            in_flight=True,
            due_at=AT,
            waiting_for="runtime 'ray', which …",
        ),
        "runtime 'ray', which …; it is asked again at 2026-11-01T12:00:00.000Z",
    ),
    "retry": (
        load(
            StepStatus.PENDING,
            attempt=1,
            due_at=AT,
            waiting_for="the next attempt",
            failure=Failure(message="no route\nmore"),
        ),
        "the next attempt, at 2026-11-01T12:00:00.000Z: attempt 1 failed: no route",
    ),
    "no runtime": (
        load(StepStatus.PENDING, due_at=AT, waiting_for="a runtime (ray: is down)"),
        "a runtime (ray: is down)",
    ),
    "queued": (
        load(StepStatus.PENDING, full=(Claim(POOL, 2),)),
        "a place in step 'load' of workflow 'etl' for key 'eu' "
        "(2 of 2 taken, by exe_2 and exe_3; number 2 in the queue)",
    ),
    "ending": (
        load(StepStatus.RUNNING, runtime="ray", in_flight=True, ending=ErrorClass.TIMEOUT),
        "its end to be confirmed by runtime 'ray': it is over its time limit or to be cancelled (timeout)",
    ),
    "child": (load(StepStatus.RUNNING, child=ExecutionId("exe_9")), "execution exe_9 to end"),
    "ended": (load(StepStatus.SUCCEEDED), None),
}
POOLS = {
    POOL: PoolView(
        held=2,
        holders=(ExecutionId("exe_2"), ExecutionId("exe_3")),
        waiting=(Party(ExecutionId("exe_4"), LOAD), Party(ExecutionId("exe_1"), LOAD)),
    )
}


@pytest.mark.parametrize("name", CASES)
def test_a_step_says_what_it_waits_for(name: str) -> None:
    step, sentence = CASES[name]

    assert waiting_for(GRAPH, state(step), LOAD, POOLS) == sentence


def test_a_step_whose_turn_has_not_come_names_only_what_has_not_ended() -> None:
    join, done = StepPath("join"), load(StepStatus.SUCCEEDED)

    assert waiting_for(GRAPH, state(), join, {}) == "steps 'load' and 'side' to end"
    assert waiting_for(GRAPH, state(done), join, {}) == "step 'side' to end"


def test_a_loop_names_the_steps_under_way_inside() -> None:
    each, inner = StepPath("each"), StepPath("each[0].inner")
    loop = StepState(path=each, kind="foreach", status=StepStatus.RUNNING, loop=LoopState(total=2, started=1))
    scope = ScopeState(scope=Scope("each[0]"), status=StepStatus.RUNNING)

    assert waiting_for(GRAPH, state(loop, scopes=(scope,)), each, {}) == f"step '{inner}' to end"


def test_an_execution_in_a_queue_says_who_has_the_places() -> None:
    pool = workflow_pool("default", "etl")
    header = replace(empty(ExecutionId("exe_1")).header, full=(Claim(pool, 9),))
    holders = tuple(ExecutionId(f"exe_{number}") for number in range(2, 6))

    sentence = execution_waiting_for(ExecutionState(header=header), {pool: PoolView(held=9, holders=holders)})

    assert sentence == "a place in workflow 'etl' (9 of 9 taken, by exe_2, exe_3, exe_4 and others)"


@pytest.mark.parametrize(
    ("pool", "text"),
    [
        ("runtime:local", "runtime 'local'"),
        ("tag:gpu", "tag 'gpu'"),
        (workflow_pool("default", "etl", 3), "workflow 'etl' for key '3'"),
        (step_pool("default", "etl", "a", "x:y/z"), "step 'a' of workflow 'etl' for key 'x:y/z'"),
    ],
)
def test_a_pool_has_a_name_for_people(pool: str, text: str) -> None:
    assert described(pool) == text


def test_a_key_of_any_length_gives_a_short_name() -> None:
    assert len(workflow_pool("default", "etl", "x" * 10_000)) < 120
    assert workflow_pool("default", "etl", timedelta(1).days) != workflow_pool("default", "etl", "x" * 10_000)
