"""The execution document: what an execution looks like to people and programs, the same at every entrance.

The shape is fixed by the outer contract; fields may be added. Steps that still wait have no state: the caller, who
knows the workflow's order, says which they are.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import msgspec

from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionHeader, ExecutionState, Phase, StepState, Usage
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.placement import Placement, Prediction, Verdict
from flexcore.model.requests import Document
from flexcore.model.values import JSON, Payload


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the document's steps: where it stands in the workflow, and its state if its turn has come."""

    path: StepPath
    id: str
    kind: str
    state: StepState | None
    waiting_for: str | None = None


def execution_document(
    state: ExecutionState, rows: Sequence[Row], values: Mapping[str, JSON], durability: str, now: datetime
) -> Document:
    """Show an execution. `values` has what payloads out of line refer to, by uri."""
    return {
        **summary_document(state.header, values, now),
        "input": _value(state.header.input, values),
        "output": _value(state.header.output, values),
        "durability": durability.split(":")[0],
        "steps": [step_document(row, values, now) for row in rows],
        "usage": _total([row.state.usage for row in rows if row.state is not None]),
    }


def summary_document(header: ExecutionHeader, values: Mapping[str, JSON], now: datetime) -> Document:
    """Show an execution without its steps and values."""
    return {
        "id": header.id,
        "workflow": header.workflow,
        "version": header.version,
        "workspace": header.workspace,
        "status": header.status.value,
        "error": failure_document(header.failure),
        "labels": dict(header.labels),
        "forked_from": header.forked_from,
        "parent": header.parent,
        "cancel_requested": header.cancel_requested,
        "created_at": time(header.created_at),
        "started_at": time(header.started_at),
        "finished_at": time(header.finished_at),
        "duration_s": _seconds(header.started_at, header.finished_at, now),
    }


def step_document(row: Row, values: Mapping[str, JSON], now: datetime) -> Document:
    """Show a step."""
    state = row.state
    if state is None:
        state = StepState(path=row.path, kind=row.kind, status=StepStatus.WAITING)
    return {
        "path": row.path,
        "id": row.id,
        "type": row.kind,
        "status": state.status.value,
        "runtime": state.runtime,
        "attempt": state.attempt,
        "started_at": time(state.started_at),
        "finished_at": time(state.finished_at),
        "duration_s": _seconds(state.started_at, state.finished_at, now),
        "phases": {f"{phase.value}_s": _phase(state, phase) for phase in Phase},
        "usage": usage_document(state.usage),
        "placement": placement_document(state.placement),
        "handle": msgspec.to_builtins(state.handle) if state.handle else None,
        "adoptions": state.adoptions,
        "result": _value(state.result, values),
        "error": failure_document(state.failure),
        "skipped_reason": state.skipped_reason or None,
        "waiting_for": row.waiting_for,
        "cached": state.cached,
        "given_by": None if state.given is None else {"actor": state.given.by, "reason": state.given.reason},
    }


def placement_document(placement: Placement | None) -> Document | None:
    """Show a placement."""
    if placement is None:
        return None
    return {
        "chosen": placement.chosen,
        "source": placement.source,
        "rule": placement.rule or None,
        "rule_would_choose": placement.rule_would_choose,
        "fallback_reason": placement.fallback_reason,
        "candidates": [_verdict(verdict) for verdict in placement.verdicts],
        "analysis": dict(placement.analysis),
        "policy": placement.policy or None,
        "weights": dict(placement.weights),
        "margin": placement.margin,
        "estimated_cost": placement.estimated_cost,
        "warnings": list(placement.warnings),
        "fault": placement.fault or None,
    }


def _verdict(verdict: Verdict) -> Document:
    return {
        "runtime": verdict.runtime,
        "feasible": verdict.feasible,
        "reasons": [{"code": each.code.value, "reason": each.reason} for each in verdict.infeasible],
        "score": verdict.score,
        "prediction": _prediction(verdict.prediction),
    }


def _prediction(found: Prediction | None) -> Document | None:
    """Show what was expected; times are `{p50_s, p90_s, mean_s}`, the parts of the score add up to it."""
    if found is None:
        return None
    times = ("wait", "start", "move", "exec", "total")
    return {
        **{name: {f"{key}_s": value for key, value in getattr(found, name)._asdict().items()} for name in times},
        "score": dict(found.score._asdict()),
        "cost": found.cost,
        "p_fail": found.p_fail,
        "p_miss": found.p_miss,
        "p_best": found.p_best,
        "n": found.n,
        "evidence": found.evidence.value,
    }


def failure_document(failure: Failure | None) -> Document | None:
    """Show a failure."""
    if failure is None:
        return None
    return {
        "class": failure.error_class.value,
        "name": failure.name,
        "message": failure.message,
        "step": failure.step or None,
        "attempt": failure.attempt,
        "hint": failure.hint or _default_hint(failure),
        "cause": failure_document(failure.cause),
    }


def _default_hint(failure: Failure) -> str:
    if failure.error_class is ErrorClass.USER and failure.step:
        return f"`flexcore workflow logs ID {failure.step}` has its output"
    return ""


def usage_document(usage: Usage) -> Document:
    """Show what was used."""
    return {
        "cpu_s": usage.cpu_s,
        "peak_memory_bytes": usage.peak_memory_bytes,
        "bytes_in": usage.bytes_in,
        "bytes_out": usage.bytes_out,
        "rows": usage.rows,
        "cost": usage.cost,
    }


def _total(usages: Sequence[Usage]) -> Document:
    documents = [usage_document(each) for each in usages]
    total: Document = {}
    for name in usage_document(Usage()):
        known = [each[name] for each in documents if each[name] is not None]
        combine: Any = max if name == "peak_memory_bytes" else sum
        total[name] = combine(known) if known else None
    return total


def history_document(entry: HistoryEntry) -> Document:
    """Show an entry of the history: `{seq, at, type, …}` with the change's own fields."""
    body: Document = msgspec.to_builtins(entry.change)
    return {"seq": entry.seq, "at": time(entry.at), "type": type(entry.change).__name__, **body}


def references(state: ExecutionState) -> Sequence[Payload]:
    """Give the payloads of a document that are out of line."""
    payloads = [state.header.input, state.header.output, *(step.result for step in state.steps.values())]
    return [each for each in payloads if each.ref is not None]


def _value(payload: Payload, values: Mapping[str, JSON]) -> JSON:
    if payload.ref is None:
        return payload.value
    if payload.ref.uri in values:
        return values[payload.ref.uri]
    return {"$ref": payload.ref.uri, "bytes": payload.ref.bytes}


def _phase(state: StepState, phase: Phase) -> float | None:
    spent = state.phases.get(phase)
    return None if spent is None else spent.total_seconds()


def _seconds(start: datetime | None, end: datetime | None, now: datetime) -> float | None:
    return None if start is None else max(((end or now) - start).total_seconds(), 0)


def time(moment: datetime | None) -> str | None:
    """Show a time: RFC 3339, UTC."""
    return None if moment is None else moment.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
