"""The step's own bytes in a job's log, however the log is cut into pieces, and from whatever offset on."""

from itertools import pairwise

from flexcore_ray.logs import JobLog
from hypothesis import given
from hypothesis import strategies as st

from flexcore.runtime.interface import LogStream

BEFORE = (
    b"2026-11-21 10:05:45,428\tINFO job_manager.py:581 -- Runtime env is setting up.\nRunning entrypoint for job x\n"
)


def read(raw: bytes, cuts: list[int], known: int = 0) -> list[tuple[int, bytes]]:
    log = JobLog("it-begins", "it-ends", known)
    edges = [0, *sorted(cut % (len(raw) + 1) for cut in cuts), len(raw)]
    chunks = [chunk for first, last in pairwise(edges) for chunk in log.feed(raw[first:last])]
    chunks += log.rest()
    assert {chunk.stream for chunk in chunks} <= {LogStream.STDOUT}
    return [(chunk.offset, chunk.data) for chunk in chunks]


@given(st.binary(max_size=300), st.lists(st.integers(min_value=0), max_size=8), st.integers(0, 300))
def test_every_byte_of_the_step_has_its_place_and_comes_once(own: bytes, cuts: list[int], known: int) -> None:
    known = min(known, len(own))

    found = read(BEFORE + b"it-begins\n" + own, cuts, known)

    assert b"".join(data for _, data in found) == own[known:]
    offset = known
    for start, data in found:
        assert start == offset
        offset += len(data)


@given(st.lists(st.integers(min_value=0), max_size=8))
def test_what_ray_writes_before_the_step_begins_is_not_the_steps(cuts: list[int]) -> None:
    assert read(BEFORE, cuts) == []


def test_a_large_piece_is_given_in_smaller_ones() -> None:
    own = b"x" * (5 << 20)

    found = read(b"it-begins\n" + own, [])

    assert max(len(data) for _, data in found) <= 1 << 20
    assert sum(len(data) for _, data in found) == len(own)
