"""How the far program's ending comes back to us: in a file, in the log, or as a termination message."""

import base64
import hashlib
from dataclasses import dataclass

from flexcore.model.ids import AttemptId

MOST_IN_MESSAGE = 4096
"""Bytes that fit into a termination message of Kubernetes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """One way back. With a `mark`, the step's two outputs go into one log, and what we add begins with the mark.

    With a `path`, the ending is written there, if it is not larger than `limit`; above it, and without a path, it
    goes into the log.
    """

    path: str = ""
    mark: str = ""
    limit: int | None = None


def to_file(path: str) -> Delivery:
    """Write the ending to a file, whatever its size. The step's outputs stay two streams."""
    return Delivery(path=path)


def to_log(mark: str) -> Delivery:
    """Write the ending to the end of the log; `EndingInLog` takes it out again."""
    return Delivery(mark=mark)


def to_termination_message(path: str, limit: int = MOST_IN_MESSAGE, *, mark: str) -> Delivery:
    """Write the ending to a file of limited size, or to the log when it does not fit (then the file stays empty)."""
    return Delivery(path=path, mark=mark, limit=limit)


def mark_of(installation: str, attempt: AttemptId, token: int) -> str:
    """Make the mark of an attempt: the same after a restart, and nothing that a step's output holds by chance."""
    raw = hashlib.sha256(f"ending\n{installation}\n{attempt}\n{token}".encode()).digest()[:20]
    return f"flexcore-ending-{base64.b32encode(raw).decode().lower()}"
