"""What a local attempt came to: how its process ended, and the files that it left."""

import os
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from flexcore.model.execution import Phase, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.workflow import StepKind
from flexcore.runtime.flexcore_far import results
from flexcore.runtime.interface import Failed, Succeeded
from flexcore.runtime.portable import judgement
from flexcore.runtime.portable.ending import Ending, decode
from flexcore.runtime.shim import End, Lost, Reason, Status
from flexcore_local.environments import BEGUN

RESULT, FAILURE = "result", "failure"
ENDING = "ending"  # in the folder of an attempt with data: what its program tells about the end


def failure_of(end: End, folder: Path | None = None) -> Failure | None:
    """Judge an end by the table, and by what is in the attempt's folder; None is success."""
    if isinstance(end, Lost):
        if end.ended_by_us:
            return Failure(message="cancelled", error_class=ErrorClass.CANCELLED)
        return Failure(message=f"the attempt's shim was killed: {end.detail}", error_class=ErrorClass.LOST)
    if folder is None or end.exit_code == 0:
        return judgement.failure_of(end)
    words = results.last_line(_tail(folder / "stderr"))
    return judgement.failure_of(end, told=_content(folder / FAILURE), last_words=words)


def usage_of(end: End) -> Usage:
    """What the shim measured of the whole tree."""
    if isinstance(end, Lost):
        return Usage()
    return Usage(cpu_s=end.cpu_s, peak_memory_bytes=end.peak_bytes)


def begun(folder: Path) -> float | None:
    """Say when the program of an attempt that prepares itself began; None while it has not."""
    try:
        return float((folder / BEGUN).read_text())
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


def ending(kind: StepKind, folder: Path, end: End, max_result_bytes: int) -> Ending:
    """Judge a finished attempt by its end and its files. Reads up to `max_result_bytes`; call it off the event loop."""
    by_itself = isinstance(end, Status) and end.reason is Reason.BY_ITSELF
    told = decode(_content(folder / ENDING)) if by_itself else None
    if told is None:
        return Ending(outcome=outcome(kind, folder, end, max_result_bytes), usage=usage_of(end))
    used = usage_of(end)
    usage = replace(told.usage, cpu_s=used.cpu_s, peak_memory_bytes=used.peak_memory_bytes)
    return replace(told, usage=usage)


def outcome(kind: StepKind, folder: Path, end: End, max_result_bytes: int) -> Succeeded | Failed:
    """Judge a finished attempt that has no ending of its own."""
    failure = failure_of(end, folder)
    if failure is not None:
        return Failed(failure)
    written = folder / RESULT
    size = written.stat().st_size if written.exists() else None
    if kind is StepKind.BASH and not size:
        return Succeeded(results.of_bash(_tail(folder / "stdout")))
    if size is None:
        return judgement.no_result()
    return (
        judgement.result_of(_content(written))
        if size <= max_result_bytes
        else judgement.too_large(size, max_result_bytes)
    )


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""


def _tail(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - results.TAIL_BYTES))
            return file.read()
    except FileNotFoundError:
        return b""
