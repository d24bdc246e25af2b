"""What a failed call to a server means: the server's own error, or a sentence about what kept the call from it.

The texts of gRPC are for its developers; here each becomes what is wrong and what to do about it.
"""

from collections.abc import Sequence

import grpc
import grpc.aio

from flexcore.model.errors import FlexCoreError, InvalidRequest, RuntimeUnavailable, Unauthenticated, Unavailable
from flexcore.runtime.wire.carried import carried_error

_TOKEN = "is `token` or `token_file` of this runtime the one that `flexcore runtime serve` there was given?"  # noqa: S105  a sentence about tokens
_CERTIFICATE = "is `ca_file` the authority that signed the server's certificate, and its name in the certificate?"
_REASONS: Sequence[tuple[tuple[str, ...], str, str]] = (
    (
        ("DNS", "resolving", "lookup failed", "Name or service not known", "getaddrinfo"),
        "its name cannot be found",
        "check the spelling of the host",
    ),
    (
        ("Hostname Verification", "Peer name"),
        "its certificate is for another name",
        "dial the name that is in the certificate, or say it in `server_name`",
    ),
    (("CERTIFICATE_VERIFY_FAILED", "certificate verify"), "its certificate is not trusted", _CERTIFICATE),
    (
        ("CERTIFICATE_REQUIRED", "certificate required", "BAD_CERTIFICATE", "UNKNOWN_CA"),
        "it does not accept our certificate",
        "it asks for one: set `cert_file` and `key_file`, signed by the authority of its --client-ca",
    ),
    (
        ("WRONG_VERSION_NUMBER", "Ssl handshake", "SSL_ERROR", "handshak"),
        "no encrypted connection comes about",
        "does the server use TLS, and does it ask for a certificate of ours (`cert_file`, `key_file`)?",
    ),
    (("refused",), "nobody listens there", "start it there: flexcore runtime serve NAME --listen ADDR"),
    (
        ("before receiving settings",),
        "it takes connections and says nothing",
        "its process may be frozen, and work there goes on unseen; or it wants TLS: set `ca_file`, or `tls: true`",
    ),
    (
        ("http1", "http2 header with status", "unexpected HTTP", "Trying to connect", "settings frame", "GOAWAY"),
        "what listens there is no FlexCore runtime server, or wants TLS",
        "check the port; `flexcore runtime serve` and `flexcore server` listen on different ones",
    ),
    (
        ("keepalive", "ping timeout"),
        "it stopped answering",
        "its process may be frozen, or the network drops what is sent; work there goes on unseen",
    ),
)
_UNREACHED = "is it running, and can this machine reach it? work there goes on meanwhile"


class ConnectionLost(RuntimeUnavailable):
    """The way to a server is broken, not its runtime: worth trying again at once, where the call can be repeated."""


def failed_call(address: str, error: grpc.aio.AioRpcError) -> FlexCoreError:
    """Say what a failed call came to. What the server refused stays InvalidRequest, or Fenced."""
    carried = carried_error(tuple(error.trailing_metadata() or ()))
    if carried is not None:
        return _refused(address, carried)
    status, details = error.code(), error.details() or ""
    match status:
        case grpc.StatusCode.UNIMPLEMENTED:
            hint = "is it `flexcore runtime serve`, and as new as this FlexCore? `flexcore server` is something else"
            return RuntimeUnavailable(f"server {address} is no FlexCore runtime server", hint=hint)
        case grpc.StatusCode.UNAUTHENTICATED | grpc.StatusCode.PERMISSION_DENIED:
            return RuntimeUnavailable(f"server {address} does not accept our token", hint=_TOKEN)
        case grpc.StatusCode.RESOURCE_EXHAUSTED:
            hint = "keep data in the artifact store, and pass references"
            return InvalidRequest(f"the step is too large for server {address}: {details}", hint=hint)
        case grpc.StatusCode.DEADLINE_EXCEEDED:
            return ConnectionLost(f"server {address} did not answer in time", hint=_UNREACHED)
    for signs, what, hint in _REASONS:
        if any(each.lower() in details.lower() for each in signs):
            return ConnectionLost(f"cannot reach server {address}: {what}", hint=hint)
    return ConnectionLost(f"cannot reach server {address}: {details or status.name}", hint=_UNREACHED)


def _refused(address: str, error: FlexCoreError) -> FlexCoreError:
    if isinstance(error, Unauthenticated):
        return RuntimeUnavailable(f"server {address} does not accept our token", hint=_TOKEN)
    if type(error) is Unavailable:  # it stops: another may be there in a moment
        return ConnectionLost(f"server {address}: {error.message}", hint=error.hint)
    if isinstance(error, Unavailable):
        return RuntimeUnavailable(f"server {address}: {error.message}", hint=error.hint)
    return error
