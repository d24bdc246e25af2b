"""The format of a log segment: frames of a fixed header and bytes of one stream; the first says where it stands.

Pure reading and writing of bytes; which files there are is logs.py's business. A frame that is cut off, which a crash
can leave at the end, is as if it were not there.
"""

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import msgspec

from flexcore.runtime.interface import LogStream

FRAME_BYTES = 2**16

_HEADER = struct.Struct(">BBQQI")  # magic, stream, offset in the stream, microseconds since 1970, length
_MAGIC = 0xF7
_POSITION = 0
_STREAMS = (LogStream.STDOUT, LogStream.STDERR, LogStream.SYSTEM)
_CODES = {stream: code for code, stream in enumerate(_STREAMS, 1)}


@dataclass(frozen=True, slots=True)
class LogPiece:
    """Bytes of one stream in the order they came; `at` is microseconds since 1970, 0 for a line of the store's own."""

    stream: LogStream
    offset: int
    data: bytes
    at: int = 0


@dataclass(frozen=True, slots=True)
class Position:
    """What an attempt wrote before a segment: bytes over all streams, and where each stream goes on."""

    total: int = 0
    offsets: Mapping[LogStream, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Tail:
    """Where a segment ends: its valid size in bytes, and the position after it."""

    size: int
    position: Position


@dataclass(frozen=True, slots=True)
class _Frame:
    code: int
    offset: int
    at: int
    payload: bytes
    end: int


def position_frame(position: Position) -> bytes:
    """Spell the frame that every segment begins with."""
    payload = msgspec.json.encode(position)
    return _HEADER.pack(_MAGIC, _POSITION, 0, 0, len(payload)) + payload


def stream_frame(piece: LogPiece) -> bytes:
    """Spell a piece of at most FRAME_BYTES."""
    return _HEADER.pack(_MAGIC, _CODES[piece.stream], piece.offset, piece.at, len(piece.data)) + piece.data


def after(position: Position, piece: LogPiece) -> Position:
    """Say where an attempt stands after a piece."""
    offsets = {**position.offsets, piece.stream: piece.offset + len(piece.data)}
    return Position(position.total + len(piece.data), offsets)


def position_in(data: bytes) -> Position:
    """Give the position that a segment begins with."""
    first = next(_frames(data), None)
    if first is None or first.code != _POSITION:
        return Position()
    return msgspec.json.decode(first.payload, type=Position)


def tail_in(data: bytes) -> Tail:
    """Find the valid end of a segment and where the attempt stood there."""
    position, size = position_in(data), 0
    for frame in _frames(data):
        size = frame.end
        if frame.code != _POSITION:
            position = after(position, _piece(frame))
    return Tail(size, position)


def pieces_in(data: bytes, limit: int) -> tuple[Sequence[LogPiece], int]:
    """Give the pieces that begin in the first `limit` bytes, and where the next frame begins."""
    pieces, end = [], 0
    for frame in _frames(data):
        end = frame.end
        if frame.code != _POSITION:
            pieces.append(_piece(frame))
        if end >= limit:
            break
    return pieces, end


def _frames(data: bytes) -> Iterator[_Frame]:
    start = 0
    while start + _HEADER.size <= len(data):
        magic, code, offset, at, length = _HEADER.unpack_from(data, start)
        end = start + _HEADER.size + length
        if magic != _MAGIC or code > len(_STREAMS) or end > len(data):
            return
        yield _Frame(code, offset, at, data[start + _HEADER.size : end], end)
        start = end


def _piece(frame: _Frame) -> LogPiece:
    return LogPiece(_STREAMS[frame.code - 1], frame.offset, frame.payload, frame.at)
