"""Single values on the wire: JSON as text, times, durations. Each function here has its inverse beside it.

Times in documents are RFC 3339 in UTC with `Z` and milliseconds; durations are seconds.
"""

import json
from datetime import UTC, datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flexcore.common.v1.json_pb2 import Json
from flexcore.model.values import JSON

_NANOS = 10**9


def json_message(value: JSON) -> Json:
    """Carry a value as its text. Raises ValueError for NaN and infinities, which JSON does not have."""
    return Json(text=json.dumps(value, allow_nan=False, separators=(",", ":")))


def json_value(message: Json) -> JSON:
    """Read a value. Integers keep every digit. Raises ValueError when the text is not JSON."""
    value: JSON = json.loads(message.text, parse_constant=_refuse_constant) if message.text else None
    return value


def time_text(at: datetime) -> str:
    """Write an aware time as documents do."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def time_message(text: str) -> Timestamp:
    """Carry a document's time. Raises ValueError when the text would come back differently."""
    at = datetime.fromisoformat(text)
    if at.tzinfo is None or time_text(at) != text:
        raise ValueError(f"not a canonical UTC time: {text}")
    return timestamp(at)


def timestamp(at: datetime) -> Timestamp:
    """Carry an aware time."""
    message = Timestamp()
    message.FromDatetime(at)
    return message


def moment(message: Timestamp) -> datetime:
    """Read a time, aware, in UTC. Digits below a microsecond are dropped."""
    return message.ToDatetime(tzinfo=UTC)


def seconds_message(seconds: float) -> Duration:
    """Carry seconds. Raises ValueError when they would come back differently."""
    # In two parts: the product of years and a billion has more digits than a float.
    nanos = int(seconds) * _NANOS + round((seconds - int(seconds)) * _NANOS)
    if nanos / _NANOS != seconds:
        raise ValueError(f"more digits than a duration has: {seconds}")
    sign = -1 if nanos < 0 else 1
    whole, rest = divmod(abs(nanos), _NANOS)
    return Duration(seconds=sign * whole, nanos=sign * rest)


def seconds_value(message: Duration) -> float:
    """Read seconds."""
    return (message.seconds * _NANOS + message.nanos) / _NANOS


def duration(span: timedelta) -> Duration:
    """Carry a time span."""
    message = Duration()
    message.FromTimedelta(span)
    return message


def _refuse_constant(name: str) -> JSON:
    raise ValueError(f"{name} is not JSON")
