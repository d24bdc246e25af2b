"""What a `bash` step's result is when it wrote none itself, how a shell is given its arguments, and how steps fail."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any


class Unprepared(Exception):
    """What a step failed with before, or after, its own program."""

    def __init__(self, message: str, *, name: str, error_class: str = "dependency", hint: str = "") -> None:
        super().__init__(message)
        self.name, self.error_class, self.hint = name, error_class, hint


TAIL_BYTES = 64 << 10
"""How much of the end of an output is looked at."""

_ESCAPES = {"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r"}


def of_bash(stdout: bytes) -> Any:
    """Read the result from the end of the output: its last line if that is JSON, else the text of it."""
    text = stdout.decode(errors="replace")
    try:
        value = json.loads(text.rstrip().rsplit("\n", 1)[-1], parse_constant=_refuse_constant)
        json.dumps(value, allow_nan=False)  # 1e999 is read as infinity
    except (ValueError, RecursionError):
        return {"stdout": text, "exit_code": 0}
    return value


def last_line(stderr: bytes) -> str:
    """Give the last words of an output: its last line, cut."""
    lines = stderr.decode(errors="replace").strip().splitlines()
    return lines[-1][:500] if lines else ""


def bash_script(arguments: Sequence[str], script: str | None, file: str) -> bytes:
    """Write what the shell reads: its arguments all on the first line, so that line numbers are the author's."""
    opening = f"set -- {' '.join(_quoted(each) for each in arguments)}; "
    rest = f"BASH_ARGV0={_quoted(file)}; source {_quoted(file)}" if script is None else script
    return (opening + rest).encode()


BASH = ("bash", "-eo", "pipefail", "/dev/fd/3")


def _quoted(argument: str) -> str:
    return "$'" + "".join(_ESCAPES.get(character, character) for character in argument) + "'"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")
