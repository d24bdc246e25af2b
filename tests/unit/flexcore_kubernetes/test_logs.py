"""What a container wrote arrives once, however the connection breaks."""

from flexcore_kubernetes.logs import Reached, StampedLog
from hypothesis import given
from hypothesis import strategies as st

_LINES = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 2), st.binary(max_size=8)), max_size=30)


def written(lines: list[tuple[int, int, bytes]], torn: bool) -> list[tuple[int, bytes, bytes]]:
    """Make (second, stamped line, line) of steps in time and contents."""
    second, nanosecond, found = 10, 0, []
    for seconds, nanoseconds, content in lines:
        second, nanosecond = second + seconds, nanosecond + nanoseconds * 100
        fraction = f".{nanosecond:09d}".rstrip("0").rstrip(".")
        line = content.replace(b"\n", b" ") + b"\n"
        found.append((second, f"2026-11-21T03:19:{second % 60:02d}{fraction}Z ".encode() + line, line))
    if torn and found:
        second, stamped, line = found[-1]
        found[-1] = (second, stamped[:-1], line[:-1])
    return found


@given(_LINES, st.lists(st.integers(0, 200), max_size=6), st.integers(1, 50), st.booleans())
def test_broken_connections_neither_lose_nor_repeat_a_byte(
    lines: list[tuple[int, int, bytes]], breaks: list[int], piece: int, torn: bool
) -> None:
    whole = written([(min(a, 1), b, c) for a, b, c in lines][:30], torn)
    log, out = StampedLog(), b""

    for length in [*breaks, 1 << 20]:
        since = log.since
        log.reconnected()
        from_second = 0 if since is None else int(since[17:19])
        answer = b"".join(stamped for second, stamped, _ in whole if second % 60 >= from_second)[:length]
        for begin in range(0, len(answer), piece):
            out += log.feed(answer[begin : begin + piece])
        if length == 1 << 20:
            out += log.ended()

    assert out == b"".join(line for _, _, line in whole)


def test_line_broken_off_after_a_part_of_it_was_given_goes_on_there() -> None:
    long = b"x" * 600_000
    log = StampedLog()
    out = log.feed(b"2026-11-21T03:19:11.5Z " + long[:400_000])

    log.reconnected()
    out += log.feed(b"2026-11-21T03:19:11.5Z " + long + b"\n2026-11-21T03:19:12Z end") + log.ended()

    assert out == long + b"\nend"


def test_lines_that_only_look_stamped_are_kept() -> None:
    log = StampedLog()

    out = log.feed(b"2026-11-21T03:19:11Z 2026-11-21T03:19:11Z mine\n2026-11-21T03:19:11.1Z \n")

    assert out == b"2026-11-21T03:19:11Z mine\n\n"
    assert log.since == "2026-11-21T03:19:11Z"


def stamped(*lines: int) -> bytes:
    return b"".join(b"2026-11-21T03:19:%02dZ line %d\n" % (number, number) for number in lines)


def test_another_reading_goes_on_where_one_had_come_to() -> None:
    log = StampedLog()
    log.feed(stamped(1, 2, 3))
    reached = log.reached

    later = StampedLog(reached)
    later.reconnected()
    out = later.feed(stamped(3, 4, 5))

    assert reached == Reached("2026-11-21T03:19:03Z", 1)
    assert out == b"line 4\nline 5\n"
    assert not later.gap()


def test_a_last_line_that_does_not_come_again_is_a_gap() -> None:
    log = StampedLog(Reached("2026-11-21T03:19:03Z", 1))
    log.reconnected()

    out = log.feed(stamped(7, 8))

    assert out == b"line 7\nline 8\n"
    assert log.gap()
    assert not log.gap(at_end=True)


def test_a_log_that_is_over_without_its_last_line_is_a_gap() -> None:
    log = StampedLog(Reached("2026-11-21T03:19:03Z", 1))
    log.reconnected()

    assert log.ended() == b""
    assert log.gap(at_end=True)


def test_no_place_is_given_within_a_line() -> None:
    log = StampedLog()

    log.feed(b"2026-11-21T03:19:11Z " + b"x" * 600_000)

    assert log.reached is None
