"""What a caller may do, by name. Every route and method declares one; what declares none is not served."""

from collections.abc import Iterable, Mapping
from enum import StrEnum

from flexcore.model.errors import InternalError


class Permission(StrEnum):
    """The permission that a route or method needs. `OPEN` needs no token: only health has it."""

    OPEN = "open"
    WORKFLOW_READ = "workflow:read"
    WORKFLOW_WRITE = "workflow:write"
    EXECUTION_READ = "execution:read"
    EXECUTION_START = "execution:start"
    EXECUTION_CONTROL = "execution:control"
    RUNTIME_READ = "runtime:read"
    SERVER_READ = "server:read"
    STORE_WRITE = "store:write"
    AUDIT_READ = "audit:read"


def require_declared(present: Iterable[str], declared: Mapping[str, Permission] | Iterable[str]) -> None:
    """Refuse to start when something would be served that declares no permission. Raises InternalError."""
    undeclared = sorted(set(present) - set(declared))
    if undeclared:
        raise InternalError(f"served without a declared permission: {', '.join(undeclared)}")
