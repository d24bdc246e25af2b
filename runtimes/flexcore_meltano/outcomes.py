"""How an attempt ended → our error class, as one table read from the top. The tests have a recorded run per row.

Matching on the words of a foreign log is allowed here and nowhere else.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass

from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.shim import End, Lost, Reason, Status
from flexcore_meltano.logs import RunLog

_SIGTERM_CODE = 128 + signal.SIGTERM
_SIGKILL_CODE = 128 + signal.SIGKILL
_TELLING = 6  # how many lines of the log a message quotes
_LONGEST = 2_000


@dataclass(frozen=True, slots=True)
class Ending:
    """The two things that an outcome is read from."""

    end: End
    log: RunLog

    @property
    def status(self) -> Status | None:
        """The exit, when there was one."""
        return self.end if isinstance(self.end, Status) else None

    @property
    def reason(self) -> Reason | None:
        """Why the shim ended it, if it did."""
        return self.status.reason if self.status else None

    def died_of(self, number: int) -> bool:
        """Say whether the command, or Meltano below it, died of this signal."""
        return self.status is not None and (self.status.signal == number or self.status.exit_code == 128 + number)


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    matches: Callable[[Ending], bool]
    error_class: ErrorClass
    name: Callable[[Ending], str]
    message: Callable[[Ending], str]
    hint: str = ""
    retry_after: float | None = None


def failure_of(end: End, log: RunLog) -> Failure | None:
    """Say what failed, or None for success."""
    if isinstance(end, Status) and end.exit_code == 0 and end.reason is Reason.BY_ITSELF and not log.failed:
        return None
    ending = Ending(end, log)
    row = next(each for each in TABLE if each.matches(ending))
    return Failure(
        message=row.message(ending)[:_LONGEST],
        error_class=row.error_class,
        name=row.name(ending),
        hint=row.hint,
        retry_after=row.retry_after,
    )


def _is_lost(ending: Ending, *, by_us: bool) -> bool:
    return isinstance(ending.end, Lost) and ending.end.ended_by_us is by_us


def _failed(part: str) -> Callable[[Ending], bool]:
    return lambda ending: ending.log.failed == part


def _says(*words: str) -> Callable[[Ending], bool]:
    return lambda ending: any(word in _everything(ending.log) for word in words)


def _everything(log: RunLog) -> str:
    return "\n".join([log.block_error, *log.other_lines])


def _text(text: str) -> Callable[[Ending], str]:
    return lambda ending: text


def _own_word(ending: Ending) -> str:
    """What our part of the run noted, and below it Meltano's last lines."""
    return "\n".join([ending.log.failed_note, *list(ending.log.other_lines)[-_TELLING:]])


def _meltano_words(ending: Ending) -> str:
    lines = [ending.log.block_error, *list(ending.log.other_lines)[-_TELLING:]]
    for said in ending.log.plugin_lines.values():
        if not ending.log.exit_codes and not any(lines):
            lines.extend(list(said)[-_TELLING:])
    return "\n".join(dict.fromkeys(line for line in lines if line)) or f"meltano ended with {_exit(ending)}"


def _plugin(ending: Ending) -> str:
    """Name the plugin that failed: the taps come first in the log, and Meltano says which side it was."""
    sides = list(ending.log.plugin_lines)
    if "extractors" in ending.log.exit_codes:
        return ending.log.tap or (sides[0] if sides else "tap")
    others = [name for name in sides if name != ending.log.tap]
    return others[-1] if others else "target"


def _plugin_exit(ending: Ending) -> str:
    return f"{_plugin(ending)} exit {next(iter(ending.log.exit_codes.values()))}"


def _plugin_words(ending: Ending) -> str:
    said = list(ending.log.plugin_lines.get(_plugin(ending), ()))[-_TELLING:]
    return "\n".join([f"{_plugin_exit(ending)} ({ending.log.block_error})", *said])


def _exit(ending: Ending) -> str:
    status = ending.status
    if status is None:
        return "no status"
    return f"signal {status.signal}" if status.signal is not None else f"exit {status.exit_code}"


def _meltano_exit(ending: Ending) -> str:
    return f"meltano {_exit(ending)}"


TABLE: tuple[Row, ...] = (
    Row(lambda e: _is_lost(e, by_us=True), ErrorClass.CANCELLED, _text("cancelled"), _text("the run was ended")),
    Row(
        lambda e: isinstance(e.end, Lost),
        ErrorClass.LOST,
        _text("lost"),
        _text("the run's shim was killed: how Meltano ended is not known"),
    ),
    Row(
        lambda e: e.reason is Reason.CANCELLED, ErrorClass.CANCELLED, _text("cancelled"), _text("the run was cancelled")
    ),
    Row(lambda e: e.reason is Reason.TIMEOUT, ErrorClass.TIMEOUT, _text("timeout"), _text("the time was over")),
    Row(
        lambda e: e.reason is Reason.OOM,
        ErrorClass.OOM,
        _text("out of memory"),
        _text("Meltano and its plugins used more memory than the step may have"),
        "raise requirements.memory, or make the target's batches smaller",
    ),
    Row(
        lambda e: e.status is not None and bool(e.status.problem),
        ErrorClass.DEPENDENCY,
        _text("cannot start"),
        lambda e: f"the run could not be started: {e.status.problem if e.status else ''} failed",
        "flexcore doctor says what is missing",
    ),
    Row(_failed("timeout"), ErrorClass.TIMEOUT, _text("timeout"), _own_word),
    Row(
        _failed("busy"),
        ErrorClass.QUOTA,
        _text("state id busy"),
        _own_word,
        "the same state id never runs twice; give `state` a suffix to run side by side",
    ),
    Row(
        _failed("install"),
        ErrorClass.DEPENDENCY,
        _text("install failed"),
        _own_word,
        "see the plugin's pip_url in meltano.yml, and whether the package index can be reached",
    ),
    Row(_failed("database"), ErrorClass.DEPENDENCY, _text("no system database"), _own_word),
    Row(
        _says("pipeline is already running"),
        ErrorClass.QUOTA,
        _text("state id busy"),
        _meltano_words,
        "another run holds the state id, or one was killed less than five minutes ago",
        60.0,
    ),
    Row(
        lambda e: e.died_of(signal.SIGKILL),
        ErrorClass.LOST,
        _text("SIGKILL"),
        _text("Meltano was killed from outside"),
        "the kernel does this when memory runs out",
    ),
    Row(lambda e: e.died_of(signal.SIGTERM), ErrorClass.CANCELLED, _text("SIGTERM"), _text("Meltano was told to end")),
    Row(
        _says("Config validation failed", "is not valid under any", "ConfigValidationError"),
        ErrorClass.INPUT,
        _text("bad plugin settings"),
        _meltano_words,
        "compare the step's `config` with the plugin's settings in meltano.yml",
    ),
    Row(
        _says("Error: Block ", "while parsing", "is not known to Meltano", "not found in project"),
        ErrorClass.INPUT,
        _text("bad project"),
        _meltano_words,
    ),
    Row(lambda e: bool(e.log.exit_codes), ErrorClass.USER, _plugin_exit, _plugin_words),
    Row(lambda e: True, ErrorClass.USER, _meltano_exit, _meltano_words),
)
"""The first row that matches decides."""
