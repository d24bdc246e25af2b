"""What is asked of a runtime: an attempt with its files, and scopes of a cleanup."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import assert_never

from flexcore.common.values import json_message
from flexcore.model.errors import InvalidRequest
from flexcore.model.ids import ExecutionId
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    INTERFACE_VERSION,
    AttemptScope,
    CleanupScope,
    ExecutionRequest,
    ExecutionScope,
    LogStream,
    Survey,
)
from flexcore.runtime.v1 import runtime_pb2 as pb
from flexcore.runtime.v1 import work_pb2
from flexcore.runtime.wire.work import (
    attempt_message,
    attempt_of,
    handle_message,
    handle_of,
    object_of,
    requirements_message,
    requirements_of,
    span_message,
    span_of,
)


@dataclass(frozen=True, slots=True)
class FileEntry:
    """A file that belongs to a request: its path with `/`, the digest of its content, whether it can be executed."""

    path: str
    digest: str
    executable: bool = False


def caller_message(installation: str) -> pb.Caller:
    """Say who calls, and which interfaces it speaks."""
    return pb.Caller(installation=installation, interfaces=[INTERFACE_VERSION])


def execute_message(
    request: ExecutionRequest, installation: str, files: Sequence[FileEntry], now: datetime
) -> pb.ExecuteRequest:
    """Carry an attempt. The deadline goes as the time that is left, because clocks differ."""
    message = pb.ExecuteRequest(
        caller=caller_message(installation),
        attempt=attempt_message(request.id),
        token=request.token,
        kind=request.kind.value,
        parameters=json_message(dict(request.parameters)),
        requirements=requirements_message(request.requirements),
        workflow=request.workflow,
        workspace=request.workspace,
        files=[work_pb2.File(path=each.path, digest=each.digest, executable=each.executable) for each in files],
        env=dict(request.env),
        secrets=request.secrets,
        labels=dict(request.labels),
        time_left=span_message(None if request.deadline is None else request.deadline - now),
        grace=span_message(request.grace),
        log_offsets={stream.value: offset for stream, offset in request.log_offsets.items()},
    )
    if request.handle is not None:
        message.handle.CopyFrom(handle_message(request.handle))
    return message


def execution_request_of(message: pb.ExecuteRequest, now: datetime) -> ExecutionRequest:
    """Read an attempt; its `folder` is left to whoever keeps the files. Raises InvalidRequest."""
    return ExecutionRequest(
        id=attempt_of(message.attempt),
        token=message.token,
        kind=_kind(message.kind),
        parameters=object_of(message.parameters),
        requirements=requirements_of(message.requirements),
        workflow=message.workflow,
        workspace=message.workspace,
        folder=Path(),
        env=dict(message.env),
        secrets=tuple(message.secrets),
        labels=dict(message.labels),
        deadline=now + span_of(message.time_left) if message.HasField("time_left") else None,
        grace=span_of(message.grace),
        handle=handle_of(message.handle) if message.HasField("handle") else None,
        log_offsets=_offsets(message.log_offsets),
    )


def files_of(message: pb.ExecuteRequest) -> tuple[FileEntry, ...]:
    """Read the list of files."""
    return tuple(FileEntry(each.path, each.digest, each.executable) for each in message.files)


def cleanup_message(scope: CleanupScope, installation: str) -> pb.CleanupRequest:
    """Carry what to end."""
    message = pb.CleanupRequest(caller=caller_message(installation))
    match scope:
        case AttemptScope():
            given = work_pb2.AttemptScope(attempt=attempt_message(scope.id), grace=span_message(scope.grace))
            if scope.handle is not None:
                given.handle.CopyFrom(handle_message(scope.handle))
            message.attempt.CopyFrom(given)
        case ExecutionScope():
            ended = work_pb2.ExecutionScope(execution=scope.execution, grace=span_message(scope.grace))
            message.execution.CopyFrom(ended)
        case Survey():
            message.survey.CopyFrom(work_pb2.Survey(installation=scope.installation))
        case _:
            assert_never(scope)
    return message


def scope_of(message: pb.CleanupRequest) -> CleanupScope:
    """Read what to end. Raises InvalidRequest when nothing is named."""
    match message.WhichOneof("scope"):
        case "attempt":
            return AttemptScope(
                id=attempt_of(message.attempt.attempt),
                handle=handle_of(message.attempt.handle) if message.attempt.HasField("handle") else None,
                grace=span_of(message.attempt.grace),
            )
        case "execution":
            if not message.execution.execution:
                raise InvalidRequest("the execution to clean up is not named")
            execution = ExecutionId(message.execution.execution)
            return ExecutionScope(execution=execution, grace=span_of(message.execution.grace))
        case "survey":
            return Survey(message.survey.installation)
        case _:
            raise InvalidRequest("nothing is named to clean up", hint="attempt, execution or survey")


def _kind(name: str) -> StepKind:
    try:
        return StepKind(name)
    except ValueError:
        raise InvalidRequest(
            f"no kind of step is called {name!r} here", hint=f"there are {', '.join(StepKind)}"
        ) from None


def _offsets(message: Mapping[str, int]) -> dict[LogStream, int]:
    try:
        return {LogStream(stream): offset for stream, offset in message.items()}
    except ValueError as error:
        raise InvalidRequest(f"no such stream: {error}") from error
