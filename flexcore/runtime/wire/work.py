"""What both a request and its answers speak of: attempts, handles, requirements, durations."""

from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Any

import msgspec
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message

from flexcore.common.v1.json_pb2 import Json
from flexcore.common.values import duration, json_message, json_value
from flexcore.model.errors import InvalidRequest
from flexcore.model.execution import Handle
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.values import JSON
from flexcore.model.workflow import Requirements
from flexcore.runtime.v1 import work_pb2 as pb

_NUMBERS = ("cpu", "memory", "gpu", "disk", "data_size")


def attempt_message(id: AttemptId) -> pb.Attempt:
    """Carry an attempt's name."""
    return pb.Attempt(execution=id.execution, path=id.path, number=id.number)


def attempt_of(message: pb.Attempt) -> AttemptId:
    """Read an attempt's name. Raises InvalidRequest when a part is missing."""
    if not message.execution or not message.path or message.number < 1:
        raise InvalidRequest("the attempt is not named", hint="execution, path and a number from 1 are needed")
    return AttemptId(ExecutionId(message.execution), StepPath(message.path), message.number)


def handle_message(handle: Handle) -> pb.Handle:
    """Carry a handle."""
    return pb.Handle(
        version=handle.version,
        name=handle.name,
        identity=handle.identity,
        data=json_message(dict(handle.data)),
        transient=handle.transient,
    )


def handle_of(message: pb.Handle) -> Handle:
    """Read a handle."""
    data = object_of(message.data)
    return Handle(message.version, message.name, message.identity, data, transient=message.transient)


def requirements_message(requirements: Requirements) -> pb.Requirements:
    """Carry requirements: what runtimes enforce in fields of its own, the rest in `extra`."""
    given = {key: value for key, value in msgspec.to_builtins(requirements).items() if value is not None}
    message = pb.Requirements(tags=given.pop("tags", ()), **{key: given.pop(key) for key in _NUMBERS if key in given})
    if given:
        message.extra.CopyFrom(json_message(given))
    return message


def requirements_of(message: pb.Requirements) -> Requirements:
    """Read requirements. Raises InvalidRequest."""
    numbers = present(message, _NUMBERS)
    known = {key: value for key, value in object_of(message.extra).items() if key in Requirements.__slots__}
    try:
        return msgspec.convert({**known, **numbers, "tags": list(message.tags)}, Requirements)
    except msgspec.ValidationError as error:
        raise InvalidRequest(f"the requirements cannot be read: {error}") from error


def present(message: Message, names: Iterable[str]) -> dict[str, Any]:
    """Give the fields that are set, by name."""
    return {name: getattr(message, name) for name in names if message.HasField(name)}


def object_of(message: Json) -> Mapping[str, JSON]:
    """Read a JSON object; empty when unset. Raises InvalidRequest."""
    value = value_of(message)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"a JSON object is needed, not {type(value).__name__}")
    return value


def value_of(message: Json) -> JSON:
    """Read any JSON value. Raises InvalidRequest."""
    try:
        return json_value(message)
    except (ValueError, RecursionError) as error:
        raise InvalidRequest("a value is not JSON") from error


def span_message(span: timedelta | None) -> Duration | None:
    """Carry a time span that may be unset."""
    return None if span is None else duration(span)


def span_of(message: Duration) -> timedelta:
    """Read a time span. Raises InvalidRequest."""
    try:
        return message.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidRequest("a time span is out of range") from error
