"""From how a process ended to what that means: the table of this runtime, and the result a step left behind."""

import json
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

import msgspec

from flexcore.model.execution import Phase, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Failed, Succeeded
from flexcore.runtime.shim import End, Lost, Reason, Status
from flexcore_local import runner

RESULT, FAILURE = "result", "failure"
_TAIL_BYTES = 64 << 10
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
    Row(lambda end: end.reason is Reason.TIMEOUT, ErrorClass.TIMEOUT, "over its time limit"),
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


def failure_of(end: End) -> Failure | None:
    """Judge an end by the table; None is success."""
    if isinstance(end, Lost):
        if end.ended_by_us:
            return Failure(message="cancelled", error_class=ErrorClass.CANCELLED)
        return Failure(message=f"the attempt's shim was killed: {end.detail}", error_class=ErrorClass.LOST)
    row = next((row for row in TABLE if row.applies(end)), None)
    if row is None:
        return None
    number = signal.Signals(end.signal).name if end.signal in set(signal.Signals) else f"signal {end.signal}"
    message = row.message.format(
        errno=os.strerror(end.errno), code=end.exit_code, signal=number, peak=end.peak_bytes >> 20
    )
    name = number if end.signal is not None else f"exit {end.exit_code}"
    return Failure(message=message, error_class=row.error_class, name=name, hint=row.hint)


def usage_of(end: End) -> Usage:
    """What the shim measured of the whole tree."""
    if isinstance(end, Lost):
        return Usage()
    return Usage(cpu_s=end.cpu_s, peak_memory_bytes=end.peak_bytes)


def begun(folder: Path) -> float | None:
    """Say when the program of an attempt that prepares itself began; None while it has not."""
    try:
        return float((folder / runner.BEGUN).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return None


def phases_of(folder: Path, end: End, *, has_begun: bool) -> Mapping[Phase, timedelta]:
    """How long the preparation took, if there was one, and how long the program."""
    if isinstance(end, Lost):
        return {}
    began = (begun(folder) or end.started) if has_begun else end.finished
    phases = {Phase.START: began - end.started, Phase.RUN: end.finished - began}
    return {phase: timedelta(seconds=seconds) for phase, seconds in phases.items() if seconds > 0}


def never_begun(end: End) -> Failure | None:
    """Judge the end of an attempt that was still preparing itself, where that says more than the table."""
    if not isinstance(end, Status) or end.reason is not Reason.TIMEOUT:
        return None
    return Failure(
        message="building the environment of the step took too long",
        error_class=ErrorClass.DEPENDENCY,
        name="EnvironmentTimeout",
        hint="see the step's log; the limit is packages_timeout of the runtime",
    )


def outcome(kind: StepKind, folder: Path, end: End, max_result_bytes: int) -> Succeeded | Failed:
    """Judge a finished attempt by its end and its files. Reads up to `max_result_bytes`; call it off the event loop."""
    failure = failure_of(end)
    if failure is not None:
        by_itself = isinstance(end, Status) and end.reason is Reason.BY_ITSELF and end.exit_code is not None
        return Failed((_told(folder) if by_itself else None) or _with_last_words(failure, folder))
    if kind is StepKind.BASH:
        return _bash_result(folder, max_result_bytes)
    if not (folder / RESULT).exists():
        return Failed(Failure(message="the process ended before `main` returned", name="NoResult"))
    return _result(folder / RESULT, max_result_bytes)


def redacted(result: Succeeded | Failed, secrets: Sequence[str]) -> Succeeded | Failed:
    """Take secret values out of a failure's text. A result is the step's own business."""
    if isinstance(result, Succeeded) or not secrets:
        return result
    message = result.failure.message
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        message = message.replace(secret, "***")
    return Failed(replace(result.failure, message=message))


def _told(folder: Path) -> Failure | None:
    """Read what the runner says about the failure, if it came to saying anything."""
    try:
        return msgspec.json.decode((folder / FAILURE).read_bytes(), type=Failure)
    except (FileNotFoundError, msgspec.DecodeError):
        return None


def _with_last_words(failure: Failure, folder: Path) -> Failure:
    lines = _tail(folder / "stderr").decode(errors="replace").strip().splitlines()
    if failure.error_class is not ErrorClass.USER or not lines:
        return failure
    return replace(failure, message=f"{failure.message}: {lines[-1][:500]}")


def _result(path: Path, limit: int) -> Succeeded | Failed:
    size = path.stat().st_size
    if size > limit:
        return Failed(
            Failure(
                message=f"the result has {size} bytes, more than {limit}",
                name="ResultTooLarge",
                hint="write it to a file or a table and return where it is",
            )
        )
    try:
        value: JSON = msgspec.json.decode(path.read_bytes())
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failed(Failure(message=f"the result file is not JSON: {error}", name="InvalidResult"))
    return Succeeded(value)


def _bash_result(folder: Path, limit: int) -> Succeeded | Failed:
    written = folder / RESULT
    if written.exists() and written.stat().st_size:
        return _result(written, limit)
    stdout = _tail(folder / "stdout")
    lines = stdout.decode(errors="replace").rstrip().rsplit("\n", 1)
    try:
        return Succeeded(json.loads(lines[-1], parse_constant=_refuse_constant))
    except (ValueError, RecursionError):
        return Succeeded({"stdout": stdout.decode(errors="replace"), "exit_code": 0})


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""
