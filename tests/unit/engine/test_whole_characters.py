"""Output is cut between characters, wherever a runtime cut it, and no byte is lost or moved."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from flexcore.engine.whole_characters import Piece, WholeCharacters


def fed(pieces: list[Piece]) -> list[Piece]:
    stream = WholeCharacters()
    return [each for offset, data in pieces for each in stream.feed(offset, data)] + list(stream.flush())


def cut(data: bytes, places: list[int]) -> list[Piece]:
    ends = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [(start, data[start:end]) for start, end in itertools.pairwise(ends)]


@given(st.text(), st.lists(st.integers(0, 1000)))
def test_every_piece_of_a_text_is_a_text(text: str, places: list[int]) -> None:
    assert "".join(data.decode() for _, data in fed(cut(text.encode(), places))) == text


@given(st.binary(), st.lists(st.integers(0, 1000)))
def test_every_byte_comes_once_and_at_its_place(data: bytes, places: list[int]) -> None:
    came = fed(cut(data, places))

    assert b"".join(piece for _, piece in came) == data
    assert all(data[offset : offset + len(piece)] == piece for offset, piece in came)


def test_what_is_kept_back_is_given_up_when_something_else_follows() -> None:
    assert fed([(0, b"a\xf0\x9f"), (10, b"b")]) == [(0, b"a"), (1, b"\xf0\x9f"), (10, b"b")]
