"""From how a step's program ended to what that means: one table for every place, and how results and words are read."""

import os
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import msgspec

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.runtime.interface import Failed, Succeeded
from flexcore.runtime.shim import Reason, Status

_TIMED_OUT = "Timeout"  # as the engine calls it
_KILLED = "killed from outside, most often because the machine ran out of memory"


@dataclass(frozen=True, slots=True)
class Row:
    """One way to end: when it applies, its class, and a message over the status."""

    applies: Callable[[Status], bool]
    error_class: ErrorClass
    message: str
    hint: str = ""


def _died_of(number: signal.Signals) -> Callable[[Status], bool]:
    return lambda end: end.signal == number or end.exit_code == 128 + number


TABLE: tuple[Row, ...] = (
    Row(lambda end: end.problem == "command", ErrorClass.INPUT, "the command cannot be started: {errno}"),
    Row(lambda end: end.problem == "folder", ErrorClass.INPUT, "the step's folder cannot be entered: {errno}"),
    Row(lambda end: bool(end.problem), ErrorClass.INTERNAL, "the process could not be set up: {errno}"),
    Row(lambda end: end.reason is Reason.CANCELLED, ErrorClass.CANCELLED, "cancelled"),
    Row(lambda end: end.reason is Reason.TIMEOUT, ErrorClass.TIMEOUT, "not done within its time limit"),
    Row(
        lambda end: end.reason is Reason.OOM,
        ErrorClass.OOM,
        "used more memory than its limit (peak {peak} MiB)",
        "raise requirements.memory",
    ),
    Row(_died_of(signal.SIGKILL), ErrorClass.OOM, _KILLED, "see the machine's memory; limit it by requirements.memory"),
    Row(lambda end: end.signal is not None, ErrorClass.USER, "ended by {signal}"),
    Row(lambda end: end.exit_code == 127, ErrorClass.USER, "ended with exit code 127", "a command was not found"),
    Row(lambda end: end.exit_code != 0, ErrorClass.USER, "ended with exit code {code}"),
)
"""The first row that applies says what the work came to; none: it succeeded."""


def failure_of(end: Status, *, told: bytes = b"", last_words: str = "") -> Failure | None:
    """Judge a status by the table; None is success.

    What the program itself told about its failure (`told`, a Failure as JSON) goes first where it ended by itself;
    else its last words say more than an exit code.
    """
    row = next((row for row in TABLE if row.applies(end)), None)
    if row is None:
        return None
    if told and end.reason is Reason.BY_ITSELF and end.exit_code is not None:
        try:
            return msgspec.json.decode(told, type=Failure)
        except (msgspec.DecodeError, UnicodeDecodeError):
            pass  # half a file: the table says what is known
    number = signal.Signals(end.signal).name if end.signal in set(signal.Signals) else f"signal {end.signal}"
    message = row.message.format(
        errno=os.strerror(end.errno), code=end.exit_code, signal=number, peak=end.peak_bytes >> 20
    )
    if row.error_class is ErrorClass.USER and last_words:
        message = f"{message}: {last_words}"
    name = number if end.signal is not None else f"exit {end.exit_code}"
    name = _TIMED_OUT if end.reason is Reason.TIMEOUT else name
    return Failure(message=message, error_class=row.error_class, name=name, hint=row.hint)


def result_of(content: bytes) -> Succeeded | Failed:
    """Read a result that a step has written."""
    try:
        value: JSON = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failed(Failure(message=f"the result file is not JSON: {error}", name="InvalidResult"))
    return Succeeded(value)


def too_large(size_bytes: int, limit: int) -> Failed:
    """Say that a result is larger than a runtime takes."""
    return Failed(
        Failure(
            message=f"the result has {size_bytes} bytes, more than {limit}",
            name="ResultTooLarge",
            hint="write it to a file or a table and return where it is",
        )
    )


def no_result() -> Failed:
    """Say that a `python` step ended without one."""
    return Failed(Failure(message="the process ended before `main` returned", name="NoResult"))


def redacted(outcome: Succeeded | Failed, secrets: Sequence[str]) -> Succeeded | Failed:
    """Take secret values out of a failure's text. A result is the step's own business."""
    return outcome if isinstance(outcome, Succeeded) else Failed(hidden(outcome.failure, secrets))


def hidden(failure: Failure, secrets: Sequence[str]) -> Failure:
    """Take secret values out of a failure's text."""
    return replace(failure, message=masked(failure.message, secrets))


def masked(text: str, secrets: Sequence[str]) -> str:
    """Take secret values out of a text, the longest first: one may be a part of another."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    return text
