from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flexcore.model.units import format_duration, format_size, parse_duration, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("30m", 1800),
        ("1h30m", 5400),
        ("2s", 2),
        ("500ms", 0.5),
        (90, 90),
        (0.25, 0.25),
        ("7", 7),
        ("1.5h", 5400),
        ("1d", 86400),
        (" 5s ", 5),
        ("1h0.5s", 3600.5),
    ],
)
def test_durations_are_read(text: str | float, seconds: float) -> None:
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text",
    [
        *("", "s", "5x", "1m1h", "1m1m", "-3s", "3 s", "1h 30m", "1_000s", "٣s", "nan", "1e3s", 0, -1),
        *(float("nan"), float("inf"), True, "99999d", "0s", "9" * 400, 1e-9),
    ],
)
def test_what_is_no_duration_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="is "):
        parse_duration(text)


def test_zero_is_a_duration_only_where_it_is_allowed() -> None:
    assert parse_duration("0s", zero=True) == timedelta(0)


@pytest.mark.parametrize(
    ("text", "size"),
    [("10GB", 10**10), ("512MiB", 512 * 2**20), ("1.5kb", 1500), (7, 7), ("7", 7), ("1 TB", 10**12), (2.0, 2)],
)
def test_sizes_are_read(text: str | float, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "GB", "10 apples", "-1", -1, 0, 0.5, "0.5B", "9999999PB", float("nan"), float("inf"), True, "1e3"]
)
def test_what_is_no_size_is_refused(text: str | float) -> None:
    with pytest.raises(ValueError, match="is "):
        parse_size(text)


@given(st.timedeltas(min_value=timedelta(microseconds=1), max_value=timedelta(days=3650)))
def test_a_duration_that_is_written_is_read_back(value: timedelta) -> None:
    assert parse_duration(format_duration(value)) == value


@given(st.one_of(st.text(max_size=30), st.floats(), st.integers()))
def test_anything_is_a_quantity_or_a_value_error(value: str | float) -> None:
    for parse in (parse_duration, parse_size):
        try:
            parse(value)
        except ValueError as error:
            assert str(error)


def test_quantities_are_written_for_people() -> None:
    assert format_duration(timedelta(minutes=90)) == "1h30m"
    assert format_duration(timedelta(seconds=1.5)) == "1s500ms"
    assert format_duration(timedelta(0)) == "0s"
    assert format_size(10**10) == "10GB"
    assert format_size(27_350_000) == "27.4MB"
    assert format_size(12) == "12B"
