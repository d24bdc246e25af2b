"""What a failed gRPC call means to its caller: the server's own error, rebuilt; or that there is no server."""

from collections.abc import Mapping
from urllib.parse import urlsplit

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from flexcore.common.errors import ERROR_KEY, error_of
from flexcore.common.v1.error_pb2 import Error
from flexcore.model.errors import (
    Ambiguous,
    FlexCoreError,
    InternalError,
    InvalidRequest,
    InvalidSettings,
    LimitExceeded,
    PermissionDenied,
    Unauthenticated,
    Unavailable,
)

_PLAIN: Mapping[grpc.StatusCode, type[FlexCoreError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: InvalidRequest,
    grpc.StatusCode.UNAUTHENTICATED: Unauthenticated,
    grpc.StatusCode.PERMISSION_DENIED: PermissionDenied,
    grpc.StatusCode.RESOURCE_EXHAUSTED: LimitExceeded,
    grpc.StatusCode.DEADLINE_EXCEEDED: Ambiguous,
    grpc.StatusCode.CANCELLED: Ambiguous,
}
"""Statuses that gRPC itself gives, without an error of ours."""


def target_of(address: str) -> str:
    """Find `host:port` in a server's address; a scheme `grpc://` or `http://` may stand before it."""
    if "://" not in address:
        address = f"grpc://{address}"
    parts = urlsplit(address)
    if parts.scheme not in ("grpc", "http") or not parts.netloc or parts.path not in ("", "/") or "@" in parts.netloc:
        raise InvalidSettings(f"not a server's address: {address!r}", hint="HOST:PORT, such as 127.0.0.1:9090")
    return parts.netloc


def error_of_call(address: str, failed: grpc.aio.AioRpcError) -> FlexCoreError:
    """Rebuild what the server raised, or say what kept the call from it."""
    for key, value in failed.trailing_metadata() or ():
        if key == ERROR_KEY and isinstance(value, bytes):
            return _carried(value)
    status, details = failed.code(), failed.details() or ""
    if status is grpc.StatusCode.UNAVAILABLE:
        hint = "is it running there? `flexcore server` starts one; clients need its gRPC address"
        return Unavailable(f"cannot reach server {address}: {details}", hint=hint)
    if status is grpc.StatusCode.UNIMPLEMENTED:
        return Unavailable(f"server {address} does not offer this", hint="is it FlexCore, and as new as this client?")
    kind = _PLAIN.get(status, InternalError)
    return kind(f"server {address} answered {status.name}: {details}")


def _carried(value: bytes) -> FlexCoreError:
    try:
        return error_of(Error.FromString(value))
    except DecodeError:
        return InternalError("the server's error cannot be read", hint="is the client as new as the server?")
