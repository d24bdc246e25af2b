"""Reading requests: what a caller may have got wrong becomes InvalidRequest here."""

import json
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from flexcore.api.bundles import uploaded_bundle
from flexcore.api.v1 import workflow_pb2
from flexcore.common.v1.json_pb2 import Json
from flexcore.common.values import json_value, moment
from flexcore.model.errors import InvalidRequest
from flexcore.model.requests import Bundle, Collectable
from flexcore.model.units import LONGEST
from flexcore.model.values import JSON

DEFAULT_WORKSPACE = "default"
_MOST_OF_A_LIST = 1000


def optional(request: Message, name: str) -> str | None:
    """Read a text that may be unset."""
    return str(getattr(request, name)) if request.HasField(name) else None


def json_in(message: Json) -> JSON:
    """Read a JSON value."""
    try:
        value = json_value(message)
        if "\\u" in message.text:
            json.dumps(value, ensure_ascii=False).encode()  # half of a pair on its own is no text
        return value
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"not JSON: {error}") from error


def object_in(message: Json) -> Mapping[str, JSON]:
    """Read a JSON object; empty when unset."""
    value = json_in(message)
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise InvalidRequest(f"a JSON object is needed, not {type(value).__name__}")
    return value


def span_in(request: Message, name: str) -> timedelta | None:
    """Read a duration that may be unset."""
    if not request.HasField(name):
        return None
    message: Duration = getattr(request, name)
    try:
        span = message.ToTimedelta()
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{name} is out of range") from error
    if not timedelta(0) <= span <= LONGEST:
        raise InvalidRequest(f"{name} is out of range", hint=f"from nothing to {LONGEST.days} days")
    return span


def limit_in(number: int, default: int) -> int:
    """Read how many of a list are wanted; 0 is as good as unset. Lists are paged, so that no answer is too large."""
    if not 0 <= number <= _MOST_OF_A_LIST:
        raise InvalidRequest(f"limit is out of range: {number}", hint=f"at most {_MOST_OF_A_LIST}; read page by page")
    return number or default


def kinds_in(names: Iterable[str]) -> frozenset[Collectable]:
    """Read kinds of what can be collected."""
    try:
        return frozenset(Collectable(each) for each in names)
    except ValueError as error:
        raise InvalidRequest(f"no such kind: {error}", hint=f"there are {', '.join(Collectable)}") from error


def moment_in(request: Message, name: str) -> datetime | None:
    """Read a time that may be unset."""
    if not request.HasField(name):
        return None
    message: Timestamp = getattr(request, name)
    try:
        return moment(message)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(f"{name} is out of range") from error


def bundle_in(message: workflow_pb2.Bundle) -> Bundle:
    """Read an upload."""
    return uploaded_bundle(message.text, message.file_name, message.files)
