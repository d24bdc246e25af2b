"""Brings inputs here as files and takes outputs away, over links that carry their own permission.

A link is a secret: no message may hold it. Nothing is read into memory as a whole. `check` is called between the
pieces and raises when all of it shall end.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Mapping
from http.client import HTTPException
from pathlib import Path
from typing import IO, Any, TypeVar
from urllib.error import HTTPError, URLError
from urllib.parse import unquote, urlsplit
from urllib.request import Request, urlopen

from .results import Unprepared

_CHUNK = 1 << 20
_PATIENCE_S, _APART_S, _MOST_APART_S, _SILENCE_S = 120.0, 0.5, 10.0, 60.0
_Result = TypeVar("_Result")
_FOR_EVER = (400, 401, 403, 404, 405, 410, 411, 413)
_HINTS = {403: "its link may have run out, as with temporary credentials: another attempt gets new ones"}
TROUBLES = (OSError, EOFError, HTTPException)
_IN_VAIN = (FileNotFoundError, PermissionError, IsADirectoryError)
ROWS_ARE_LINES = ("jsonl", "ndjson")  # a row of CSV may go over several lines


def fetch(name: str, link: Mapping[str, Any], checksum: str, target: Path, check: Callable[[], None]) -> int:
    """Bring an input to a file, and count its bytes. Raises Unprepared, also when something else came."""
    size, digest = _tried(f"input {name!r} cannot be fetched", lambda: _fetched(link, target, check), check)
    if checksum and checksum != digest:
        raise _not_transferred(f"input {name!r} is not what was referred to: {digest} instead of {checksum}")
    return size


def store(name: str, source: Path, link: Mapping[str, Any], form: str, check: Callable[[], None]) -> dict[str, Any]:
    """Take an output to its place, and describe it. Raises Unprepared."""
    found = described(source, form, check)
    _tried(f"output {name!r} cannot be stored", lambda: put(source, link, found["bytes"]), check)
    return found


def described(source: Path, form: str, check: Callable[[], None]) -> dict[str, Any]:
    """Describe a file: bytes, checksum, and rows where lines are rows. Raises OSError."""
    hashed = hashlib.sha256()
    size, lines, last = 0, 0, b"\n"
    with source.open("rb") as file:
        for piece in iter(lambda: file.read(_CHUNK), b""):
            check()
            hashed.update(piece)
            size, lines, last = size + len(piece), lines + piece.count(b"\n"), piece[-1:]
    rows = lines + (last != b"\n") if form in ROWS_ARE_LINES else None
    return {"bytes": size, "checksum": f"sha256-{hashed.hexdigest()}", "rows": rows}


def put(source: Path, link: Mapping[str, Any], size: int) -> None:
    """Take a file to its place, once. Raises Unprepared, or one of TROUBLES, whose own text may hold the link."""
    place = _path(link)
    if place is not None:
        _copied(source, place)
        return
    with source.open("rb") as file:
        headers = {**link["headers"], "Content-Length": str(size)}
        if not any(name.lower() == "content-type" for name in headers):
            headers["Content-Type"] = "application/octet-stream"  # else urllib says that it is a form
        asked = Request(link["url"], data=file, headers=headers, method="PUT")  # noqa: S310 (as below)
        with urlopen(asked, timeout=_SILENCE_S) as answer:  # noqa: S310 (as below)
            answer.read()


def is_in_vain(error: Exception) -> bool:
    """Say whether trying again would come to the same."""
    return error.code in _FOR_EVER if isinstance(error, HTTPError) else isinstance(error, _IN_VAIN)


def reason(error: Exception) -> str:
    """Say what went wrong, without the link."""
    if isinstance(error, HTTPError):
        return f"the store answered {error.code} {error.reason}"
    if isinstance(error, HTTPException):  # some of them quote the link
        return type(error).__name__
    cause = error.reason if isinstance(error, URLError) else error
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)


def hint(error: Exception) -> str:
    """Say what may be done about it, if that is known."""
    return _HINTS.get(error.code, "") if isinstance(error, HTTPError) else ""


def _not_transferred(message: str, hint: str = "") -> Unprepared:
    return Unprepared(message, name="NotTransferred", hint=hint)


def _tried(what: str, act: Callable[[], _Result], check: Callable[[], None]) -> _Result:
    """Try until it goes well, or for so long in vain: hours of work may be in the file."""
    until = time.monotonic() + _PATIENCE_S
    apart = _APART_S
    while True:
        try:
            return act()
        except TROUBLES as error:
            if is_in_vain(error) or time.monotonic() > until:
                raise _not_transferred(f"{what}: {reason(error)}", hint(error)) from None  # the original holds the link
        _wait(apart, check)
        apart = min(2 * apart, _MOST_APART_S)


def _wait(seconds: float, check: Callable[[], None]) -> None:
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        check()
        time.sleep(min(left, _APART_S))


def _fetched(link: Mapping[str, Any], target: Path, check: Callable[[], None]) -> tuple[int, str]:
    hashed = hashlib.sha256()
    size = 0
    with _opened(link) as source, target.open("wb") as file:
        for piece in iter(lambda: source.read(_CHUNK), b""):
            check()
            hashed.update(piece)
            size += len(piece)
            file.write(piece)
        wanted = _announced(source)
    if wanted is not None and wanted != size:
        raise EOFError(f"it ended after {size} of {wanted} bytes")
    return size, f"sha256-{hashed.hexdigest()}"


def _opened(link: Mapping[str, Any]) -> IO[bytes]:
    place = _path(link)
    if place is not None:
        return place.open("rb")
    asked = Request(link["url"], headers=dict(link["headers"]))  # noqa: S310 (a link is http(s) or a file, see below)
    answer: IO[bytes] = urlopen(asked, timeout=_SILENCE_S)  # noqa: S310 (as above)
    return answer


def _announced(source: IO[bytes]) -> int | None:
    headers = getattr(source, "headers", None)
    length = headers.get("Content-Length") if headers is not None else None
    return int(length) if length and length.isdigit() else None


def _copied(source: Path, place: Path) -> None:
    place.parent.mkdir(parents=True, exist_ok=True)
    new = place.with_name(f".new-{os.getpid()}-{os.urandom(4).hex()}-{place.name}")
    try:
        with source.open("rb") as ours, new.open("wb") as theirs:
            shutil.copyfileobj(ours, theirs, _CHUNK)
            theirs.flush()
            os.fsync(theirs.fileno())
        new.replace(place)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise
    folder = os.open(str(place.parent), os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)  # the name too: the reference is about to be written down
    finally:
        os.close(folder)


def _path(link: Mapping[str, Any]) -> Path | None:
    parts = urlsplit(link["url"])
    if parts.scheme == "file":
        return Path(unquote(parts.path))
    if parts.scheme not in ("http", "https"):
        raise _not_transferred("a link is a file or an http(s) address")
    return None
