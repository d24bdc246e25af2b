"""The runtime interface on the wire: whatever is sent arrives as it was, and what is wrong is refused by name."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcore.model.errors import InvalidRequest
from flexcore.model.execution import Handle, Phase, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.values import Ref
from flexcore.model.workflow import Complexity, Requirements, StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    ExecutionScope,
    Failed,
    Feature,
    Finished,
    Health,
    HealthStatus,
    LogChunk,
    LogStream,
    MetricSample,
    PhaseEntered,
    Progress,
    Resources,
    Submitted,
    Succeeded,
    Survey,
)
from flexcore.runtime.v1 import runtime_pb2 as pb
from flexcore.runtime.wire.answers import (
    capabilities_message,
    capabilities_of,
    health_message,
    health_of,
    report_message,
    report_of,
)
from flexcore.runtime.wire.events import event_message, event_of
from flexcore.runtime.wire.requests import (
    FileEntry,
    cleanup_message,
    execute_message,
    execution_request_of,
    files_of,
    scope_of,
)

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
ID = AttemptId(ExecutionId("exe_1"), StepPath("fan[3].score"), 2)
HANDLE = Handle(3, "fx-abc", "uid/1", {"a": [1, None]}, transient=True)
CAUSE = Failure(message="first", error_class=ErrorClass.DEPENDENCY)
FAILURE = Failure(
    message="no",
    error_class=ErrorClass.QUOTA,
    name="ValueError",
    step="load",
    attempt=2,
    hint="wait",
    retry_after=1.5,
    cause=CAUSE,
)
REF = Ref(uri="s3://x/y", bytes=5, format="parquet", checksum="c", rows=0, schema={"a": "int"})
RESULT = ExecutionResult(
    outcome=Succeeded({"id": 2**53 + 1, "x": 1.0}),
    artifacts=(REF, Ref(uri="artifact:1", bytes=1)),
    usage=Usage(cpu_s=0.5, rows=0),
    phases={Phase.RUN: timedelta(seconds=1.25)},
)
EVENTS: list[ExecutionEvent] = [
    Submitted(HANDLE, adopted=True, prepares=True),
    LogChunk(LogStream.STDERR, 2**40, b"\xff\x00"),
    MetricSample("rows", 2.5, "1"),
    PhaseEntered(Phase.TRANSFER_IN, NOW),
    Progress(None, "some"),
    Progress(0.0, ""),
    Finished(RESULT),
    Finished(replace(RESULT, outcome=Succeeded(None))),
    Finished(replace(RESULT, outcome=Failed(FAILURE))),
]
REQUEST = ExecutionRequest(
    id=ID,
    token=7,
    kind=StepKind.BASH,
    parameters={"script": "true", "n": [1, {"a": None}]},
    requirements=Requirements(
        cpu=0.5, memory=0, complexity=Complexity.ML, scalable=False, deadline=timedelta(hours=1), tags=("a", "b")
    ),
    workflow="w",
    workspace="team",
    env={"A": "grün\n"},
    secrets=("s3cr3t",),
    labels={"k": "v"},
    deadline=NOW + timedelta(seconds=90),
    grace=timedelta(seconds=3),
    handle=HANDLE,
    log_offsets={LogStream.STDOUT: 12},
)
SCOPES: list[CleanupScope] = [
    AttemptScope(id=ID, handle=HANDLE, grace=timedelta(seconds=1)),
    AttemptScope(id=ID, grace=timedelta(0)),
    ExecutionScope(execution=ExecutionId("exe_1"), grace=timedelta(seconds=2)),
    Survey("here"),
]


@pytest.mark.parametrize("event", EVENTS, ids=lambda event: type(event).__name__)
def test_events_arrive_as_they_were(event: ExecutionEvent) -> None:
    sent = event_message(event).SerializeToString()

    assert event_of(pb.ExecuteResponse.FromString(sent)) == event


def test_an_event_of_a_newer_version_is_passed_over() -> None:
    assert event_of(pb.ExecuteResponse()) is None


def test_words_of_a_newer_version_are_passed_over() -> None:
    entered = event_message(PhaseEntered(Phase.RUN, NOW))
    entered.phase_entered.phase = "teleport"
    chunk = event_message(LogChunk(LogStream.STDOUT, 0, b"x"))
    chunk.log_chunk.stream = "stdthoughts"
    finished = event_message(Finished(RESULT))
    finished.finished.phases.add(phase="teleport")

    assert event_of(entered) is None
    assert event_of(chunk) is None
    assert event_of(finished) == Finished(RESULT)


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda each: st.lists(each, max_size=3)))
def test_every_result_arrives_as_it_was(output: object) -> None:
    event = Finished(ExecutionResult(outcome=Succeeded(output)))  # type: ignore[arg-type]

    assert event_of(pb.ExecuteResponse.FromString(event_message(event).SerializeToString())) == event


def test_a_request_arrives_as_it_was() -> None:
    files = (FileEntry("a/b.py", "sha256-1", executable=True), FileEntry("c", "sha256-2"))
    sent = execute_message(REQUEST, "here", files, NOW).SerializeToString()
    message = pb.ExecuteRequest.FromString(sent)

    assert execution_request_of(message, NOW) == REQUEST
    assert files_of(message) == files
    assert message.caller.installation == "here"


def test_the_deadline_goes_by_the_time_that_is_left_because_clocks_differ() -> None:
    message = execute_message(REQUEST, "here", (), NOW)
    their_clock = NOW + timedelta(days=1)

    assert execution_request_of(message, their_clock).deadline == their_clock + timedelta(seconds=90)


@pytest.mark.parametrize("scope", SCOPES, ids=lambda scope: type(scope).__name__)
def test_scopes_arrive_as_they_were(scope: CleanupScope) -> None:
    sent = cleanup_message(scope, "here").SerializeToString()

    assert scope_of(pb.CleanupRequest.FromString(sent)) == scope


def test_what_is_wrong_is_refused_by_name() -> None:
    message = execute_message(REQUEST, "here", (), NOW)
    message.kind = "cobol"

    with pytest.raises(InvalidRequest, match="cobol"):
        execution_request_of(message, NOW)
    with pytest.raises(InvalidRequest, match="nothing is named"):
        scope_of(pb.CleanupRequest())
    with pytest.raises(InvalidRequest, match="attempt is not named"):
        execution_request_of(pb.ExecuteRequest(kind="bash"), NOW)


def test_answers_arrive_as_they_were() -> None:
    found = Capabilities(
        step_kinds=frozenset({StepKind.BASH, StepKind.SQL}),
        limits=Resources(cpu=0.5, slots=4),
        unsupported={Feature.USAGE: "no"},
        tags=frozenset({"gpu"}),
        data_stores=frozenset({"s3"}),
        versions={"node": "24"},
        price_per_hour=Decimal("0.10"),
    )
    report = CleanupReport(
        gone=frozenset({"a"}),
        pending=frozenset({"b"}),
        unknown={"c": "why"},
        attempts={"b": ID},
        executions=frozenset({ExecutionId("exe_1")}),
        retained=frozenset({"d"}),
    )
    status = HealthStatus(state=Health.UP, reason="fine", checked_at=NOW, start_latency=timedelta(seconds=0.5))

    assert capabilities_of(capabilities_message(found)) == found
    assert report_of(report_message(report)) == report
    assert health_of(health_message(status, 3), NOW) == status


def test_what_only_a_newer_version_knows_is_left_out() -> None:
    message = capabilities_message(Capabilities(step_kinds=frozenset({StepKind.BASH})))
    message.step_kinds.append("quantum")
    message.unsupported["telepathy"] = "not yet"

    found = capabilities_of(message)

    assert found.step_kinds == {StepKind.BASH}
    assert found.unsupported == {}
