"""What happens to an attempt: every event of the interface as a message of the stream."""

from collections.abc import Mapping
from enum import StrEnum
from typing import TypeVar, assert_never

from flexcore.common.documents import document_of, fill
from flexcore.common.v1 import failure_pb2
from flexcore.common.values import json_message, moment, timestamp
from flexcore.model.errors import InvalidRequest
from flexcore.model.execution import Phase, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import Ref
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionResult,
    Failed,
    Finished,
    LogChunk,
    LogStream,
    MetricSample,
    PhaseEntered,
    Progress,
    Submitted,
    Succeeded,
)
from flexcore.runtime.v1 import event_pb2
from flexcore.runtime.v1 import runtime_pb2 as pb
from flexcore.runtime.wire.work import (
    handle_message,
    handle_of,
    object_of,
    present,
    span_message,
    span_of,
    value_of,
)

_USAGE = ("cpu_s", "peak_memory_bytes", "bytes_in", "bytes_out", "rows")
_PLAIN = ("name", "message", "step", "hint")
Word = TypeVar("Word", bound=StrEnum)


def event_message(event: ExecutionEvent) -> pb.ExecuteResponse:
    """Carry an event."""
    match event:
        case Submitted():
            handle = handle_message(event.handle)
            submitted = event_pb2.Submitted(handle=handle, adopted=event.adopted, prepares=event.prepares)
            return pb.ExecuteResponse(submitted=submitted)
        case LogChunk():
            chunk = event_pb2.LogChunk(stream=event.stream.value, offset=event.offset, data=event.data)
            return pb.ExecuteResponse(log_chunk=chunk)
        case MetricSample():
            sample = event_pb2.MetricSample(name=event.name, value=event.value, unit=event.unit)
            return pb.ExecuteResponse(metric_sample=sample)
        case PhaseEntered():
            entered = event_pb2.PhaseEntered(phase=event.phase.value, at=timestamp(event.at))
            return pb.ExecuteResponse(phase_entered=entered)
        case Progress():
            return pb.ExecuteResponse(progress=event_pb2.Progress(fraction=event.fraction, note=event.note))
        case Finished():
            return pb.ExecuteResponse(finished=_finished_message(event.result))
        case _:
            assert_never(event)


def missing_message(digests: list[str]) -> pb.ExecuteResponse:
    """Say that files are not there."""
    return pb.ExecuteResponse(missing=event_pb2.MissingFiles(digests=digests))


def event_of(message: pb.ExecuteResponse) -> ExecutionEvent | None:
    """Read an event; None for what only a newer version knows, in whole or by a word. Raises InvalidRequest."""
    try:
        match message.WhichOneof("event"):
            case "submitted":
                given = message.submitted
                return Submitted(handle_of(given.handle), given.adopted, given.prepares)
            case "log_chunk":
                piece = message.log_chunk
                stream = _known(LogStream, piece.stream)
                return None if stream is None else LogChunk(stream, piece.offset, piece.data)
            case "metric_sample":
                sample = message.metric_sample
                return MetricSample(sample.name, sample.value, sample.unit)
            case "phase_entered":
                phase = _known(Phase, message.phase_entered.phase)
                return None if phase is None else PhaseEntered(phase, moment(message.phase_entered.at))
            case "progress":
                progress = message.progress
                return Progress(progress.fraction if progress.HasField("fraction") else None, progress.note)
            case "finished":
                return Finished(_result_of(message.finished))
            case _:
                return None
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"an event cannot be read: {error}") from error


def failure_message(failure: Failure) -> failure_pb2.Failure:
    """Carry a failure, with what it followed from."""
    message = failure_pb2.Failure()
    fill(message, _document(failure))
    return message


def failure_of(message: failure_pb2.Failure) -> Failure:
    """Read a failure; a class that only a newer version knows is `internal`."""
    return _failure(document_of(message))


def _document(failure: Failure) -> dict[str, object]:
    document: dict[str, object] = {key: getattr(failure, key) for key in _PLAIN}
    document |= {"class": failure.error_class.value, "attempt": failure.attempt}
    if failure.retry_after is not None:
        document["retry_after"] = failure.retry_after
    if failure.cause is not None:
        document["cause"] = _document(failure.cause)
    return document


def _failure(document: Mapping[str, object]) -> Failure:
    cause, wait = document.get("cause"), document.get("retry_after")
    word, attempt = document.get("class"), document.get("attempt")
    return Failure(
        **{key: str(document.get(key) or "") for key in _PLAIN},
        error_class=next((each for each in ErrorClass if each.value == word), ErrorClass.INTERNAL),
        attempt=attempt if isinstance(attempt, int) else 0,
        retry_after=float(wait) if isinstance(wait, int | float) else None,
        cause=_failure(cause) if isinstance(cause, Mapping) else None,
    )


def _finished_message(result: ExecutionResult) -> event_pb2.Finished:
    usage = {key: value for key in _USAGE if (value := getattr(result.usage, key)) is not None}
    message = event_pb2.Finished(
        artifacts=[_ref_message(each) for each in result.artifacts],
        usage=event_pb2.Usage(**usage),
        phases=[
            event_pb2.PhaseSpan(phase=phase.value, span=span_message(span)) for phase, span in result.phases.items()
        ],
    )
    match result.outcome:
        case Succeeded(output):
            message.output.CopyFrom(json_message(output))
        case Failed(failure):
            message.failure.CopyFrom(failure_message(failure))
        case _:
            assert_never(result.outcome)
    return message


def _result_of(message: event_pb2.Finished) -> ExecutionResult:
    match message.WhichOneof("outcome"):
        case "output":
            outcome: Succeeded | Failed = Succeeded(value_of(message.output))
        case "failure":
            outcome = Failed(failure_of(message.failure))
        case _:
            raise InvalidRequest("the end has no outcome")
    return ExecutionResult(
        outcome=outcome,
        artifacts=tuple(_ref_of(each) for each in message.artifacts),
        usage=Usage(**present(message.usage, _USAGE)),
        phases={
            phase: span_of(each.span) for each in message.phases if (phase := _known(Phase, each.phase)) is not None
        },
    )


def _known(words: type[Word], given: str) -> Word | None:
    return words(given) if given in list(words) else None


def _ref_message(ref: Ref) -> event_pb2.Ref:
    message = event_pb2.Ref(uri=ref.uri, bytes=ref.bytes, format=ref.format, checksum=ref.checksum, rows=ref.rows)
    if ref.schema is not None:
        message.schema.CopyFrom(json_message(dict(ref.schema)))
    return message


def _ref_of(message: event_pb2.Ref) -> Ref:
    return Ref(
        uri=message.uri,
        bytes=message.bytes,
        format=message.format,
        checksum=message.checksum,
        rows=message.rows if message.HasField("rows") else None,
        schema=object_of(message.schema) if message.HasField("schema") else None,
    )
