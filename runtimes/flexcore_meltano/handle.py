"""The handle of an attempt, and what its record says: name derivation and identity check.

The name is a function of installation and attempt; the identity is pid and start time of the shim, which no other
process ever had.
"""

from collections.abc import Mapping
from pathlib import Path

from flexcore.model.execution import Handle
from flexcore.model.ids import AttemptId, ExecutionId, StepPath, external_name
from flexcore.model.values import JSON
from flexcore.runtime.shim import Found

VERSION = 1


def attempt_folder(attempts: Path, installation: str, attempt: AttemptId) -> Path:
    """Name the folder of an attempt."""
    return attempts / external_name(installation, attempt)


def make_handle(found: Found) -> Handle:
    """Make the handle of an attempt that was started."""
    identity = found.record.identity if found.record else ""
    return Handle(VERSION, found.folder.name, identity)


def is_same(handle: Handle, found: Found) -> bool:
    """Say whether what is there is what the handle was made for."""
    return found.record is not None and found.record.identity == handle.identity


def attempt_notes(attempt: AttemptId) -> dict[str, JSON]:
    """Write down which attempt a folder belongs to; its name is a hash and does not tell."""
    return {"execution": attempt.execution, "path": attempt.path, "number": attempt.number}


def attempt_of(notes: Mapping[str, JSON]) -> AttemptId | None:
    """Read back which attempt a folder belongs to."""
    execution, path, number = notes.get("execution"), notes.get("path"), notes.get("number")
    if isinstance(execution, str) and isinstance(path, str) and isinstance(number, int):
        return AttemptId(ExecutionId(execution), StepPath(path), number)
    return None
