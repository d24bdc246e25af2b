"""Values on their way into JavaScript and back, as JSON text, and what can be wrong with them. Pure.

The two sides disagree on integers: JavaScript's numbers are exact only up to 2^53. A larger one is refused before it
enters, and comes back as a float, so that what JavaScript once produced may enter it again.
"""

import re
import signal
from collections.abc import Mapping, Sequence

import msgspec

from flexcore.engine.render import Answer, Query, refused
from flexcore.engine.sandbox import ReplyKind, SandboxLimits, frame
from flexcore.model.values import JSON

_EXACT = 2**53
_MANY_DIGITS = re.compile(rb"[0-9]{16}")  # no text without it holds an integer that large
_TOO_SLOW = "do less in one expression, or do it in a python step"


def request(query: Query, limits: SandboxLimits) -> bytes | Answer:
    """Encode a query for a sandbox, or answer it at once when its values cannot enter JavaScript."""
    try:
        names = msgspec.json.encode(query.names)
        source = query.source.encode()
    except (UnicodeEncodeError, RecursionError, TypeError, ValueError) as error:
        return refused(query.source, f"what it reads cannot enter JavaScript ({error})", name="NotJSON")
    if b"\0" in source:
        return refused(query.source, "it holds a null character", name="SyntaxError")
    if len(names) > limits.memory_bytes:
        cause = f"what it reads has {len(names)} bytes, more than JavaScript may use here ({limits.memory_bytes})"
        return refused(query.source, cause, name="OutOfMemory", hint=_TOO_SLOW)
    if _MANY_DIGITS.search(names) and (large := _large_integer(query.names, "")):
        cause = f"integer {large[1]} at {large[0]} is beyond 2^53 and would lose digits in JavaScript"
        hint = "pass it as text, or read it by a plain path"
        return refused(query.source, cause, name="RangeError", hint=hint)
    return frame(source, names)


def answer(query: Query, kind: ReplyKind, body: bytes) -> Answer:
    """Decode a sandbox's reply."""
    if kind is ReplyKind.FAILURE:
        return _explained(query, body.decode("utf-8", "replace"))
    try:
        value: JSON = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        return refused(query.source, f"its result is not usable as JSON ({error})", name="NotJSON")
    return Answer(value=_with_floats(value) if kind is ReplyKind.LARGE else value)


def out_of_time(query: Query, limits: SandboxLimits) -> Answer:
    """Answer for a child that had to be ended."""
    return refused(query.source, _over_time(limits), name="Timeout", hint=_TOO_SLOW)


def crashed(query: Query, code: int) -> Answer:
    """Answer for a child that died; `code` as Popen has it, negative for a signal."""
    try:
        cause = signal.Signals(-code).name if code < 0 else f"exit {code}"
    except ValueError:
        cause = f"signal {-code}"
    return refused(query.source, f"it crashed the process that evaluates it ({cause})", name="Crash", hint=_TOO_SLOW)


def _over_time(limits: SandboxLimits) -> str:
    return f"it took more than {limits.seconds:g} s of computing time"


def _explained(query: Query, body: str) -> Answer:
    name, line, column, message = body.split("\n", 3)
    place = f" (line {line}, column {column} of the expression)" if line not in ("0", "1") else ""
    if line == "1":
        place = f" (column {column} of the expression)"
    hint = _TOO_SLOW if name in ("Timeout", "OutOfMemory") else ""
    return refused(query.source, message + place, name=name, hint=hint)


def _large_integer(value: JSON, path: str) -> tuple[str, int] | None:
    match value:
        case bool() | str() | float() | None:
            return None
        case int():
            return (path, value) if abs(value) > _EXACT else None
        case Mapping():
            members = ((f"{path}.{key}" if path else key, each) for key, each in value.items())
        case Sequence():
            members = ((f"{path}[{index}]", each) for index, each in enumerate(value))
    return next((found for where, each in members if (found := _large_integer(each, where))), None)


def _with_floats(value: JSON) -> JSON:
    match value:
        case bool() | str() | float() | None:
            return value
        case int():
            return float(value) if abs(value) > _EXACT else value
        case Mapping():
            return {key: _with_floats(each) for key, each in value.items()}
        case Sequence():
            return [_with_floats(each) for each in value]
