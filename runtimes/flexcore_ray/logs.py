"""The step's output in a job's log: behind what Ray writes first, before how the step ended, and from an offset on.

Pure: fed with the log's raw bytes from its first one on. Offsets count from the first byte that is the step's own.
"""

from collections.abc import Iterator

from flexcore.runtime.interface import LogChunk, LogStream
from flexcore.runtime.portable.ending import Ending, EndingInLog

LARGEST_CHUNK = 1 << 20


class JobLog:
    """One reading of a log. `known` bytes of the step's output are had already, and not given again."""

    def __init__(self, begins: str, mark: str, known: int = 0) -> None:
        self.has_begun = False
        self.seen = known
        self._line = begins.encode() + b"\n"
        self._before = b""
        self._inside = EndingInLog(mark)
        self._offset = 0

    @property
    def ending(self) -> Ending | None:
        """How the step ended, as soon as that was read."""
        return self._inside.ending

    def feed(self, raw: bytes) -> Iterator[LogChunk]:
        """Take the next raw bytes, give what is new of the step's output."""
        if not self.has_begun:
            before, found, raw = (self._before + raw).partition(self._line)
            self.has_begun = bool(found)
            self._before = b"" if found else before[-len(self._line) :]
            raw = raw if found else b""
        if raw:
            yield from self._given(self._inside.feed(raw))

    def rest(self) -> Iterator[LogChunk]:
        """Give what was held back, when nothing more comes."""
        yield from self._given(self._inside.rest())

    def _given(self, own: bytes) -> Iterator[LogChunk]:
        start, self._offset = self._offset, self._offset + len(own)
        own = own[max(0, self.seen - start) :]
        for first in range(0, len(own), LARGEST_CHUNK):
            piece = own[first : first + LARGEST_CHUNK]
            yield LogChunk(LogStream.STDOUT, self.seen, piece)
            self.seen += len(piece)
