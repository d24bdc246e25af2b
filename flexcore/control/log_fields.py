"""The fields of JSON lines in output that comes in pieces: each line belongs to the piece that it ends in. Pure.

The pieces themselves stay as they are: no offset and no byte of them depends on what is understood of their lines.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from flexcore.model.log_records import log_record
from flexcore.model.requests import Document
from flexcore.runtime.interface import LogStream
from flexcore.store.log_frames import LogPiece

LONGEST_LINE = 64 * 1024
"""Bytes. A longer line is text and nothing else."""

UNREADABLE = -1
"""Where a line begins of which the beginning is not known, or that is too long: nothing is read up to its end."""


@dataclass(frozen=True, slots=True)
class OpenLine:
    """A line that has not ended yet: where it begins in its stream, and what there is of it."""

    offset: int
    data: bytes = b""


@dataclass(slots=True)
class FieldReader:
    """Reads the pieces of one attempt in order. `open` are the lines that earlier pieces have begun."""

    open: dict[LogStream, OpenLine] = field(default_factory=dict)
    _ends: dict[LogStream, int] = field(default_factory=dict)

    def lines(self, piece: LogPiece) -> Sequence[Document]:
        """Give the JSON lines that end in a piece: `{offset, level, message, time, fields}`."""
        if piece.at == 0:  # a line of the store's own, in no stream
            return []
        if self._ends.get(piece.stream, piece.offset) != piece.offset:
            self.open[piece.stream] = OpenLine(UNREADABLE)
        self._ends[piece.stream] = piece.offset + len(piece.data)
        begun = self.open.pop(piece.stream, OpenLine(piece.offset))
        found: list[Document] = []
        start = 0
        while (end := piece.data.find(b"\n", start)) >= 0:
            found += _record(OpenLine(begun.offset, begun.data + piece.data[start:end]))
            start = end + 1
            begun = OpenLine(piece.offset + start)
        return [*found, *self._keep(piece.stream, OpenLine(begun.offset, begun.data + piece.data[start:]))]

    def _keep(self, stream: LogStream, line: OpenLine) -> Sequence[Document]:
        """Keep what has no end yet. An object that is closed is whole: no line that goes on behind it would be JSON."""
        whole = _record(line) if line.data.rstrip().endswith(b"}") else []
        if whole or len(line.data) > LONGEST_LINE or line.offset == UNREADABLE:
            self.open[stream] = OpenLine(UNREADABLE)
        elif line.data:
            self.open[stream] = line
        return whole


def opened(starts: Mapping[LogStream, int], earlier: Iterable[LogPiece], found: Sequence[LogPiece]) -> FieldReader:
    """Go on in the middle: put together what `earlier` pieces have of the lines that begin at `starts`.

    Of a stream that is not in `found` nothing is needed yet: `remaining` keeps its start.
    """
    reader = FieldReader()
    pieces = [piece for piece in earlier if piece.at]
    for stream, start in starts.items():
        first = next((piece.offset for piece in found if piece.stream is stream and piece.at), None)
        if first is not None:
            data = None if start == UNREADABLE else _between(pieces, stream, start, first)
            reader.open[stream] = OpenLine(UNREADABLE) if data is None else OpenLine(start, data)
    return reader


def remaining(starts: Mapping[LogStream, int], found: Sequence[LogPiece], reader: FieldReader) -> dict[LogStream, int]:
    """Say where the lines begin that are open behind the pieces that were read."""
    read = {piece.stream for piece in found if piece.at}
    kept = {stream: start for stream, start in starts.items() if stream not in read}
    return kept | {stream: line.offset for stream, line in reader.open.items()}


def _between(pieces: Sequence[LogPiece], stream: LogStream, start: int, end: int) -> bytes | None:
    """Give the bytes of a stream between two offsets; None when some of them are not there."""
    data = b""
    for piece in pieces:
        here = start + len(data)
        if piece.stream is stream and piece.offset <= here < piece.offset + len(piece.data):
            data += piece.data[here - piece.offset :]
    return data[: end - start] if len(data) >= end - start else None


def _record(line: OpenLine) -> list[Document]:
    if line.offset == UNREADABLE or not line.data.startswith(b"{") or len(line.data) > LONGEST_LINE:
        return []
    record = log_record(line.data.decode(errors="replace").rstrip())
    return [] if record is None else [{"offset": line.offset, **record.document()}]
