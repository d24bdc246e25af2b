"""Reads the log of an attempt: rows and bytes per stream, plugins, phases, and what a failure will be told by.

Fed with bytes in order from the first one, so that an adopted attempt gives the same totals as one followed from the
start. Lines are Meltano's JSON log (`METRIC: {…}` inside `event`) and our own, which carry the key `flexcore`. What
is not JSON is kept as text: Meltano writes its last word (`Error: …`) plainly, dbt everything.
"""

import json
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flexcore.model.execution import Phase
from flexcore.model.values import JSON
from flexcore.runtime.interface import MetricSample, PhaseEntered, Progress
from flexcore_meltano.attempt_main import MARK

_METRIC = "METRIC: "
_LINE_LIMIT = 1 << 20
_KEPT_LINES = 15
_LINE_KEPT = 500  # characters of a line that a failure may quote
_PHASES = {"start": Phase.START, "queue": Phase.QUEUE, "run": Phase.RUN}

Note = MetricSample | PhaseEntered | Progress


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """One pipe of a run: which tap feeds which target, and the state id of its bookmarks, if it has any."""

    tap: str
    target: str
    mappers: tuple[str, ...] = ()
    state: str | None = None


@dataclass(slots=True)
class StreamCount:
    """What was said about one stream of one pipe. None is for what nobody said."""

    read: int | None = None  # rows, by the tap
    written: int | None = None  # rows, by the target
    bytes: int | None = None
    seconds: float | None = None

    @property
    def rows(self) -> int | None:
        """What the tap counted, else what the target did."""
        return self.read if self.read is not None else self.written

    @property
    def is_read(self) -> bool:
        """Whether the tap said anything of it."""
        return self.read is not None or self.bytes is not None


