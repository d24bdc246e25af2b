"""How an attempt ended → our error class, as one table read from the top. The tests have a recorded run per row.

Matching on the words of a foreign log is allowed here and nowhere else.
"""

import signal
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.shim import End, Lost, Reason, Status
from flexcore_meltano.logs import RunLog

_SIDES = ("extractors", "loaders")
_OUTSIDE = (signal.SIGKILL, signal.SIGTERM)
_COMPLAINTS = ("traceback", "error", "critical", "exception", "fatal")
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
    """Say what failed, or None for success. A run with a plugin that ended early is none, whatever Meltano says."""
    is_clean = isinstance(end, Status) and end.exit_code == 0 and end.reason is Reason.BY_ITSELF
    if is_clean and not log.failed and not log.early:
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
    return "\n".join([log.block_error, log.failed_note, *log.other_lines])


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
    """Name the plugin that failed. Meltano says which side it was, and of a mapper the name."""
    log = ending.log
    if early := _early(ending):
        return early
    if (named := next((name for name in log.exit_codes if name not in _SIDES), None)) is not None:
        return named
    is_tap = _SIDES[0] in log.exit_codes
    if log.pair is not None:
        return log.pair.tap if is_tap else log.pair.target
    sides = list(log.plugin_lines)  # the taps come first in the log
    return (sides[0] if is_tap else sides[-1]) if sides else "tap" if is_tap else "target"


def _mappers(log: RunLog) -> tuple[str, ...]:
    return log.pair.mappers if log.pair is not None else ()


def _early(ending: Ending) -> str:
    """Name the consumer that died before its turn, or "". Meltano's exit codes count more, but those of a dead mapper.

    A target that dies while Meltano still holds the last rows for it is only seen by the pipe that breaks.
    """
    log = ending.log
    if log.early and (not log.exit_codes or log.early in _mappers(log)):
        return log.early
    if log.pair is None or log.exit_codes or not _says("BrokenPipeError", "ConnectionResetError")(ending):
        return ""
    return min((*log.pair.mappers, log.pair.target), key=lambda name: log.ends.get(name, inf))


def _plugin_code(ending: Ending) -> int | None:
    """The exit code of the plugin that failed; None when nobody saw it."""
    return None if _early(ending) else next(iter(ending.log.exit_codes.values()), None)


def _plugin_end(ending: Ending) -> str:
    code = _plugin_code(ending)
    if code is None:
        return f"{_plugin(ending)} ended early"
    return f"{_plugin(ending)} exit {code}" if code >= 0 else f"{_plugin(ending)} {_signal_name(-code)}"


def _plugin_words(ending: Ending) -> str:
    log = ending.log
    why = (
        log.early_note if _plugin(ending) == log.early else log.block_error or "it ended before it had read everything"
    )
    return "\n".join([f"{_plugin_end(ending)} ({why})", *_last_lines(ending)])


def _last_lines(ending: Ending) -> list[str]:
    return list(ending.log.plugin_lines.get(_plugin(ending), ()))[-_TELLING:]


def _killed_plugin(ending: Ending) -> bool:
    """A plugin was killed from outside: seen by Meltano, or it ended early and without a word about an error."""
    code = _plugin_code(ending)
    if code is not None:
        return -code in _OUTSIDE
    return bool(_early(ending)) and not _exited_well(ending) and not _complains(ending)


def _exited_well(ending: Ending) -> bool:
    return ending.status is not None and ending.status.exit_code == 0


def _complains(ending: Ending) -> bool:
    said = ending.log.plugin_lines.get(_plugin(ending), ())
    return any(word in line.lower() for line in said for word in _COMPLAINTS)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


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
        lambda e: e.log.failed in ("install", "database", "disk") and _says("No space left", "Disk quota")(e),
        ErrorClass.DEPENDENCY,
        _text("disk full"),
        _own_word,
        "free space where the project keeps its .meltano, and where FlexCore keeps its state",
    ),
    Row(
        _failed("disk"),
        ErrorClass.DEPENDENCY,
        _text("no access"),
        _own_word,
        "see who owns the project's folder and its .meltano: a run writes its locks and installations there",
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
    Row(
        _killed_plugin,
        ErrorClass.LOST,
        _plugin_end,
        _plugin_words,
        "it was killed from outside; the kernel does this when memory runs out",
    ),
    Row(
        lambda e: bool(_early(e)) and _exited_well(e),
        ErrorClass.USER,
        _plugin_end,
        lambda e: _plugin_words(e) + "\nrows are missing in the target, although Meltano reports success",
    ),
    Row(lambda e: bool(e.log.exit_codes or _early(e)), ErrorClass.USER, _plugin_end, _plugin_words),
    Row(lambda e: True, ErrorClass.USER, _meltano_exit, _meltano_words),
)
"""The first row that matches decides."""
