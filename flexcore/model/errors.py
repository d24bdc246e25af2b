"""What a caller gets who asked for something and did not get it.

FlexCoreError
├── InvalidRequest: InvalidDefinition (with diagnostics) · InvalidInput · InvalidSettings
├── Unauthenticated · PermissionDenied
├── NotFound
├── Conflict: AlreadyExists · IllegalTransition · Fenced · PoolFull
├── LimitExceeded
├── NoFeasibleRuntime
├── Unavailable: StoreUnavailable · RuntimeUnavailable
├── Ambiguous
└── InternalError

What a user's *work* came to is never one of these: that is a `Failure` (failure.py). The one map from these to HTTP
and gRPC statuses and exit codes is `flexcore/api/errors.py`; a test walks this tree against it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, order=True)
class Diagnostic:
    """One thing wrong in a text: where (1-based; 0 when the place is unknown), what, and how to mend it."""

    file: str
    line: int
    column: int
    message: str
    code: str = "invalid"
    hint: str = ""
    path: str = ""

    def __str__(self) -> str:
        """Render as `file:line:column: message` with the hint behind it, the form editors and people expect."""
        hint = f" ({self.hint})" if self.hint else ""
        return f"{self.file}:{self.line}:{self.column}: {self.message}{hint}"


class FlexCoreError(Exception):
    """The root: a message for a person, a hint how to mend it, and a stable code for programs."""

    code = "error"

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class InvalidRequest(FlexCoreError):
    """The request cannot be understood or is not allowed to have this shape."""

    code = "invalid_request"


class InvalidDefinition(InvalidRequest):
    """A workflow does not hold together; `diagnostics` has every problem with its place."""

    code = "invalid_definition"

    def __init__(self, diagnostics: Sequence[Diagnostic]) -> None:
        super().__init__("\n".join(str(each) for each in diagnostics))
        self.diagnostics = tuple(diagnostics)


class InvalidInput(InvalidRequest):
    """An execution's input does not match the workflow's schema; one diagnostic per problem."""

    code = "invalid_input"

    def __init__(self, message: str, *, hint: str = "", diagnostics: Sequence[Diagnostic] = ()) -> None:
        super().__init__(message, hint=hint)
        self.diagnostics = tuple(diagnostics)


class InvalidSettings(InvalidRequest):
    """A setting is unknown, misspelt or has the wrong value."""

    code = "invalid_settings"


class Unauthenticated(FlexCoreError):
    """Nobody knows who is asking."""

    code = "unauthenticated"


class PermissionDenied(FlexCoreError):
    """Known, and not allowed."""

    code = "permission_denied"


class NotFound(FlexCoreError):
    """There is no such thing; the hint names what is there."""

    code = "not_found"


class Conflict(FlexCoreError):
    """The thing is not in the state that the request needs."""

    code = "conflict"


class AlreadyExists(Conflict):
    """The name or key is taken by something else."""

    code = "already_exists"


class IllegalTransition(Conflict):
    """The lifecycle has no such step; `allowed` says which it has."""

    code = "illegal_transition"

    def __init__(self, message: str, *, allowed: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint or (f"allowed: {', '.join(allowed)}" if allowed else ""))
        self.allowed = tuple(allowed)


class Fenced(Conflict):
    """The writer is no longer the owner, or its token is old. Late: nothing was changed."""

    code = "fenced"


class PoolFull(Conflict):
    """The last free place of a limited pool went to somebody else; `pools` are full. Nothing was changed."""

    code = "pool_full"

    def __init__(self, message: str, *, pools: Sequence[str] = (), hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pools = tuple(pools)


class LimitExceeded(FlexCoreError):
    """More than the limit allows; `retry_after` in seconds when waiting helps."""

    code = "limit_exceeded"

    def __init__(
        self, message: str, *, limit: int = 0, actual: int = 0, retry_after: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.limit = limit
        self.actual = actual
        self.retry_after = retry_after


class NoFeasibleRuntime(FlexCoreError):
    """No runtime can run the step; `reasons` has a sentence per candidate."""

    code = "no_feasible_runtime"

    def __init__(self, message: str, *, reasons: Mapping[str, str], hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.reasons = dict(reasons)


class Unavailable(FlexCoreError):
    """Something we depend on does not answer; the same request may be sent again."""

    code = "unavailable"


class StoreUnavailable(Unavailable):
    """The store cannot be reached or cannot write."""

    code = "store_unavailable"


class RuntimeUnavailable(Unavailable):
    """A runtime cannot be reached: the outcome of work on it is unknown, not failed."""

    code = "runtime_unavailable"


class Ambiguous(FlexCoreError):
    """The outcome is unknown; the hint says how to find out."""

    code = "ambiguous"


class InternalError(FlexCoreError):
    """An invariant broke. Always a bug, never caught silently."""

    code = "internal"