@dataclass(slots=True)
class RunLog:
    """What is known so far. `pairs` are the pipes in the order in which Meltano runs them, empty when not known."""

    pairs: Sequence[Pair] = ()
    counts: dict[tuple[int, str], StreamCount] = field(default_factory=dict)  # by number of the pipe, and stream
    seconds: dict[str, float] = field(default_factory=dict)  # by plugin
    ends: dict[str, float] = field(default_factory=dict)  # by plugin, when it last ended
    phases: list[PhaseEntered] = field(default_factory=list)
    failed: str = ""  # what our own part of the run says: install, database, busy, timeout
    failed_note: str = ""
    early: str = ""  # the plugin that ended before it had read everything
    early_note: str = ""
    block_error: str = ""
    exit_codes: dict[str, int] = field(default_factory=dict)  # by type, or of a mapper by name
    plugin_lines: dict[str, deque[str]] = field(default_factory=dict)
    other_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_KEPT_LINES))
    _block: int = 0
    _rest: bytes = b""

    @property
    def streams(self) -> dict[tuple[int, str], StreamCount]:
        """The streams by number of the pipe: those the tap told of, or the target where no tap tells anything.

        A mapper may give them other names, so what tap and target say of one pipe is never mixed.
        """
        told = {block for (block, _), count in self.counts.items() if count.is_read}
        return {key: count for key, count in self.counts.items() if count.is_read or key[0] not in told}

    @property
    def rows(self) -> int:
        """Rows of all streams of all pipes."""
        return sum(each.rows or 0 for each in self.streams.values())

    @property
    def total_bytes(self) -> int | None:
        """Bytes of all streams; None when no tap reports any."""
        known = [each.bytes for each in self.counts.values() if each.bytes is not None]
        return sum(known) if known else None

    @property
    def pair(self) -> Pair | None:
        """The pipe that runs now, or the one at which the run ended."""
        return self.pairs[self._block] if self._block < len(self.pairs) else None

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
                self.other_lines.append(line.strip()[:_LINE_KEPT])
            return
        event = str(entry.get("event") or "")
        if isinstance(ours := entry.get(MARK), Mapping):
            yield from self._our_own(ours, event)
        elif event.startswith(_METRIC):
            yield from self._metric(entry, _parsed(event.removeprefix(_METRIC)) or {})
        elif entry.get("stdio"):
            name = str(entry.get("string_id") or entry.get("name"))
            self.plugin_lines.setdefault(name, deque(maxlen=_KEPT_LINES)).append(event[:_LINE_KEPT])
        else:
            self._meltano(entry, event)

    def _our_own(self, ours: Mapping[str, Any], event: str) -> Iterator[Note]:
        if ours.get("failed"):
            self.failed, self.failed_note = str(ours["failed"]), event
        elif ours.get("phase") == "early" and not self.early:
            self.early, self.early_note = str(ours.get("plugin")), event
        elif ours.get("phase") == "plugins":
            self._plugins_ran(ours.get("spans"))
        elif (phase := _PHASES.get(str(ours.get("phase")))) is not None:
            entered = PhaseEntered(phase, datetime.fromtimestamp(float(ours.get("at") or 0), UTC))
            self.phases.append(entered)
            yield entered
            yield Progress(None, event)

    def _plugins_ran(self, spans: JSON) -> None:
        for each in spans if isinstance(spans, list) else ():
            if isinstance(each, Mapping) and isinstance(seconds := each.get("seconds"), int | float):
                name = str(each.get("name"))
                self.seconds[name] = self.seconds.get(name, 0.0) + seconds
                self.ends[name] = float(each.get("ended") or 0)

    def _metric(self, entry: Mapping[str, Any], metric: Mapping[str, Any]) -> Iterator[Note]:
        tags, value, name = metric.get("tags"), metric.get("value"), metric.get("metric")
        stream = tags.get("stream") or tags.get("endpoint") if isinstance(tags, Mapping) else None
        if not isinstance(stream, str) or not isinstance(value, int | float):
            return
        side = self._side(entry)
        if side == "mapper":
            return
        count = self.counts.setdefault((self._block, stream), StreamCount())
        match name, side:
            case "record_count", "tap":
                count.read = (count.read or 0) + int(value)
                yield MetricSample("rows", self.rows, "rows")
                yield Progress(None, f"{stream}: {count.read:,} rows")
            case "record_count", "target":
                count.written = (count.written or 0) + int(value)
            case "record_bytes", "tap":
                count.bytes = (count.bytes or 0) + int(value)
                yield MetricSample("bytes", self.total_bytes or 0, "bytes")
            case "sync_duration", "tap":
                count.seconds = (count.seconds or 0.0) + value

    def _side(self, entry: Mapping[str, Any]) -> str:
        """Say whose metric it is. Meltano's lines tell in one way for `run`, and in another for `el`."""
        if "producer" in entry and "consumer" in entry:
            sides = {(True, False): "tap", (False, True): "target"}
            return sides.get((bool(entry["producer"]), bool(entry["consumer"])), "mapper")
        if (kind := entry.get("cmd_type")) in ("extractor", "loader"):
            return "tap" if kind == "extractor" else "target"
        name = entry.get("string_id") or entry.get("name")
        return "target" if any(name == each.target for each in self.pairs) else "tap"

    def _meltano(self, entry: Mapping[str, Any], event: str) -> None:
        if event == "Block run completed":
            self._block_over(entry)
        elif isinstance(state := entry.get("install_state"), Mapping):
            self.other_lines.append(f"{state.get('plugin_name')}: {state.get('details') or state.get('message')}")
        elif entry.get("level") in ("error", "critical"):
            self.other_lines.append((event or _exception(entry))[:_LINE_KEPT])

    def _block_over(self, entry: Mapping[str, Any]) -> None:
        if entry.get("success"):
            self._block += 1
            return
        self.block_error = str(entry.get("err") or "")
        codes = entry.get("exit_codes")
        for each in codes if isinstance(codes, list) else [codes]:
            if isinstance(each, Mapping):
                self.exit_codes |= {str(name): code for name, code in each.items() if isinstance(code, int)}


def _exception(entry: Mapping[str, Any]) -> str:
    """Name the exception of a line that says nothing else."""
    found = entry.get("exception")
    first = found[0] if isinstance(found, list) and found else None
    return str(first.get("exc_type") or "") if isinstance(first, Mapping) else ""


def _parsed(line: str) -> Mapping[str, Any] | None:
    if not line.startswith("{"):
        return None
    try:
        value = json.loads(line)
    except ValueError:
        return None
    return value if isinstance(value, Mapping) else None
