"""What work that failed came to: data, not an exception. Retries go by the class, people read the message."""

from dataclasses import dataclass
from enum import StrEnum


class ErrorClass(StrEnum):
    """Why an attempt failed, as far as it matters for what happens next."""

    USER = "user"  # the step's own code or command failed
    INPUT = "input"  # what the step was given cannot be right
    DEPENDENCY = "dependency"  # something outside that the step needs did not do its part
    QUOTA = "quota"  # a limit of the platform; later may work
    IMAGE = "image"  # the container image cannot be had or started
    OOM = "oom"  # killed for using too much memory
    EVICTED = "evicted"  # the platform took the place away
    LOST = "lost"  # the work vanished: its outcome can never be known
    TIMEOUT = "timeout"  # over the step's time limit
    CANCELLED = "cancelled"  # somebody ended it
    INTERNAL = "internal"  # a bug of ours


INFRASTRUCTURE = frozenset({ErrorClass.EVICTED, ErrorClass.LOST, ErrorClass.QUOTA})
"""Classes with a budget of their own, so that infrastructure never eats the user's tries."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A failure as people see it. `name` is the foreign type (`ValueError`, `exit 3`); `retry_after` is in seconds."""

    message: str
    error_class: ErrorClass = ErrorClass.USER
    name: str = ""
    step: str = ""
    attempt: int = 0
    hint: str = ""
    retry_after: float | None = None
    cause: "Failure | None" = None
