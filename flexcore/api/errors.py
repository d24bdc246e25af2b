"""The one map from our exceptions to what each entrance says: HTTP status, gRPC status, exit code.

Exit codes: 1 a bug, 2 usage, validation, unknown, conflict or limit, 3 not reachable, 5 refused.
gRPC statuses are names here, so that the command line can use this module without loading gRPC.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from flexcore.model.errors import (
    AlreadyExists,
    Ambiguous,
    Conflict,
    Diagnostic,
    Fenced,
    FlexCoreError,
    IllegalTransition,
    InternalError,
    InvalidDefinition,
    InvalidInput,
    InvalidRequest,
    InvalidSettings,
    LimitExceeded,
    NoFeasibleRuntime,
    NotFound,
    PermissionDenied,
    PoolFull,
    RuntimeUnavailable,
    StoreUnavailable,
    Unauthenticated,
    Unavailable,
)


@dataclass(frozen=True, slots=True)
class Statuses:
    """What one class of error is at each entrance."""

    http: int
    grpc: str
    exit_code: int


STATUSES: Mapping[type[FlexCoreError], Statuses] = {
    FlexCoreError: Statuses(500, "INTERNAL", 1),
    InvalidRequest: Statuses(400, "INVALID_ARGUMENT", 2),
    InvalidDefinition: Statuses(422, "INVALID_ARGUMENT", 2),
    InvalidInput: Statuses(422, "INVALID_ARGUMENT", 2),
    InvalidSettings: Statuses(422, "INVALID_ARGUMENT", 2),
    Unauthenticated: Statuses(401, "UNAUTHENTICATED", 5),
    PermissionDenied: Statuses(403, "PERMISSION_DENIED", 5),
    NotFound: Statuses(404, "NOT_FOUND", 2),
    Conflict: Statuses(409, "ABORTED", 2),
    AlreadyExists: Statuses(409, "ALREADY_EXISTS", 2),
    IllegalTransition: Statuses(409, "FAILED_PRECONDITION", 2),
    Fenced: Statuses(409, "ABORTED", 2),
    PoolFull: Statuses(409, "ABORTED", 2),
    LimitExceeded: Statuses(429, "RESOURCE_EXHAUSTED", 2),
    NoFeasibleRuntime: Statuses(422, "FAILED_PRECONDITION", 2),
    Unavailable: Statuses(503, "UNAVAILABLE", 3),
    StoreUnavailable: Statuses(503, "UNAVAILABLE", 3),
    RuntimeUnavailable: Statuses(503, "UNAVAILABLE", 3),
    Ambiguous: Statuses(504, "DEADLINE_EXCEEDED", 3),
    InternalError: Statuses(500, "INTERNAL", 1),
}

_TOO_LARGE = 413


def statuses(error: FlexCoreError) -> Statuses:
    """Look up an error by its class, or by the nearest class above it that the map knows."""
    return next(STATUSES[each] for each in type(error).__mro__ if each in STATUSES)


def http_status(error: FlexCoreError) -> int:
    """Give the HTTP status: a limit that waiting does not help against is a size, 413, not a rate, 429."""
    if isinstance(error, LimitExceeded) and error.retry_after is None:
        return _TOO_LARGE
    return statuses(error).http


def exit_code(error: FlexCoreError) -> int:
    """Give the exit code of a command that ended with this error."""
    return statuses(error).exit_code


def diagnostics_of(error: FlexCoreError) -> tuple[Diagnostic, ...]:
    """Give the places that an error names, if its class names any."""
    return error.diagnostics if isinstance(error, InvalidDefinition | InvalidInput) else ()
