"""What happens before any route is looked at: host, token, size; and the headers of every answer.

A plain ASGI layer around the whole application, so that no route, known or unknown, can be reached past it.
"""

from collections.abc import Collection
from dataclasses import dataclass

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flexcore.api.addresses import LOOPBACK_NAMES, split_address
from flexcore.api.http.problems import problem
from flexcore.model.errors import FlexCoreError, InvalidRequest, LimitExceeded, PermissionDenied, Unauthenticated
from flexcore.security.authn import TokenVerifier

_SECURITY_HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


@dataclass(frozen=True, slots=True)
class Guard:
    """Lets a request through, or answers it itself. `open_paths` need no token: exactly these, and only to read."""

    app: ASGIApp
    verifier: TokenVerifier
    open_paths: Collection[str]
    body_limit_bytes: int

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request. Anything but HTTP (a WebSocket) is not served at all."""
        if scope["type"] != "http":
            return
        try:
            self._check(scope, Headers(scope=scope))
        except FlexCoreError as error:
            await problem(error)(scope, receive, _with_headers(send))
            return
        await self.app(scope, self._counted(receive), _with_headers(send))

    def _check(self, scope: Scope, headers: Headers) -> None:
        _require_own_host(headers)
        if scope["path"] not in self.open_paths or scope["method"] not in ("GET", "HEAD"):
            self._require_token(headers)
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise InvalidRequest("the Content-Length is not a number")
        if int(length) > self.body_limit_bytes:
            raise self._too_large(int(length))

    def _require_token(self, headers: Headers) -> None:
        values = headers.getlist("authorization")
        if len(values) != 1 or not self.verifier.accepts_authorization(values[0]):
            hint = "send the header `Authorization: Bearer TOKEN`"
            raise Unauthenticated("a valid token is needed", hint=hint)

    def _counted(self, receive: Receive) -> Receive:
        """Count what comes, because a body need not say how long it is. The endpoint that reads on gets the error."""
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > self.body_limit_bytes:
                raise self._too_large(seen)
            return message

        return counted

    def _too_large(self, size: int) -> LimitExceeded:
        limit = self.body_limit_bytes
        return LimitExceeded(f"the body is larger than {limit} bytes", limit=limit, actual=size)


def _require_own_host(headers: Headers) -> None:
    """Refuse foreign names that resolve to this machine: a page in a browser could reach us by one."""
    host = split_address(headers.get("host", ""))[0]
    if host not in LOOPBACK_NAMES:
        raise PermissionDenied("the Host is not this machine's loopback", hint="use 127.0.0.1 or localhost")


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _SECURITY_HEADERS.items():
                headers[name] = value
        await send(message)

    return sending
