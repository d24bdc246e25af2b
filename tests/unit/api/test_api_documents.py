"""Documents as messages: whatever a document holds comes back as it was."""

import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import pytest
from fake_plane import EXECUTION, PLACEMENT, STEP, SUMMARY
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flexcore.api.v1 import execution_pb2, placement_pb2, runtime_pb2
from flexcore.common.documents import document_of, enum_word, fill
from flexcore.common.v1 import failure_pb2
from flexcore.common.values import json_message, json_value, seconds_message, seconds_value, time_message, time_text
from flexcore.model.failure import ErrorClass
from flexcore.model.lifecycle import ExecutionStatus, StepStatus

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
moments = st.datetimes(timezones=st.just(UTC)).map(time_text)


def maybe(strategy: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | strategy


def documents(**keys: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """All promised keys, and sometimes one that nobody promised."""
    more = st.dictionaries(st.sampled_from(["labels", "extra", "x"]), json_values, max_size=2)
    return st.builds(lambda known, unknown: {**unknown, **known}, st.fixed_dictionaries(keys), more)


counts = st.integers(min_value=0, max_value=2**63 - 1)
seconds = st.integers(min_value=0, max_value=10**15).map(lambda micros: micros / 10**6)
errors = documents(
    **{"class": maybe(st.sampled_from([each.value for each in ErrorClass]))},
    name=maybe(texts), message=maybe(texts), step=maybe(texts), attempt=maybe(st.integers(0, 2**31 - 1)),
    hint=maybe(texts), cause=st.none(),
)  # fmt: skip
placements = documents(
    chosen=maybe(texts),
    source=st.sampled_from(["pinned", "rule", "learned", "only-feasible", "none"]),
    candidates=st.lists(
        documents(
            runtime=texts, feasible=st.booleans(),
            reasons=st.lists(st.fixed_dictionaries({"code": texts, "reason": texts}), max_size=2) | st.lists(texts),
            score=maybe(st.floats(allow_nan=False)), prediction=json_values,
        ), max_size=2,
    ),
    rule_would_choose=maybe(texts), fallback_reason=maybe(texts), estimated_cost=maybe(st.floats(0, 1e9)),
    policy=maybe(texts), margin=maybe(st.floats(0, 1e9)), warnings=st.lists(texts, max_size=2),
)  # fmt: skip
usages = documents(
    cpu_s=maybe(st.floats(0, 1e9)), peak_memory_bytes=maybe(counts), bytes_in=maybe(counts), bytes_out=maybe(counts),
    rows=maybe(counts), cost=maybe(st.floats(0, 1e9)),
)  # fmt: skip
phases = documents(**{f"{name}_s": maybe(seconds) for name in ("queue", "start", "transfer_in", "run", "transfer_out")})
steps = documents(
    path=texts, id=texts, type=texts, status=st.sampled_from([each.value for each in StepStatus]),
    runtime=maybe(texts), attempt=maybe(st.integers(0, 2**31 - 1)), started_at=maybe(moments),
    finished_at=maybe(moments), duration_s=maybe(seconds), phases=maybe(phases), usage=maybe(usages),
    placement=maybe(placements), handle=json_values, result=json_values, error=maybe(errors),
    skipped_reason=maybe(texts), waiting_for=maybe(texts), cached=st.booleans(),
)  # fmt: skip
executions = documents(
    id=texts, workflow=texts, version=texts, workspace=texts,
    status=st.sampled_from([each.value for each in ExecutionStatus]), input=json_values, output=json_values,
    error=maybe(errors), created_at=moments, started_at=maybe(moments), finished_at=maybe(moments),
    duration_s=maybe(seconds), durability=st.sampled_from(["full", "reduced"]), steps=st.lists(steps, max_size=2),
    usage=maybe(usages),
)  # fmt: skip


def through(message: Any, document: dict[str, Any]) -> dict[str, Any]:
    """There and back, over bytes."""
    fill(message, document)
    return document_of(type(message).FromString(message.SerializeToString()))


@settings(max_examples=60, deadline=None)
@given(executions)
def test_executions_survive(document: dict[str, Any]) -> None:
    assert same(through(execution_pb2.Execution(), document), document)


NESTED = ("phases", "usage", "placement", "error")
flat_values = st.none() | st.integers() | texts | st.lists(st.none() | texts | st.integers(), max_size=2)


@settings(max_examples=100, deadline=None)
@given(st.fixed_dictionaries({key: flat_values if key in NESTED else json_values for key in STEP}))
def test_even_nonsense_under_promised_keys_survives(document: dict[str, Any]) -> None:
    assert same(through(execution_pb2.Step(), document), document)


@settings(max_examples=100, deadline=None)
@given(json_values)
def test_json_survives_exactly(value: Any) -> None:
    assert same(json_value(json_message(value)), value)


def same(left: Any, right: Any) -> bool:
    """Equal, and of the same type wherever JSON knows a difference; a double may have been written as a whole."""
    return json.dumps(_numbers(left), sort_keys=True) == json.dumps(_numbers(right), sort_keys=True)


def _numbers(value: Any) -> Any:
    match value:
        case dict():
            return {key: _numbers(each) for key, each in value.items()}
        case list():
            return [_numbers(each) for each in value]
        case float() if value.is_integer():
            return int(value)
        case _:
            return value


def test_the_contracts_document_uses_the_typed_fields() -> None:
    message = execution_pb2.Execution()
    fill(message, EXECUTION)
    step = message.steps[0]

    assert message.status == execution_pb2.EXECUTION_STATUS_SUCCEEDED
    assert step.error.error_class == failure_pb2.ERROR_CLASS_USER
    assert step.phases.queue.nanos == 1_000_000
    assert step.usage.rows == 27004
    assert step.placement.source == placement_pb2.PLACEMENT_SOURCE_ONLY_FEASIBLE
    assert step.placement.candidates[1].reasons[0].code == "MEM"
    assert json_value(message.extra) == {"labels": {"team": "a"}}
    assert json_value(step.extra) == {"spent": {"user": 1}}
    assert json_value(step.placement.extra) == {"rule": "S4"}
    assert document_of(message) == EXECUTION


def test_a_summary_needs_no_steps() -> None:
    assert through(execution_pb2.ExecutionSummary(), SUMMARY) == SUMMARY


def test_what_a_field_cannot_hold_exactly_travels_beside_it() -> None:
    odd = deepcopy(EXECUTION) | {
        "status": "resting", "created_at": "2026-03-01T12:30:00+00:00", "duration_s": 1 / 3, "steps": [None], "id": 7,
        "usage": "none",
    }  # fmt: skip
    message = execution_pb2.Execution()
    fill(message, odd)

    assert set(json_value(message.extra)) >= {"status", "created_at", "duration_s", "steps", "id", "usage"}  # type: ignore[arg-type]
    assert document_of(message) == odd


def test_causes_nest() -> None:
    inner = {"class": "lost", "name": "", "message": "gone", "step": "a", "attempt": 1, "hint": "", "cause": None}
    outer = {**inner, "class": "user", "cause": {**inner, "cause": inner}}

    assert through(failure_pb2.Failure(), outer) == outer


@pytest.mark.parametrize("more", [{}, {"start_latency_s": None, "checked_at": None}, {"start_latency_s": 1.5}])
def test_what_is_not_promised_is_there_when_it_was(more: dict[str, Any]) -> None:
    health = {"state": "up", "reason": "answers", **more}

    assert through(runtime_pb2.RuntimeHealth(), health) == health


@pytest.mark.parametrize("text", ["2026-03-01", "2026-03-01T00:00:00", "2026-03-01T00:00:00Z", "soon"])
def test_only_canonical_times_become_timestamps(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        time_message(text)


@given(seconds)
@example(637612694.450149)
def test_microseconds_survive(value: float) -> None:
    assert seconds_value(seconds_message(value)) == value
    assert seconds_value(seconds_message(-value)) == -value


def test_every_status_of_the_model_has_its_enum_value() -> None:
    def words(enum: Any) -> set[str | None]:
        return {enum_word(enum.DESCRIPTOR, number) for number in enum.values()} - {None}

    assert words(execution_pb2.ExecutionStatus) == {each.value for each in ExecutionStatus}
    assert words(execution_pb2.StepStatus) == {each.value for each in StepStatus}
    assert words(failure_pb2.ErrorClass) == {each.value for each in ErrorClass}


def test_times_are_written_one_way() -> None:
    assert time_text(datetime(2026, 1, 1, tzinfo=UTC)) == "2026-01-01T00:00:00.000Z"
    assert through(placement_pb2.Placement(), PLACEMENT) == PLACEMENT
