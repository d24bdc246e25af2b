"""What the far program tells about how a step ended, read and judged on our side.

Everything here is pure. It must never trust what it reads: the bytes come through a log that anybody may write to.
"""

import base64
import binascii
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta

import msgspec

from flexcore.model.execution import Phase, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId
from flexcore.model.values import Ref
from flexcore.runtime.interface import ExecutionResult, Failed, Succeeded
from flexcore.runtime.portable import judgement
from flexcore.runtime.portable.data import DataLinks, Stored, with_references
from flexcore.runtime.shim import Reason, Status


@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """How a step ended. One of `exit_code` and `signal` is set once its own program had begun.

    `outcome` is None when the program was told to end from outside (TERM): why is known to who did that. `stored` is
    what is known of each output, for the references in the result.
    """

    outcome: Succeeded | Failed | None
    exit_code: int | None = None
    signal: int | None = None
    usage: Usage = Usage()
    phases: Mapping[Phase, timedelta] = field(default_factory=dict)
    stored: Mapping[str, Stored] = field(default_factory=dict)

    def result(
        self, instead: Failed, data: DataLinks, attempt: AttemptId, secrets: Sequence[str] = ()
    ) -> ExecutionResult:
        """Make the attempt's result: references filled in, secrets taken out, `instead` where there is no outcome."""
        outcome = self.outcome if self.outcome is not None else instead
        artifacts: tuple[Ref, ...] = ()
        if isinstance(outcome, Succeeded):
            outcome, artifacts = with_references(outcome, data, self.stored, attempt)
        return ExecutionResult(
            outcome=judgement.redacted(outcome, secrets), artifacts=artifacts, usage=self.usage, phases=self.phases
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Told:
    """The first line of an ending, as the far program writes it."""

    version: int
    kind: str
    phases: Mapping[Phase, float]
    stored: Mapping[str, Stored]
    status: Status | None = None
    is_told_to_end: bool = False
    failure: Failure | None = None
    failed: str = ""
    stderr: str = ""
    result_bytes: int = 0
    result_limit: int = 0
    bytes_in: int | None = None
    bytes_out: int | None = None


_decoder = msgspec.json.Decoder(_Told)


def decode(raw: bytes) -> Ending | None:
    """Read an ending from a file or a termination message; None when it is not, or not completely, there."""
    head, separator, body = raw.partition(b"\n")
    try:
        told = _decoder.decode(head)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    if not separator or (body and len(body) != told.result_bytes):
        return None
    status = told.status
    return Ending(
        outcome=_outcome(told, body),
        exit_code=status.exit_code if status else None,
        signal=status.signal if status else None,
        usage=Usage(
            cpu_s=status.cpu_s if status else None,
            peak_memory_bytes=status.peak_bytes if status else None,
            bytes_in=told.bytes_in or None,
            bytes_out=told.bytes_out or None,
        ),
        phases={phase: timedelta(seconds=seconds) for phase, seconds in told.phases.items()},
        stored=told.stored,
    )


def _outcome(told: _Told, body: bytes) -> Succeeded | Failed | None:
    if told.is_told_to_end or (told.status is not None and told.status.reason is Reason.CANCELLED):
        return None
    if told.failure is not None:
        return Failed(told.failure)
    if told.status is None:
        return Failed(_unreadable("it does not say how the step ended"))
    failure = judgement.failure_of(told.status, told=told.failed.encode(), last_words=told.stderr)
    if failure is not None:
        return Failed(failure)
    if told.result_bytes > len(body) and not body:
        return judgement.too_large(told.result_bytes, told.result_limit)
    if not body:
        return judgement.no_result()
    return judgement.result_of(body)


def _unreadable(why: str) -> Failure:
    message = f"what the step's program told about its end cannot be read: {why}"
    return Failure(message=message, error_class=ErrorClass.LOST, name="UnreadableEnding")


class EndingInLog:
    """Takes the ending out of a raw log that is fed piece by piece, from any offset within the step's own output.

    What it gives back are the step's bytes, unchanged and at once; only what may be the beginning of the mark is held
    back. All of them come before ours, so their offsets are offsets of the raw log. `ending` is there once it is
    complete; what comes after it is nobody's.
    """

    def __init__(self, mark: str) -> None:
        self.ending: Ending | None = None
        self._mark = mark.encode() + b" "
        self._held = b""
        self._is_ours = False
        self._pieces: list[bytes] = []

    def feed(self, raw: bytes) -> bytes:
        """Take the next raw bytes, give the step's among them."""
        self._held += raw
        if self._is_ours:
            self._read_lines()
            return b""
        at = self._held.find(self._mark)
        if at < 0:
            at = len(self._held) - _overlap(self._held, self._mark)
            given, self._held = self._held[:at], self._held[at:]
            return given
        given, self._held = self._held[:at], self._held[at:]
        self._is_ours = True
        self._read_lines()
        return given

    def rest(self) -> bytes:
        """Give what was held back, when the log is over."""
        given, self._held = (b"" if self._is_ours else self._held), b""
        return given

    def _read_lines(self) -> None:
        *lines, self._held = self._held.split(b"\n")
        for line in lines:
            if self.ending is None and line.startswith(self._mark):
                self._read(line[len(self._mark) :])

    def _read(self, line: bytes) -> None:
        number, _, content = line.partition(b" ")
        if number != b".":
            self._pieces.append(content)
            return
        try:
            raw = b"".join(base64.b64decode(piece, validate=True) for piece in self._pieces)
        except binascii.Error:
            raw = b""
        ending = decode(raw) if b"%08x" % zlib.crc32(raw) == content.strip() else None
        self.ending = ending or Ending(outcome=Failed(_unreadable("its lines in the log are damaged")))


def _overlap(held: bytes, mark: bytes) -> int:
    """Count the bytes at the end that a mark may begin with."""
    return next((size for size in range(min(len(held), len(mark) - 1), 0, -1) if held.endswith(mark[:size])), 0)
