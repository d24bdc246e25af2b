"""From a finished attempt to its result: what the log told, and what the run left in its folder."""

import json
from collections.abc import Iterator, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from flexcore.model.execution import Phase, Usage
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.shim import End, Status
from flexcore_meltano.attempt_main import STATE_AFTER, STATE_BEFORE
from flexcore_meltano.dbt import models_of
from flexcore_meltano.logs import Pair, RunLog

_STDOUT_KEPT = 64 << 10


def output_of(kind: StepKind, *, folder: Path, work: Path, notes: Mapping[str, JSON], log: RunLog) -> JSON:
    """Make the output of an attempt that succeeded."""
    if kind is StepKind.SINGER:
        return _singer(work, notes, log)
    if kind is StepKind.DBT:
        return {"models": list(models_of(work)), "output_folder": notes.get("output_folder")}
    return _last_word(folder / "stdout")


def pairs_in(notes: Mapping[str, JSON]) -> Iterator[Pair]:
    """Read back from an attempt's record which pipes it runs."""
    written = notes.get("pairs")
    for each in written if isinstance(written, list) else ():
        if isinstance(each, Mapping):
            mappers, state = each.get("mappers"), each.get("state")
            yield Pair(
                tap=str(each.get("tap")),
                target=str(each.get("target")),
                mappers=tuple(map(str, mappers)) if isinstance(mappers, list) else (),
                state=state if isinstance(state, str) else None,
            )


def usage_of(end: End, log: RunLog) -> Usage:
    """Say what the attempt used."""
    rows = log.rows if log.streams else None
    if not isinstance(end, Status):
        return Usage(rows=rows, bytes_in=log.total_bytes)
    return Usage(cpu_s=end.cpu_s, peak_memory_bytes=end.peak_bytes or None, rows=rows, bytes_in=log.total_bytes)


def phases_of(end: End, log: RunLog) -> dict[Phase, timedelta]:
    """Measure the phases: each lasts until the next one, the last until the end."""
    if not isinstance(end, Status):
        return {}
    times = [each.at.timestamp() for each in log.phases] + [end.finished]
    spans: dict[Phase, timedelta] = {}
    for entered, begin, until in zip(log.phases, times, times[1:], strict=False):
        spans[entered.phase] = spans.get(entered.phase, timedelta()) + timedelta(seconds=max(0.0, until - begin))
    return spans


def _singer(work: Path, notes: Mapping[str, JSON], log: RunLog) -> dict[str, JSON]:
    before, after = _states(work / STATE_BEFORE), _states(work / STATE_AFTER)
    full_refresh = notes.get("full_refresh") is True
    locations = notes.get("output_locations")
    known = [each for each in locations.values() if each] if isinstance(locations, Mapping) else []
    return {
        "rows": log.rows if log.streams else None,
        "bytes": log.total_bytes,
        "streams": [_stream(log, key, before, after) for key in log.streams],
        "plugins": _plugins(notes, log),
        "state_before": _one_or_all(before),
        "state_after": _one_or_all(after),
        "incremental": any(before.values()) and not full_refresh,
        "full_refresh": full_refresh,
        "output_location": known[0] if known else None,
        "project": notes.get("project"),
    }


def _stream(log: RunLog, key: tuple[int, str], before: Mapping[str, JSON], after: Mapping[str, JSON]) -> JSON:
    (block, name), count = key, log.streams[key]
    pair = log.pairs[block] if block < len(log.pairs) else None
    state = pair.state if pair is not None and pair.state is not None else ""
    return {
        "name": name,
        "tap": pair.tap if pair is not None else None,
        "target": pair.target if pair is not None else None,
        "rows": count.rows,
        "bytes": count.bytes,
        "seconds": count.seconds,
        "bookmark_before": _bookmark(before.get(state), name),
        "bookmark_after": _bookmark(after.get(state), name),
    }


def _plugins(notes: Mapping[str, JSON], log: RunLog) -> dict[str, JSON]:
    """What each plugin did, by name. It exists for steps that succeeded, so every plugin did."""
    plugins, locations = notes.get("plugins"), notes.get("output_locations")
    found: dict[str, JSON] = {}
    for name, described in plugins.items() if isinstance(plugins, Mapping) else ():
        own: dict[str, JSON] = dict(described) if isinstance(described, Mapping) else {}
        seconds = log.seconds.get(name)
        own |= {"status": "succeeded", "exit_code": 0, "seconds": None if seconds is None else round(seconds, 3)}
        if isinstance(locations, Mapping) and name in locations:
            own["output_location"] = locations[name]
        found[name] = {**own, **_rows_of_plugin(name, log)}
    return found


def _rows_of_plugin(name: str, log: RunLog) -> dict[str, JSON]:
    """Rows and bytes as the plugin itself counted them; null where it does not count."""
    blocks = {block: pair for block, pair in enumerate(log.pairs) if name in (pair.tap, pair.target)}
    counts = [(blocks[block].tap == name, count) for (block, _), count in log.counts.items() if block in blocks]
    rows = [rows for is_tap, each in counts if (rows := each.read if is_tap else each.written) is not None]
    sizes = [each.bytes for is_tap, each in counts if is_tap and each.bytes is not None]
    return {"rows": sum(rows) if rows else None, "bytes": sum(sizes) if sizes else None}


def _states(path: Path) -> dict[str, JSON]:
    found = _read(path)
    return found if isinstance(found, dict) else {}


def _one_or_all(states: Mapping[str, JSON]) -> JSON:
    """The state of the only id, or of several by id. Null when there was none before."""
    if len(states) == 1:
        return next(iter(states.values()))
    return dict(states) or None


def _bookmark(state: JSON, stream: str) -> JSON:
    bookmarks = state.get("bookmarks") if isinstance(state, Mapping) else None
    return bookmarks.get(stream) if isinstance(bookmarks, Mapping) else None


def _last_word(path: Path) -> JSON:
    """A last line of JSON is the result; anything else is told as text."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _STDOUT_KEPT))
        text = file.read().decode(errors="replace")
    last = text.rstrip().rpartition("\n")[2]
    try:
        if last[:1] in ("{", "["):
            value: JSON = json.loads(last)
            return value
    except ValueError:
        pass
    return {"stdout": text, "exit_code": 0}


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
