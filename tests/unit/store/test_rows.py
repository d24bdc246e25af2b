"""Rows and models are the same thing in two spellings."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, get_args, get_type_hints

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexcore.model.changes import Change, ExecutionStarted, HistoryEntry, StepSucceeded
from flexcore.model.errors import InternalError
from flexcore.model.execution import ExecutionHeader, Handle, LoopState, Phase, ScopeState, SecretText, StepState, Usage
from flexcore.model.failure import Failure
from flexcore.model.ids import StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.placement import Estimate, Evidence, Placement, Prediction, Score, Verdict
from flexcore.model.values import Payload, Ref
from flexcore.store.rows import (
    CHANGES,
    DEFINITION,
    PAYLOAD,
    SCOPE,
    STEP,
    entry_from,
    entry_row,
    header_from,
    microseconds,
    moment,
    rows_of,
    step_row,
)
from flexcore.testing.store_samples import Story, definition

TEXT = st.text(st.characters(codec="utf-8"), max_size=20)
NUMBERS = st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXT,
    lambda children: st.lists(children, max_size=3) | st.dictionaries(TEXT, children, max_size=3),
    max_leaves=6,
)
TIMES = st.datetimes(datetime(2000, 1, 1), datetime(2100, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001 bounds are naive here
DURATIONS = st.timedeltas(timedelta(0), timedelta(days=400))
REFS = st.builds(Ref, uri=TEXT, bytes=st.integers(0, 2**40), schema=st.none() | st.dictionaries(TEXT, JSON_VALUES))
PAYLOADS = st.builds(Payload, JSON_VALUES) | st.builds(Payload, st.none(), REFS)
FAILURES = st.builds(Failure, message=TEXT, cause=st.none() | st.builds(Failure, message=TEXT))
USAGES = st.builds(Usage, rows=st.none() | st.integers(0, 10**9))

INTS = st.integers(0, 2**53)
DICTS = st.dictionaries(TEXT, JSON_VALUES, max_size=3)
HANDLES = st.builds(Handle, version=INTS, name=TEXT, identity=TEXT, data=DICTS)
ESTIMATES = st.builds(Estimate, *[st.floats(0, 1e9)] * 3)
SCORES = st.builds(Score, *[st.floats(0, 1e9)] * 5)
SHARES = st.floats(0, 1)
PREDICTIONS = st.builds(
    Prediction,
    *[ESTIMATES] * 5,
    score=SCORES,
    cost=st.none() | st.floats(0, 9),
    p_fail=SHARES,
    p_miss=SHARES,
    p_best=SHARES,
    n=INTS,
    evidence=st.sampled_from(Evidence),
)
VERDICTS = st.builds(Verdict, runtime=TEXT, score=st.none() | st.floats(0, 1), prediction=st.none() | PREDICTIONS)
PLACEMENTS = st.builds(Placement, verdicts=st.lists(VERDICTS, max_size=2).map(tuple), analysis=DICTS)
LOOPS = st.builds(LoopState, total=st.none() | INTS, items=PAYLOADS, started=INTS, finished=INTS)
POINTERS = st.lists(INTS | TEXT, max_size=3).map(tuple)
SECRETS = st.builds(SecretText, pointer=POINTERS, parts=st.just((("text", "a"), ("secret", "KEY"))))

BY_TYPE: dict[Any, st.SearchStrategy[Any]] = {
    int: INTS,
    datetime: TIMES,
    Payload: PAYLOADS,
    Failure: FAILURES,
    Usage: USAGES,
    Handle: HANDLES,
    Placement: PLACEMENTS,
    LoopState: LOOPS,
    tuple[SecretText, ...]: st.lists(SECRETS, max_size=2).map(tuple),
    tuple[Ref, ...]: st.lists(REFS, max_size=2).map(tuple),
    Mapping[str, str]: st.dictionaries(TEXT, TEXT, max_size=3),
    Mapping[str, int]: st.dictionaries(TEXT, INTS, max_size=3),
    Mapping[Phase, timedelta]: st.dictionaries(st.sampled_from(Phase), DURATIONS),
}
BY_TYPE |= {kind | None: st.none() | drawn for kind, drawn in BY_TYPE.items()}


def whole(model: type[Any]) -> st.SearchStrategy[Any]:
    """Build a dataclass with every field drawn, also those that have a default."""
    hints = get_type_hints(model)
    return st.builds(
        model, **{name: BY_TYPE[hint] if hint in BY_TYPE else st.from_type(hint) for name, hint in hints.items()}
    )


slow = settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large]
)


@pytest.mark.parametrize("kind", get_args(Change), ids=lambda kind: kind.__name__)
@slow
@given(data=st.data())
def test_every_kind_of_change_comes_back_equal(kind: type[Any], data: st.DataObject) -> None:
    entry = HistoryEntry(7, data.draw(TIMES), data.draw(whole(kind)))

    row = entry_row("exe_1", entry)

    assert entry_from(row[1:]) == entry


@slow
@given(whole(StepState))
def test_a_step_comes_back_equal(step: StepState) -> None:
    assert STEP.decode(step_row("exe_1", step)[-1]) == step


@slow
@given(whole(ScopeState))
def test_a_scope_comes_back_equal(scope: ScopeState) -> None:
    assert SCOPE.decode(SCOPE.encode(scope)) == scope


@slow
@given(whole(ExecutionHeader))
def test_a_header_comes_back_with_its_input(header: ExecutionHeader) -> None:
    story = Story()
    story.header = header
    rows = rows_of(story.begin(), "srv_1")

    input = rows.inputs[0][1] if rows.inputs else None

    assert header_from(rows.started[0][-1], input) == header


@given(TIMES)
def test_times_are_exact(time: datetime) -> None:
    assert moment(microseconds(time)) == time


@given(PAYLOADS)
def test_payloads_come_back_equal(payload: Payload) -> None:
    assert PAYLOAD.decode(PAYLOAD.encode(payload)) == payload


def test_a_definition_comes_back_equal() -> None:
    assert DEFINITION.decode(DEFINITION.encode(definition("etl", "v1"))) == definition("etl", "v1")


def test_defaults_take_no_room() -> None:
    assert CHANGES["ExecutionStarted"].encode(ExecutionStarted()) == "{}"
    change = StepSucceeded(path=StepPath("load"), kind="python", phases={Phase.RUN: timedelta(seconds=1)})
    assert CHANGES["StepSucceeded"].encode(change) == '{"path":"load","kind":"python","phases":{"run":"PT1S"}}'


def test_what_many_rows_share_is_written_as_if_each_had_its_own() -> None:
    def placed(runtime: str) -> Placement:
        return Placement(chosen=runtime, source="rule", analysis={"cpu": {"value": None}})

    shared = placed("local")
    steps = [
        StepState(path=StepPath("s"), kind="bash", status=StepStatus.RUNNING, placement=each)
        for each in (shared, shared, placed("local"))
    ]
    # More than are remembered, each gone before the next is made, which may then have its place in memory.
    many = [
        STEP.encode(StepState(path=StepPath("s"), kind="bash", status=StepStatus.RUNNING, placement=placed(f"r{n}")))
        for n in range(600)
    ]

    assert len({STEP.encode(step) for step in steps}) == 1
    assert [STEP.decode(body).placement for body in many] == [placed(f"r{n}") for n in range(600)]


def test_half_a_character_in_what_is_shared_cannot_be_stored() -> None:
    placement = Placement(chosen="local", source="rule", fault="\ud800")

    with pytest.raises(InternalError, match="cannot be stored"):
        STEP.encode(StepState(path=StepPath("s"), kind="bash", status=StepStatus.RUNNING, placement=placement))


def test_an_unknown_kind_says_upgrade() -> None:
    with pytest.raises(InternalError, match="unknown kind 'StepTeleported'") as refusal:
        entry_from((1, 0, "StepTeleported", "{}"))

    assert "upgrade" in refusal.value.hint
