"""Cuts output between characters: a piece that ends in the middle of one keeps its beginning back for the next. Pure.

Pieces are shown by themselves, and halves of a character would be shown as two that nobody wrote. What is no UTF-8
goes through as it is; three bytes at most are kept back.
"""

from collections.abc import Iterator

Piece = tuple[int, bytes]
"""Where it begins in its stream, and the bytes."""

_NOTHING: Piece = (0, b"")


class WholeCharacters:
    """One stream of output."""

    __slots__ = ("_begun",)

    def __init__(self) -> None:
        self._begun = _NOTHING

    def feed(self, offset: int, data: bytes) -> Iterator[Piece]:
        """Take a piece; give what is whole."""
        start, begun = self._begun
        if begun and start + len(begun) == offset:
            offset, data = start, begun + data
        else:
            yield from self.flush()
        whole = len(data) - _unfinished(data)
        self._begun = (offset + whole, data[whole:])
        if whole:
            yield offset, data[:whole]

    def flush(self) -> Iterator[Piece]:
        """Give what was kept back: nothing follows that could end it."""
        begun, self._begun = self._begun, _NOTHING
        if begun[1]:
            yield begun


def _unfinished(data: bytes) -> int:
    """Count the bytes at the end that begin a character and do not end it."""
    for back in range(1, min(3, len(data)) + 1):
        byte = data[-back]
        if byte < 0x80:
            return 0
        if byte >= 0xC0:
            length = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return back if length > back else 0
    return 0
