"""What the engine keeps of a local attempt: the folder's name, and which shim runs in it."""

from flexcore.model.execution import Handle
from flexcore.runtime.shim import Found

VERSION = 1


def handle_of(found: Found) -> Handle:
    """Make the handle of an attempt that was started. `identity` is pid and start time of the shim."""
    return Handle(VERSION, found.folder.name, found.record.identity if found.record else "")


def is_same(handle: Handle, found: Found) -> bool:
    """Whether a stored handle means the work that was found, and not a later one under the same name."""
    return found.record is not None and handle.identity == found.record.identity
