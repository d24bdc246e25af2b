"""The error that a server put beside the status of a failed call."""

from collections.abc import Iterable

from google.protobuf.message import DecodeError

from flexcore.common.errors import ERROR_KEY, METADATA_LIMIT_BYTES, error_of
from flexcore.common.v1.error_pb2 import Error
from flexcore.model.errors import FlexCoreError, InternalError

__all__ = ["METADATA_LIMIT_BYTES", "carried_error"]


def carried_error(metadata: Iterable[tuple[str, str | bytes]]) -> FlexCoreError | None:
    """Rebuild the server's error from the trailing metadata; None when it sent none."""
    for key, value in metadata:
        if key == ERROR_KEY and isinstance(value, bytes):
            try:
                return error_of(Error.FromString(value))
            except DecodeError:
                return InternalError("the server's error cannot be read", hint="is FlexCore as new here as there?")
    return None
