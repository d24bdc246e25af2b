"""From a finished attempt to its result: what the log told, and what the run left in its folder."""

import json
from collections.abc import Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from flexcore.model.execution import Phase, Usage
from flexcore.model.failure import Failure
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.shim import End, Status
from flexcore_meltano.attempt_main import STATE_AFTER, STATE_BEFORE
from flexcore_meltano.logs import RunLog
from flexcore_meltano.prepare import DBT_TARGET

_STDOUT_KEPT = 64 << 10


def output_of(kind: StepKind, *, folder: Path, work: Path, notes: Mapping[str, JSON], log: RunLog) -> JSON:
    """Make the output of an attempt that succeeded."""
    if kind is StepKind.SINGER:
        return _singer(work, notes, log)
    if kind is StepKind.DBT:
        return {"models": dbt_models(work)}
    return _last_word(folder / "stdout")


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


def dbt_models(work: Path) -> list[dict[str, JSON]]:
    """Read what dbt says of every node that it ran; empty when it ran none."""
    found = _read(work / DBT_TARGET / "run_results.json")
    results = found.get("results") if isinstance(found, Mapping) else None
    return [_model(each) for each in results or () if isinstance(each, Mapping)]


def with_dbt_errors(failure: Failure, work: Path) -> Failure:
    """Put the models that failed in front of a failure's message."""
    failed = [each for each in dbt_models(work) if each["status"] in ("error", "fail", "runtime error")]
    if not failed:
        return failure
    lines = [f"{each['name']}: {each['status']}: {each.get('message') or ''}".strip() for each in failed]
    return Failure(
        message="\n".join(lines), error_class=failure.error_class, name=f"dbt {failed[0]['status']}", hint=failure.hint
    )


def _singer(work: Path, notes: Mapping[str, JSON], log: RunLog) -> dict[str, JSON]:
    before, after = _read(work / STATE_BEFORE), _read(work / STATE_AFTER)
    full_refresh = notes.get("full_refresh") is True
    return {
        "rows": log.rows if log.streams else None,
        "bytes": log.total_bytes,
        "streams": [{"name": name, "rows": each.rows, "bytes": each.bytes} for name, each in log.streams.items()],
        "state_before": before,
        "state_after": after,
        "incremental": bool(before) and not full_refresh,
        "full_refresh": full_refresh,
        "output_location": notes.get("output_location"),
        "project": notes.get("project"),
        "plugins": notes.get("plugins"),
    }


def _model(result: Mapping[str, Any]) -> dict[str, JSON]:
    response = result.get("adapter_response")
    rows = response.get("rows_affected") if isinstance(response, Mapping) else None
    status = str(result.get("status"))
    return {
        "name": str(result.get("unique_id", "")).rpartition(".")[2],
        "status": status,
        "rows": rows if isinstance(rows, int) else None,
        "seconds": result.get("execution_time"),
        **({"message": str(result.get("message"))} if status not in ("success", "pass") else {}),
    }


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
