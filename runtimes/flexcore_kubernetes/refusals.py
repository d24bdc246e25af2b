"""What it means when the API server says no: one table, from its status and words to a failure of the step. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from flexcore.model.failure import ErrorClass, Failure
from flexcore_kubernetes.cluster import Refused


@dataclass(frozen=True, slots=True)
class Row:
    """One kind of refusal."""

    applies: Callable[[Refused], bool]
    error_class: ErrorClass
    name: str
    hint: str


def _is_quota(refused: Refused) -> bool:
    return refused.status == 403 and ("exceeded quota" in refused.message or "failed quota" in refused.message)


TABLE: tuple[Row, ...] = (
    Row(_is_quota, ErrorClass.QUOTA, "QuotaExceeded", "wait until others are done, or have the quota raised"),
    Row(
        lambda refused: refused.status == 403 and "violates PodSecurity" in refused.message,
        ErrorClass.INPUT,
        "PodSecurity",
        "set `security: restricted` in the runtime's settings, and let the image run as another user than root",
    ),
    Row(
        lambda refused: refused.status == 403 and "service account" in refused.message,
        ErrorClass.INPUT,
        "ServiceAccountMissing",
        "make the service account, or correct service_account in the runtime's settings",
    ),
    Row(
        lambda refused: refused.status == 403 and "is being terminated" in refused.message,
        ErrorClass.INPUT,
        "NamespaceTerminating",
        "the namespace is being deleted: choose another one in the runtime's settings",
    ),
    Row(
        lambda refused: refused.status == 403,
        ErrorClass.INPUT,
        "Forbidden",
        "give the account the permission: the message has verb, resource and namespace",
    ),
    Row(
        lambda refused: refused.status == 404 and refused.details.get("kind") == "namespaces",
        ErrorClass.INPUT,
        "NamespaceMissing",
        "make the namespace, or correct `namespace` in the runtime's settings",
    ),
    Row(lambda refused: refused.status == 404, ErrorClass.INPUT, "NotFound", "the cluster does not know this"),
    Row(
        lambda refused: refused.status == 409,
        ErrorClass.DEPENDENCY,
        "Conflict",
        "something else has this name, or changed at the same time: try again",
    ),
    Row(
        lambda refused: refused.status == 413,
        ErrorClass.INPUT,
        "TooLarge",
        "pass big values by an artifact or a volume",
    ),
    Row(lambda refused: refused.status in (400, 422), ErrorClass.INPUT, "Invalid", "correct the field that is named"),
    Row(lambda refused: True, ErrorClass.DEPENDENCY, "Refused", "see the message of the cluster"),
)
"""The first row that applies."""


def failure_of(refused: Refused, what: str) -> Failure:
    """Say what was refused, and why."""
    row = next(row for row in TABLE if row.applies(refused))
    return Failure(
        message=f"the cluster refuses {what}: {refused.message[:1000]}",
        error_class=row.error_class,
        name=row.name,
        hint=row.hint,
    )
