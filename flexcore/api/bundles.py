"""What callers upload: a workflow file with its files. Names are checked here, before anybody makes a path of them."""

from collections.abc import Mapping

from flexcore.model.errors import InvalidRequest
from flexcore.model.requests import Bundle, check_bundle_path

DEFAULT_FILE_NAME = "workflow.yaml"


def uploaded_bundle(text: str, file_name: str, files: Mapping[str, bytes]) -> Bundle:
    """Make a bundle of what came over the wire. Raises InvalidRequest for a path that leaves the bundle."""
    for path in files:
        check_bundle_path(path)
    name = file_name or DEFAULT_FILE_NAME
    check_bundle_path(name)
    if "/" in name:
        raise InvalidRequest(f"the workflow's file name has a folder in it: {name!r}", hint="give the bare file name")
    return Bundle(text=text, file_name=name, files=dict(files))
