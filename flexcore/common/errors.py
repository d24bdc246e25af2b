"""Our exceptions on the wire and back: the same class, message, hint and particulars on both sides."""

from collections.abc import Iterator

from flexcore.common.v1 import error_pb2
from flexcore.common.values import seconds_message, seconds_value
from flexcore.model.errors import (
    Diagnostic,
    FlexCoreError,
    IllegalTransition,
    InvalidDefinition,
    InvalidInput,
    LimitExceeded,
    NoFeasibleRuntime,
)

ERROR_KEY = "flexcore-error-bin"
"""The trailing metadata that carries an Error."""

METADATA_LIMIT_BYTES = 1024 * 1024
"""What both sides allow for metadata; gRPC's own default of 8 KiB is too small for a long list of problems."""

_ERROR_LIMIT_BYTES = 256 * 1024


def error_message(error: FlexCoreError, request_id: str = "") -> error_pb2.Error:
    """Carry an exception. Problems that make it too long for metadata are left off at the end, and the hint says so."""
    message = error_pb2.Error(code=error.code, message=error.message, hint=error.hint, request_id=request_id)
    match error:
        case InvalidDefinition():
            message.message = ""  # it is the diagnostics, rendered: built again from them
            message.diagnostics.extend(diagnostic_message(each) for each in error.diagnostics)
        case InvalidInput():
            message.diagnostics.extend(diagnostic_message(each) for each in error.diagnostics)
        case IllegalTransition():
            message.allowed.extend(error.allowed)
        case NoFeasibleRuntime():
            message.reasons.update(error.reasons)
        case LimitExceeded():
            message.limit, message.actual = error.limit, error.actual
            if error.retry_after is not None:
                message.retry_after.CopyFrom(seconds_message(round(error.retry_after, 6)))
        case _:
            pass
    return _shortened(message)


def error_of(message: error_pb2.Error) -> FlexCoreError:
    """Build the exception again; a code that only a newer server knows becomes the root class with that code."""
    kind = next((each for each in _tree(FlexCoreError) if each.code == message.code), FlexCoreError)
    diagnostics = [diagnostic_of(each) for each in message.diagnostics]
    error: FlexCoreError
    if issubclass(kind, InvalidDefinition):
        error = InvalidDefinition(diagnostics)
        error.hint = message.hint
    elif issubclass(kind, InvalidInput):
        error = kind(message.message, hint=message.hint, diagnostics=diagnostics)
    elif issubclass(kind, IllegalTransition):
        error = kind(message.message, hint=message.hint, allowed=message.allowed)
    elif issubclass(kind, NoFeasibleRuntime):
        error = kind(message.message, hint=message.hint, reasons=message.reasons)
    elif issubclass(kind, LimitExceeded):
        wait = seconds_value(message.retry_after) if message.HasField("retry_after") else None
        error = kind(message.message, hint=message.hint, limit=message.limit, actual=message.actual, retry_after=wait)
    else:
        error = kind(message.message, hint=message.hint)
        error.code = message.code
    return error


def diagnostic_message(diagnostic: Diagnostic) -> error_pb2.Diagnostic:
    """Carry one problem."""
    return error_pb2.Diagnostic(
        file=diagnostic.file,
        line=diagnostic.line,
        column=diagnostic.column,
        message=diagnostic.message,
        code=diagnostic.code,
        hint=diagnostic.hint,
        path=diagnostic.path,
    )


def diagnostic_of(message: error_pb2.Diagnostic) -> Diagnostic:
    """Read one problem."""
    return Diagnostic(
        file=message.file,
        line=message.line,
        column=message.column,
        message=message.message,
        code=message.code,
        hint=message.hint,
        path=message.path,
    )


def _tree(kind: type[FlexCoreError]) -> Iterator[type[FlexCoreError]]:
    yield kind
    for each in kind.__subclasses__():
        yield from _tree(each)


def _shortened(message: error_pb2.Error) -> error_pb2.Error:
    left_off = 0
    while message.ByteSize() > _ERROR_LIMIT_BYTES and message.diagnostics:
        half = len(message.diagnostics) // 2
        left_off += len(message.diagnostics) - half
        del message.diagnostics[half:]
    if left_off:
        message.hint = f"{message.hint}; {left_off} more problems were left off".removeprefix("; ")
    return message
