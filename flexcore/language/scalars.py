"""What an unquoted word in YAML 1.2's core schema stands for, kept to what JSON can carry.

`yes`, `on` and dates are text, unlike in YAML 1.1. NaN, the infinities and integers beyond 64 bits are refused.
"""

import math
import re
from dataclasses import dataclass

from flexcore.model.values import JSON

_WORDS: dict[str, JSON] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), None),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
}
_INTEGER = re.compile(r"[-+]?[0-9]+")
_OCTAL = re.compile(r"0o[0-7]+")
_HEXADECIMAL = re.compile(r"0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NOT_A_NUMBER = re.compile(r"\.(?:nan|NaN|NAN)|[-+]?\.(?:inf|Inf|INF)|-?(?:NaN|Infinity)")
_DIGITS = 40


@dataclass(frozen=True, slots=True)
class NotJSON:
    """An unquoted word that JSON has no value for."""

    reason: str
    hint: str = ""


def resolve(text: str) -> JSON | NotJSON:
    """Give the value of an unquoted word."""
    if text in _WORDS:
        return _WORDS[text]
    if text[0] not in "+-.0123456789NI":
        return text
    if _NOT_A_NUMBER.fullmatch(text):
        return NotJSON("has no place in JSON", "use null, or put it in quotes")
    for pattern, base in ((_INTEGER, 10), (_OCTAL, 8), (_HEXADECIMAL, 16)):
        if pattern.fullmatch(text):
            return _integer(text, base)
    if _FLOAT.fullmatch(text):
        number = float(text)
        return number if math.isfinite(number) else NotJSON("is too large for a number", "put it in quotes")
    return text


def _integer(text: str, base: int) -> JSON | NotJSON:
    number = int(text, base) if len(text) <= _DIGITS else 2**64
    if -(2**63) <= number < 2**63:
        return number
    return NotJSON("is too large for a number", "put it in quotes")
