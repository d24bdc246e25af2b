"""Reads the log of an attempt: rows and bytes per stream, phases, and what a failure will be told by.

Fed with bytes in order from the first one, so that an adopted attempt gives the same totals as one followed from the
start. Lines are Meltano's JSON log (`METRIC: {…}` inside `event`) and our own, which carry the key `flexcore`. What
is not JSON is kept as text: Meltano writes its last word (`Error: …`) plainly.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flexcore.model.execution import Phase
from flexcore.runtime.interface import MetricSample, PhaseEntered, Progress
from flexcore_meltano.attempt_main import MARK

_METRIC = "METRIC: "
_LINE_LIMIT = 1 << 20
_KEPT_LINES = 15
_PHASES = {"start": Phase.START, "queue": Phase.QUEUE, "run": Phase.RUN}

Note = MetricSample | PhaseEntered | Progress


@dataclass(slots=True)
class StreamCount:
    """What the tap said about one stream. Bytes are None when it never said."""

    rows: int = 0
    bytes: int | None = None


@dataclass(slots=True)
class RunLog:
    """What is known so far. `tap` is whose metrics count: a target may report the same rows again."""

    tap: str = ""
    streams: dict[str, StreamCount] = field(default_factory=dict)
    phases: list[PhaseEntered] = field(default_factory=list)
    failed: str = ""  # what our own part of the run says: install, database, busy, timeout
    failed_note: str = ""
    block_error: str = ""
    exit_codes: dict[str, int] = field(default_factory=dict)
    plugin_lines: dict[str, deque[str]] = field(default_factory=dict)
    other_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    _rest: bytes = b""

    @property
    def rows(self) -> int:
        """Rows of all streams."""
        return sum(each.rows for each in self.streams.values())

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all streams; None when the tap reports none."""
        known = [each.bytes for each in self.streams.values() if each.bytes is not None]
        return sum(known) if known else None

    def feed(self, data: bytes) -> Iterator[Note]:
        """Take the next bytes, and tell what they say."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        self._rest = self._rest[-_LINE_LIMIT:]
        for line in lines:
            yield from self._line(line.decode(errors="replace"))

    def close(self) -> Iterator[Note]:
        """Take what was left without an end of line."""
        rest, self._rest = self._rest, b""
        if rest:
            yield from self._line(rest.decode(errors="replace"))

    def _line(self, line: str) -> Iterator[Note]:
        entry = _parsed(line)
        if entry is None:
            if line.strip():
                self.other_lines.append(line.strip())
            return
        event = str(entry.get("event") or "")
        if isinstance(ours := entry.get(MARK), Mapping):
            yield from self._our_own(ours, event)
        elif event.startswith(_METRIC):
            if self.tap in ("", entry.get("string_id")):
                yield from self._metric(_parsed(event.removeprefix(_METRIC)) or {})
        elif entry.get("stdio"):
            self.plugin_lines.setdefault(str(entry.get("name")), deque(maxlen=_KEPT_LINES)).append(event)
        else:
            self._meltano(entry, event)

    def _our_own(self, ours: Mapping[str, Any], event: str) -> Iterator[Note]:
        if ours.get("failed"):
            self.failed, self.failed_note = str(ours["failed"]), event
        elif (phase := _PHASES.get(str(ours.get("phase")))) is not None:
            entered = PhaseEntered(phase, datetime.fromtimestamp(float(ours.get("at") or 0), UTC))
            self.phases.append(entered)
            yield entered
            yield Progress(None, event)

    def _metric(self, metric: Mapping[str, Any]) -> Iterator[Note]:
        tags, value, name = metric.get("tags"), metric.get("value"), metric.get("metric")
        stream = tags.get("stream") or tags.get("endpoint") if isinstance(tags, Mapping) else None
        if not isinstance(stream, str) or not isinstance(value, int):
            return
        if name == "record_count":
            count = self.streams.setdefault(stream, StreamCount())
            count.rows += value
            yield MetricSample("rows", self.rows, "rows")
            yield Progress(None, f"{stream}: {count.rows:,} rows")
        elif name == "record_bytes":
            count = self.streams.setdefault(stream, StreamCount())
            count.bytes = (count.bytes or 0) + value
            yield MetricSample("bytes", self.total_bytes or 0, "bytes")

    def _meltano(self, entry: Mapping[str, Any], event: str) -> None:
        if event == "Block run completed" and not entry.get("success"):
            self.block_error = str(entry.get("err") or "")
            codes = entry.get("exit_codes")
            if isinstance(codes, Mapping):
                self.exit_codes = {str(name): code for name, code in codes.items() if isinstance(code, int)}
        elif isinstance(state := entry.get("install_state"), Mapping):
            self.other_lines.append(f"{state.get('plugin_name')}: {state.get('details') or state.get('message')}")
        elif entry.get("level") in ("error", "critical"):
            self.other_lines.append(event)


def _parsed(line: str) -> Mapping[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, Mapping) else None
