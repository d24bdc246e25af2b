"""What is known of an execution while it is followed: the fold of its events into one row per step. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from flexcore.cli.log_lines import LogLine, LogLines
from flexcore.cli.render import clean, count, seconds
from flexcore.model.requests import WatchEvent

TAIL_LINES = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A step as it is shown. `began` and `ended` are seconds since the epoch; `total` is the length of a loop."""

    path: str
    status: str = "waiting"
    runtime: str = ""
    attempt: int = 0
    began: float | None = None
    ended: float | None = None
    rows: float | None = None
    total: int | None = None
    note: str = ""
    tail: tuple[str, ...] = ()

    def elapsed(self, now: float) -> float | None:
        """Say how long the attempt has run, or ran."""
        return None if self.began is None else max((self.ended or now) - self.began, 0.0)


@dataclass(frozen=True, slots=True)
class Told:
    """What an event is worth telling: lines that the step `path` has written, and then the news."""

    path: str = ""
    lines: Sequence[str] = ()
    news: str | None = None


@dataclass(slots=True)
class Board:
    """The rows of one execution, in the order in which they came up."""

    id: str
    title: str = ""
    status: str = "running"
    rows: dict[str, Row] = field(default_factory=dict)
    output: LogLines = field(default_factory=LogLines)

    def seed(self, document: Mapping[str, Any]) -> None:
        """Take over what the execution's document says: the steps to come, too."""
        self.title = str(document.get("workflow", ""))
        for step in document.get("steps", ()):
            self.rows.setdefault(step["path"], Row(path=step["path"]))

    def take(self, event: WatchEvent) -> Told:
        """Take an event in; say what to tell of it."""
        body = event.body
        path = str(body.get("path", ""))
        match event.kind:
            case "log" if path:
                return Told(path, self._written(path, self.output.take(body)))
            case "progress" if path:
                self._update(path, _with_progress(self._row(path), body))
                return Told()
            case "history":
                written = self._written(path, self.output.rest(path))
                return Told(path, written, self._history(path, str(body.get("type", "")), body, event.at))
            case _:
                return Told()

    def tail(self, path: str) -> Sequence[str]:
        """Give the last lines that a step's last attempt has written."""
        return self._row(path).tail

    def _written(self, path: str, lines: Sequence[LogLine]) -> Sequence[str]:
        shown = [line.text for line in lines if not line.is_bookkeeping]
        if shown:
            self._update(path, _with_output(self._row(path), shown))
        return shown

    def _history(self, path: str, type_name: str, body: Mapping[str, Any], at: datetime) -> str | None:
        if not path:
            self.status = _EXECUTION.get(type_name, self.status)
            return _told_of_all(type_name, body)
        before = self._row(path)
        after = _stepped(before, type_name, body, at.timestamp())
        self._update(path, after)
        told = _told(after, type_name, body)
        return f"{path}  {told}" if told else None

    def _row(self, path: str) -> Row:
        return self.rows.get(path) or Row(path=path)

    def _update(self, path: str, row: Row) -> None:
        self.rows[path] = row


def _told_of_all(type_name: str, body: Mapping[str, Any]) -> str | None:
    match type_name:
        case "ExecutionQueued":
            return f"waits: {clean(str(body.get('waiting_for', '')))}"
        case "CancelRequested":
            return f"cancelling: {clean(str(body.get('reason', '')))}"
        case _:
            return None


_EXECUTION = {
    "ExecutionQueued": "pending",
    "ExecutionStarted": "running",
    "ExecutionSucceeded": "succeeded",
    "ExecutionFailed": "failed",
    "ExecutionCancelled": "cancelled",
}
_ENDS = {
    "StepSucceeded": "succeeded",
    "StepFailed": "failed",
    "StepSkipped": "skipped",
    "StepCancelled": "cancelled",
}


def _stepped(row: Row, type_name: str, body: Mapping[str, Any], at: float) -> Row:
    match type_name:
        case "StepDispatched":
            runtime, attempt = str(body.get("runtime", "")), int(body.get("attempt", 0))
            return replace(
                row, status="running", runtime=runtime, attempt=attempt, began=at, ended=None, note="", tail=()
            )
        case "StepStarted":
            loop = body.get("loop") or {}
            return replace(row, status="running", began=at, total=loop.get("total"))
        case "StepUnplaced" | "StepQueued" | "StepSuspended":
            return replace(row, status="suspended", began=row.began or at, note=clean(str(body.get("waiting_for", ""))))
        case "StepPostponed":
            return replace(row, note=clean(str(body.get("waiting_for", ""))))
        case "StepRetryScheduled":
            return replace(row, status="pending", note=f"again after: {_message(body)}")
        case _ if type_name in _ENDS:
            return _ended(row, _ENDS[type_name], body, at)
        case _:
            return row


def _ended(row: Row, status: str, body: Mapping[str, Any], at: float) -> Row:
    rows = (body.get("usage") or {}).get("rows")
    note = _message(body) or clean(str(body.get("reason", "")))
    known = row.rows if rows is None else rows
    return replace(row, status=status, ended=at, rows=known, note="from the cache" if body.get("cached") else note)


def _message(body: Mapping[str, Any]) -> str:
    failure = body.get("failure") or {}
    return clean(str(failure.get("message", ""))).partition("\n")[0]


def _told(row: Row, type_name: str, body: Mapping[str, Any]) -> str | None:
    match type_name:
        case "StepDispatched":
            return f"started on {row.runtime}" + (f", attempt {row.attempt}" if row.attempt > 1 else "")
        case "StepSubmitted" if body.get("adopted"):
            return f"found again, still running on {row.runtime}"
        case "StepStarted" if row.total is not None:
            return f"started, {count(row.total)} items"
        case "StepUnplaced" | "StepQueued" | "StepSuspended" | "StepPostponed":
            return f"waits: {row.note}"
        case "StepRetryScheduled":
            return f"attempt {body.get('attempt')} failed: {_message(body)}; next at {_clock(body.get('due_at'))}"
        case _ if type_name in _ENDS:
            return _ending(row)
        case _:
            return None


def _ending(row: Row) -> str:
    facts = [row.status]
    if row.began is not None and row.ended is not None:
        facts[0] += f" in {seconds(row.ended - row.began)}"
    if row.rows is not None:
        facts.append(f"{count(row.rows)} rows")
    return ", ".join(facts) + (f": {row.note}" if row.note else "")


def _clock(moment: Any) -> str:
    text = str(moment or "")
    return text[11:19] or text


def _with_output(row: Row, lines: Sequence[str]) -> Row:
    written = tuple(line for line in lines if line.strip())
    return replace(row, tail=(row.tail + written)[-TAIL_LINES:]) if written else row


def _with_progress(row: Row, body: Mapping[str, Any]) -> Row:
    if str(body.get("metric", "")) == "rows" and isinstance(body.get("value"), int | float):
        return replace(row, rows=body["value"])
    note, fraction = clean(str(body.get("note") or "")), body.get("fraction")
    if isinstance(fraction, int | float):
        note = f"{fraction:.0%} {note}".strip()
    return replace(row, note=note) if note else row
