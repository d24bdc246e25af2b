"""What callers upload: a workflow file with its files. Names are checked here, before anybody makes a path of them."""

from collections.abc import Mapping
from pathlib import PurePosixPath

from flexcore.model.errors import InvalidRequest
from flexcore.model.requests import Bundle

DEFAULT_FILE_NAME = "workflow.yaml"
_LONGEST = 1024


def uploaded_bundle(text: str, file_name: str, files: Mapping[str, bytes]) -> Bundle:
    """Make a bundle of what came over the wire. Raises InvalidRequest for a path that leaves the bundle."""
    for path in files:
        _check(path)
    name = file_name or DEFAULT_FILE_NAME
    _check(name)
    if "/" in name:
        raise InvalidRequest(f"the workflow's file name has a folder in it: {name!r}", hint="give the bare file name")
    return Bundle(text=text, file_name=name, files=dict(files))


def _check(path: str) -> None:
    parts = PurePosixPath(path).parts
    # Compared with its parts, so that "a//b", "./a" and "a/" are refused too: one file has one name.
    relative = bool(parts) and "/".join(parts) == path and ".." not in parts and ":" not in parts[0]
    if not relative or len(path) > _LONGEST or "\\" in path or not path.isprintable():
        hint = "paths are relative to the workflow file, with forward slashes, and stay below it"
        raise InvalidRequest(f"not a path inside a bundle: {path[:_LONGEST]!r}", hint=hint)
