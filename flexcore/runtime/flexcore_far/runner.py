"""What the runners of the kinds share: the order comes in on standard input, result and failure go out as files.

Runs in a child process, standard library only, no newer than Python 3.8. Must never print the order: it may hold
secrets.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

RESULT = "FLEXCORE_RESULT"
FAILURE = "FLEXCORE_FAILURE"


class Unsuitable(Exception):
    """The step's result cannot be JSON."""


def read_order() -> dict[str, Any]:
    """Read all of standard input; the step's code finds it empty."""
    order: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    return order


def encode(value: object) -> bytes:
    """Encode a result as strict JSON. Raises Unsuitable with a sentence for the author of the step."""
    try:
        return json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise Unsuitable(f"the result is not JSON: {error}") from error


def succeed(content: bytes) -> int:
    """Write the encoded result and say exit code 0."""
    _write(os.environ[RESULT], content)
    return 0


def fail(
    path: str,
    message: str,
    *,
    name: str = "",
    error_class: str = "user",
    hint: str = "",
    retry_after: float | None = None,
) -> int:
    """Write what the work failed with to the failure file, and say exit code 1."""
    failure = {"message": message, "name": name, "error_class": error_class, "hint": hint, "retry_after": retry_after}
    _write(path, json.dumps(failure).encode())
    return 1


def _write(path: str, content: bytes) -> None:
    new = f"{path}.{os.getpid()}"
    with open(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
        file.write(content)
    os.replace(new, path)  # noqa: PTH105 (pathlib is slow to import)
