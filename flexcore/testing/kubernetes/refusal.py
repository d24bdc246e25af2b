"""What the API server answers instead of what was asked for: a `Status` with a number, a reason and a message."""

from collections.abc import Mapping
from typing import Any

from flexcore.testing.kubernetes.resources import Item, Resource

FIELDS = Mapping[str, Any]


class Refusal(Exception):
    """A refused request: HTTP status, reason and message as Kubernetes words them."""

    def __init__(self, code: int, reason: str, message: str, details: FIELDS | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.details = details
        self.headers: dict[str, str] = {}

    def status(self) -> Item:
        """Give the body of the answer."""
        body: Item = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
            "reason": self.reason,
            "code": self.code,
        }
        return body if self.details is None else {**body, "details": dict(self.details)}


def details(resource: Resource, name: str, **more: Any) -> dict[str, Any]:
    """Name what a refusal is about."""
    found: dict[str, Any] = {"name": name} if name else {}
    if resource.group:
        found["group"] = resource.group
    return {**found, "kind": resource.plural, **more}


def not_found(resource: Resource, name: str) -> Refusal:
    """There is none of this name."""
    return Refusal(404, "NotFound", f'{resource.qualified} "{name}" not found', details(resource, name))


def already_exists(resource: Resource, name: str, *, is_going: bool) -> Refusal:
    """There is one of this name, perhaps on its way out."""
    message = f'{resource.qualified} "{name}" already exists'
    prefix = "object is being deleted: " if is_going else ""
    return Refusal(409, "AlreadyExists", prefix + message, details(resource, name))


def conflict(resource: Resource, name: str, message: str, *, kind: str = "") -> Refusal:
    """Something about it is not as the request says."""
    what = kind + (f".{resource.group}" if resource.group else "") if kind else resource.qualified
    text = f'Operation cannot be fulfilled on {what} "{name}": {message}'
    return Refusal(409, "Conflict", text, {**details(resource, name), "kind": kind or resource.plural})


def forbidden(resource: Resource, name: str, message: str) -> Refusal:
    """Admission says no: quota, service account, pod security."""
    text = f'{resource.qualified} "{name}" is forbidden: {message}'
    return Refusal(403, "Forbidden", text, details(resource, name))


def invalid(resource: Resource, name: str, causes: list[tuple[str, str, str]]) -> Refusal:
    """The content is wrong: for each cause the field, the reason and the message."""
    texts = list(dict.fromkeys(f"{field}: {message}" for field, _, message in causes))
    what = f"{resource.kind}.{resource.group}" if resource.group else resource.kind
    listed = texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]"
    text = f'{what} "{name}" is invalid: {listed}'
    found = [{"reason": reason, "message": message, "field": field} for field, reason, message in causes]
    about = {**details(resource, name), "kind": resource.kind, "causes": found}
    return Refusal(422, "Invalid", text, about)


def bad_request(message: str) -> Refusal:
    """The request makes no sense."""
    return Refusal(400, "BadRequest", message)


def expired(version: int, current: int) -> Refusal:
    """The resource version is older than what can be served."""
    return Refusal(410, "Expired", f"too old resource version: {version} ({current})")
