"""Runs an `http` step: one request, its answer judged against what the step expects.

Runs in a child process, so that traffic directed by users stays out of the control plane. URLs in messages go without
user, password and query, which may hold secrets.
"""

import base64
import os
import sys
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import httpx

from flexcore_local.far import runner

MAX_BODY_BYTES = 10 << 20
_TRANSIENT = frozenset({408, 425, 429})


def main() -> int:
    """Send the request and say the exit code."""
    failure = os.environ.pop(runner.FAILURE)
    order = runner.read_order()
    try:
        with httpx.Client(timeout=order["timeout"], follow_redirects=True) as client, _send(client, order) as response:
            body = _read(response)
    except httpx.TimeoutException as error:
        return _fail(failure, order, f"did not answer within {order['timeout']:g} s", error, "timeout")
    except (httpx.UnsupportedProtocol, httpx.InvalidURL, httpx.LocalProtocolError) as error:
        return _fail(failure, order, f"cannot be asked: {error}", error, "input")
    except httpx.HTTPError as error:
        return _fail(failure, order, f"failed: {error}", error, "dependency")
    if body is None:
        message = f"{_title(order)} sent more than {MAX_BODY_BYTES} bytes; fetch it with a python or bash step"
        return runner.fail(failure, message, name="BodyTooLarge")
    if not is_expected(response.status_code, order["expect"]):
        return _unexpected(failure, order, response, body)
    return runner.succeed(runner.encode(answer(response, body)))


def is_expected(status: int, expect: list[int | str]) -> bool:
    """Match a status with codes and classes such as `2xx`."""
    return any(str(each) in (str(status), f"{status // 100}xx") for each in expect)


def answer(response: httpx.Response, body: bytes) -> dict[str, Any]:
    """Turn an answer into the step's result: parsed when it is JSON, text when it is text, else base64."""
    result: dict[str, Any] = {"status": response.status_code, "headers": dict(response.headers)}
    media = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media == "application/json" or media.endswith("+json"):
        try:
            return {**result, "json": httpx.Response(200, content=body).json()}
        except ValueError:
            pass  # it only said so; then it is text
    try:
        return {**result, "body": body.decode(response.charset_encoding or "utf-8")}
    except (UnicodeDecodeError, LookupError):
        return {**result, "body": base64.b64encode(body).decode(), "encoding": "base64"}


def retry_after(header: str | None, now: datetime) -> float | None:
    """Read the header, in seconds or as a date; None if it makes no sense."""
    if header is None:
        return None
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, (parsedate_to_datetime(header) - now).total_seconds())
    except (ValueError, TypeError):
        return None


def status_class(status: int) -> str:
    """Say whose fault an unexpected status is."""
    if status >= 500 or status in _TRANSIENT:
        return "dependency"
    return "input" if 400 <= status < 500 else "user"


def _send(client: httpx.Client, order: dict[str, Any]) -> Any:
    content = {"json": order["json"]} if order["has_json"] else {"content": order["body"]}
    return client.stream(
        order["method"], order["url"], headers=order["headers"], params=order["query"] or None, **content
    )


def _read(response: httpx.Response) -> bytes | None:
    body = bytearray()
    for part in response.iter_bytes():
        body += part
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _title(order: dict[str, Any]) -> str:
    try:
        url = httpx.URL(order["url"])
    except httpx.InvalidURL:
        return f"{order['method']} (an address that is none)"
    return f"{order['method']} {url.copy_with(query=None, userinfo=b'', fragment=None)}"


def _fail(failure: str, order: dict[str, Any], what: str, error: Exception, error_class: str) -> int:
    return runner.fail(failure, f"{_title(order)} {what}", name=type(error).__name__, error_class=error_class)


def _unexpected(failure: str, order: dict[str, Any], response: httpx.Response, body: bytes) -> int:
    status = response.status_code
    sys.stderr.buffer.write(body[:2048] + b"\n")
    return runner.fail(
        failure,
        f"{_title(order)} answered {status} {response.reason_phrase}".rstrip(),
        name=f"status {status}",
        error_class=status_class(status),
        retry_after=retry_after(response.headers.get("retry-after"), datetime.now(UTC)),
    )
