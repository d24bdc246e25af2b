"""Hands the ending over: into a file, into the log, or into the file when it is small enough and into the log if not.

An ending is one line of JSON, then the result as JSON. In the log it comes after all of the step's own output, in
lines of less than 16 KiB (what longer lines become is up to who keeps the log): the mark, a number, a piece in base64;
the last has a dot for the number and a checksum of the whole.
"""

from __future__ import annotations

import base64
import os
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from .supervision import pass_on

_PIECE = 12_000
_LOG = 1


def deliver(way: Mapping[str, Any], ending: bytes) -> None:
    """Deliver by `path`, `mark` and `limit`. A file that cannot be written is no reason to lose the ending."""
    fits = way["limit"] is None or len(ending) <= way["limit"]
    if way["path"] and fits:
        try:
            _write(way["path"], ending)
        except OSError:
            if not way["mark"]:
                raise
        else:
            return
    for line in lines(way["mark"], ending):
        pass_on(_LOG, line)


def lines(mark: str, ending: bytes) -> Iterator[bytes]:
    """Write an ending as lines of a log."""
    for number, at in enumerate(range(0, len(ending), _PIECE)):
        yield b"%s %d %s\n" % (mark.encode(), number, base64.b64encode(ending[at : at + _PIECE]))
    yield b"%s . %08x\n" % (mark.encode(), zlib.crc32(ending))


def _write(path: str, content: bytes) -> None:
    """In place: the file of a termination message is mounted and cannot be replaced."""
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:  # noqa: PTH123 (a descriptor)
        file.write(content)
