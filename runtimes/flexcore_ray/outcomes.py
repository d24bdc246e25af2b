"""From how Ray says that a job ended to what that means, where our program on the node could not tell it itself."""

import re
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.portable.judgement import masked
from flexcore_ray import start_main
from flexcore_ray.client import Job

_LONGEST_MESSAGE = 1000
_KILLED = -signal.SIGKILL
_SHELL_KILLED = 128 + signal.SIGKILL
CANCELLED = Failure(message="cancelled", error_class=ErrorClass.CANCELLED)
ENDED_BEFORE = Failure(message="it was ended before its job was submitted", error_class=ErrorClass.CANCELLED)


@dataclass(frozen=True, slots=True)
class Row:
    """One way to end: when it applies, its class, and what people are told; `{why}` is Ray's own first line."""

    name: str
    applies: Callable[[Job], bool]
    error_class: ErrorClass
    message: str
    hint: str = ""


def _is(error_type: str) -> Callable[[Job], bool]:
    return lambda job: job.error_type == error_type


def _says(pattern: str) -> Callable[[Job], bool]:
    found = re.compile(pattern, re.IGNORECASE)
    return lambda job: bool(found.search(job.message))


TABLE: tuple[Row, ...] = (
    Row("stopped", lambda job: job.status == "STOPPED", ErrorClass.CANCELLED, "cancelled"),
    Row(
        "pip",
        lambda job: _is("RUNTIME_ENV_SETUP_FAILURE")(job) and _says(r"pip|uv|conda|package")(job),
        ErrorClass.DEPENDENCY,
        "the runtime environment could not be made: {why}",
        "see `runtime_env` of the step",
    ),
    Row(
        "environment",
        _is("RUNTIME_ENV_SETUP_FAILURE"),
        ErrorClass.DEPENDENCY,
        "the files of the step could not be brought to the node: {why}",
        "see the cluster's log of runtime environments",
    ),
    Row(
        "start-timeout",
        _is("JOB_SUPERVISOR_ACTOR_START_TIMEOUT"),
        ErrorClass.QUOTA,
        "the cluster had no room for it in time",
        "lower what the step requires, or enlarge the cluster",
    ),
    Row(
        "unschedulable",
        _is("JOB_SUPERVISOR_ACTOR_UNSCHEDULABLE"),
        ErrorClass.QUOTA,
        "no node can take it: {why}",
        "lower what the step requires, or enlarge the cluster",
    ),
    Row(
        "out-of-memory",
        lambda job: _is("JOB_SUPERVISOR_ACTOR_DIED")(job) and _says(r"NODE_OUT_OF_MEMORY|low on memory")(job),
        ErrorClass.OOM,
        "the node ran out of memory, and Ray killed the job",
        "raise requirements.memory, so that the cluster reserves it",
    ),
    Row(
        "supervisor-died",
        _is("JOB_SUPERVISOR_ACTOR_DIED"),
        ErrorClass.LOST,
        "the job's supervisor on the node died: {why}",
    ),
    Row("supervisor-unknown", _is("JOB_SUPERVISOR_ACTOR_UNKNOWN_FAILURE"), ErrorClass.LOST, "Ray lost the job: {why}"),
    Row("supervisor-start", _is("JOB_SUPERVISOR_ACTOR_START_FAILURE"), ErrorClass.LOST, "Ray lost the job: {why}"),
    Row(
        "too-late",
        lambda job: job.exit_code == start_main.TOO_LATE,
        ErrorClass.QUOTA,
        "the cluster had no room for it in time",
        "lower what the step requires, or enlarge the cluster",
    ),
    Row(
        "killed",
        lambda job: job.exit_code in (_KILLED, _SHELL_KILLED),
        ErrorClass.OOM,
        "killed from outside, most often because the node ran out of memory",
        "see the memory of the node; reserve it by requirements.memory",
    ),
    Row(
        "no-python",
        lambda job: job.exit_code == 127,
        ErrorClass.DEPENDENCY,
        "the node has no such interpreter",
        "set `python` of the runtime to one that the nodes have",
    ),
    Row(
        "command",
        lambda job: job.exit_code not in (None, 0),
        ErrorClass.INTERNAL,
        "our program on the node ended with exit code {code} and did not say why",
        "see the job's log on the cluster; the interpreter has to be Python 3.8 or newer",
    ),
    Row("supervised", lambda job: job.status == "FAILED", ErrorClass.LOST, "Ray says that the job failed: {why}"),
)
"""The first row that applies. What is in none of them ended well and left no ending: its result is lost."""


def failure_of(job: Job, secrets: Sequence[str] = ()) -> Failure:
    """Judge a job that is over and of whose ending nothing was read."""
    row = next((row for row in TABLE if row.applies(job)), None)
    if row is None:
        return Failure(message="the job ended, and its ending is not in its log", error_class=ErrorClass.LOST)
    why = _first_line(masked(job.message, secrets))
    message = row.message.format(why=why, code=job.exit_code)
    return Failure(message=message, error_class=row.error_class, name=row.name, hint=row.hint)


def lost(why: str) -> Failure:
    """Say that work is gone, and how it ended cannot be known."""
    return Failure(message=f"the job is lost: {why}", error_class=ErrorClass.LOST)


def _first_line(message: str) -> str:
    lines = [each.strip() for each in message.splitlines() if each.strip()]
    return (lines[0] if lines else "no reason given")[:_LONGEST_MESSAGE]
