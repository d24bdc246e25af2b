"""Durations and sizes as people write them: `1h30m`, `500ms`, `10GB`, `512MiB`. Pure text to number and back.

A bare number is seconds or bytes. Decimal prefixes are powers of 1000, those with an `i` powers of 1024. What is out
of bounds or not a quantity raises ValueError with a sentence for the person who wrote it.
"""

import re
from datetime import timedelta
from fractions import Fraction

LONGEST = timedelta(days=3650)
LARGEST = 10**18  # an exabyte: above it, somebody slipped

_MICROSECONDS = {"d": 86_400_000_000, "h": 3_600_000_000, "m": 60_000_000, "s": 1_000_000, "ms": 1_000}
_DURATION = re.compile(r"(?:[0-9]{1,12}(?:\.[0-9]{1,9})?(?:ms|[dhms]))+")
_PART = re.compile(r"([0-9.]+)(ms|[dhms])")
_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,9})?")
_DECIMAL = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "PB": 10**15}
_BINARY = {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40, "PIB": 2**50}
_SIZE = re.compile(r"([0-9]{1,18}(?:\.[0-9]{1,9})?) ?([KMGTP]?i?B)", re.IGNORECASE)


def parse_duration(value: str | int | float, *, zero: bool = False) -> timedelta:
    """Read `30m`, `1h30m`, `2s`, `500ms` (units d h m s ms, falling, each once) or a number of seconds.

    Raises ValueError for anything else, for zero (unless `zero`) and for more than ten years.
    """
    microseconds = _microseconds(value)
    if microseconds is None:
        raise ValueError(f"{_shown(value)} is not a duration; write for example 30s, 5m, 1h30m or 500ms")
    if microseconds < 0 or (microseconds == 0 and not zero):
        raise ValueError(f"{_shown(value)} is not a duration above zero")
    if microseconds > LONGEST // timedelta(microseconds=1):
        raise ValueError(f"{_shown(value)} is too long; at most {LONGEST.days}d")
    if microseconds and microseconds < 1:
        raise ValueError(f"{_shown(value)} is less than a microsecond")
    return timedelta(microseconds=round(microseconds))


def _microseconds(value: str | int | float) -> Fraction | None:
    if isinstance(value, bool):
        return None
    if not isinstance(value, str):
        return _fraction(value, 1_000_000)
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return Fraction(text) * 1_000_000
    if not _DURATION.fullmatch(text):
        return None
    parts = _PART.findall(text)
    order = [list(_MICROSECONDS).index(unit) for _, unit in parts]
    if order != sorted(set(order)):
        return None
    return sum((Fraction(number) * _MICROSECONDS[unit] for number, unit in parts), Fraction(0))


def _fraction(value: int | float, factor: int) -> Fraction | None:
    try:
        return Fraction(str(value) if isinstance(value, float) else value) * factor
    except (ValueError, OverflowError):  # NaN and the infinities
        return None


def parse_size(value: str | int | float, *, zero: bool = False) -> int:
    """Read `10GB` (10·10⁹), `512MiB` (512·2²⁰), `1.5TB` or a whole number of bytes; upper and lower case are alike.

    Raises ValueError for anything else, for zero (unless `zero`), parts of a byte and more than an exabyte.
    """
    size = _bytes(value)
    if size is None:
        raise ValueError(f"{_shown(value)} is not a size; write for example 10GB, 512MiB or a number of bytes")
    if size.denominator != 1:
        raise ValueError(f"{_shown(value)} is not a whole number of bytes")
    if size < 0 or (size == 0 and not zero):
        raise ValueError(f"{_shown(value)} is not a size above zero")
    if size > LARGEST:
        raise ValueError(f"{_shown(value)} is too large; at most {LARGEST // 10**15}PB")
    return int(size)


def _bytes(value: str | int | float) -> Fraction | None:
    if isinstance(value, bool):
        return None
    if not isinstance(value, str):
        return _fraction(value, 1)
    text = value.strip()
    if _NUMBER.fullmatch(text):
        return Fraction(text)
    match = _SIZE.fullmatch(text)
    if match is None:
        return None
    unit = match[2].upper()
    return Fraction(match[1]) * (_DECIMAL.get(unit) or _BINARY.get(unit) or 1)


def format_duration(value: timedelta) -> str:
    """Write a duration the way `parse_duration` reads it, exactly: `1h30m`, `2s`, `1s500ms`, `0s`."""
    rest = value // timedelta(microseconds=1)
    sign, rest = ("-", -rest) if rest < 0 else ("", rest)
    parts: list[str] = []
    for unit, factor in _MICROSECONDS.items():
        if unit == "ms":
            break
        count, rest = divmod(rest, factor)
        if count:
            parts.append(f"{count}{unit}")
    if rest:
        parts.append(f"{rest / 1000:.3f}".rstrip("0").rstrip(".") + "ms")
    return sign + ("".join(parts) or "0s")


def format_size(value: int) -> str:
    """Write a size for people: the largest decimal unit that fits, with at most one decimal (`27.4MB`, `10GB`)."""
    unit, factor = next(((unit, by) for unit, by in reversed(_DECIMAL.items()) if abs(value) >= by), ("B", 1))
    number = f"{value / factor:.1f}".removesuffix(".0")
    return f"{number}{unit}"


def _shown(value: str | int | float) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
