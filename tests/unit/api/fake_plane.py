"""A control plane in memory: answers with documents in the contract's shape and remembers what it was asked."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from flexcore.model.errors import Diagnostic, FlexCoreError, InvalidDefinition, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import (
    AuditQuery,
    Bundle,
    CollectRequest,
    Document,
    ExecutionQuery,
    LogPage,
    Page,
    RetryRequest,
    Started,
    StartRequest,
    TaskRequest,
    WatchEvent,
)

AT = datetime(2026, 3, 1, 12, 30, 0, 250_000, tzinfo=UTC)
TIME = "2026-03-01T12:30:00.250Z"
KNOWN = ExecutionId("exe_known")
OPEN = ExecutionId("exe_open")  # does not end before `finish` is set

PLACEMENT: Document = {
    "chosen": "local",
    "source": "only-feasible",
    "candidates": [
        {"runtime": "local", "feasible": True, "reasons": [], "score": None, "prediction": None},
        {
            "runtime": "k8s",
            "feasible": False,
            "reasons": [{"code": "MEM", "reason": "too small"}],
            "score": 0.5,
            "prediction": {"n": 3, "total": {"p50_s": 1.5}},
        },
    ],
    "rule_would_choose": "k8s",
    "fallback_reason": "k8s: too small",
    "estimated_cost": 0.25,
    "policy": "balanced",
    "margin": None,
    "warnings": ["no deadline can be made"],
    "rule": "S4",
}
STEP: Document = {
    "path": "fan[3].score",
    "id": "score",
    "type": "python",
    "status": "failed",
    "runtime": "local",
    "attempt": 2,
    "started_at": TIME,
    "finished_at": None,
    "duration_s": 1.25,
    "phases": {"queue_s": 0.001, "start_s": None, "transfer_in_s": None, "run_s": 1.2, "transfer_out_s": None},
    "usage": {
        "cpu_s": 0.3,
        "peak_memory_bytes": 2**40,
        "bytes_in": None,
        "bytes_out": None,
        "rows": 27004,
        "cost": 0.01,
    },
    "placement": PLACEMENT,
    "handle": {"version": 1, "name": "fx-abc", "identity": "7", "data": {}},
    "result": {"big": 2**60 + 1, "text": "ü\u0000"},
    "error": {
        "class": "user",
        "name": "ValueError",
        "message": "no",
        "step": "fan[3].score",
        "attempt": 2,
        "hint": "",
        "cause": None,
    },
    "skipped_reason": None,
    "waiting_for": None,
    "cached": False,
    "spent": {"user": 1},
}
EXECUTION: Document = {
    "id": KNOWN,
    "workflow": "orders",
    "version": "sha256-1",
    "workspace": "default",
    "status": "succeeded",
    "input": {"limit": 3},
    "output": [1, None, 2.5],
    "error": None,
    "created_at": TIME,
    "started_at": TIME,
    "finished_at": "2026-03-01T12:31:00.000Z",
    "duration_s": 59.75,
    "durability": "full",
    "steps": [STEP],
    "usage": {"cpu_s": None, "peak_memory_bytes": None, "bytes_in": None, "bytes_out": None, "rows": 5, "cost": None},
    "labels": {"team": "a"},
}
SUMMARY = {key: EXECUTION[key] for key in EXECUTION if key not in ("steps", "input", "output", "usage", "durability")}
BROKEN = (Diagnostic("workflow.yaml", 3, 5, "unknown key 'wiht'", code="unknown_key", hint="with?", path="steps[0]"),)


@dataclass
class FakePlane:
    """Implements ControlPlaneApi. Set `raising` to have the next calls fail; `asked` has (method, arguments)."""

    raising: Exception | None = None
    asked: list[tuple[str, Any]] = field(default_factory=list)
    finish: asyncio.Event = field(default_factory=asyncio.Event)

    def _note(self, method: str, *arguments: object) -> None:
        self.asked.append((method, arguments))
        if self.raising is not None:
            raise self.raising

    def _known(self, id: str) -> None:
        if id not in (KNOWN, OPEN):
            raise NotFound(f"no execution {id!r}", hint="flexcore execution list")

    async def validate(self, bundle: Bundle) -> Sequence[Diagnostic]:
        self._note("validate", bundle)
        return BROKEN if "wiht" in bundle.text else ()

    async def deploy(self, bundle: Bundle, workspace: str = "default") -> Document:
        self._note("deploy", bundle, workspace)
        if "wiht" in bundle.text:
            raise InvalidDefinition(BROKEN)
        return {"name": "orders", "version": "sha256-1", "created": True, "pinned": None}

    async def diff(self, bundle: Bundle, workspace: str = "default") -> Document:
        self._note("diff", bundle, workspace)
        files = {"added": ["a.py"], "changed": [], "removed": ["b.py"]}
        found = {"name": "orders", "version": "v-2", "change": "changed", "current": "v-1", "pinned": None}
        return found | {"text": "--- a\n+++ b", "files": files}

    async def pin(self, name: str, version: str, workspace: str = "default") -> Document:
        self._note("pin", name, version, workspace)
        return {"name": name, "current": "v-2", "pinned": version}

    async def unpin(self, name: str, workspace: str = "default") -> Document:
        self._note("unpin", name, workspace)
        return {"name": name, "current": "v-2", "pinned": None}

    async def rollback(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        self._note("rollback", name, version, workspace)
        return {"name": name, "current": "v-1", "pinned": None}

    async def plan(
        self, workflow: str, version: str | None = None, runtime: str | None = None, workspace: str = "default"
    ) -> Document:
        self._note("plan", workflow, version, runtime, workspace)
        step = {"path": "a", "id": "a", "type": "python", "placement": PLACEMENT}
        nowhere = {"path": "b", "id": "b", "type": "transform", "placement": None}
        return deepcopy({"workflow": workflow, "version": version, "steps": [step, nowhere]})

    async def workflows(self, workspace: str = "default", runtime: str | None = None) -> Sequence[Document]:
        self._note("workflows", workspace, runtime)
        first = {"name": "orders", "version": "v", "description": "", "runtimes": ["local"], "created_at": TIME}
        return [first, {**first, "name": "other", "description": None, "runtimes": []}]

    async def workflow(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        self._note("workflow", name, version, workspace)
        return {
            "name": name,
            "version": "v",
            "description": "",
            "runtimes": ["local"],
            "created_at": TIME,
            "text": "name: orders\n",
            "inputs": {"type": "object"},
            "files": ["a.py"],
            "pinned": "v",
            "versions": [
                {"version": "v", "created_at": TIME, "deployed_by": "ann", "current": True, "pinned": True},
                {"version": "u", "created_at": TIME, "deployed_by": None, "current": False, "pinned": False},
            ],
        }

    async def delete_workflow(self, name: str, workspace: str = "default") -> None:
        self._note("delete_workflow", name, workspace)

    async def start(self, request: StartRequest) -> Started:
        self._note("start", request)
        return Started(OPEN if request.workflow == "open" else KNOWN, existing=request.idempotency_key == "used")

    async def execute_task(self, request: TaskRequest) -> Started:
        self._note("execute_task", request)
        return Started(KNOWN)

    async def execution(self, id: ExecutionId) -> Document:
        self._note("execution", id)
        self._known(id)
        return deepcopy(EXECUTION)

    async def executions(self, query: ExecutionQuery) -> Page[Document]:
        self._note("executions", query)
        return Page((dict(SUMMARY),), "more")

    async def history(self, id: ExecutionId, after: int = 0, limit: int = 1000) -> Page[Document]:
        self._note("history", id, after, limit)
        self._known(id)
        entries = [{"seq": seq, "at": TIME, "type": "StepStarted", "path": "a"} for seq in range(after + 1, 4)]
        return Page(tuple(entries[:limit]), None)

    async def watch(self, id: ExecutionId, after: int = 0) -> AsyncGenerator[WatchEvent, None]:
        self._note("watch", id, after)
        self._known(id)
        for seq in range(after + 1, 4):
            yield WatchEvent(kind="history", at=AT, seq=seq, body={"type": "StepStarted", "path": "a"})
            yield WatchEvent(kind="log", at=AT, body={"path": "a", "stream": "stdout", "text": f"line {seq}\n"})
        if id == OPEN:
            await self.finish.wait()

    async def logs(self, id: ExecutionId, path: str | None = None, cursor: str | None = None) -> LogPage:
        self._note("logs", id, path, cursor)
        piece = {"path": path or "a", "attempt": 1, "stream": "stdout", "offset": 2**33, "text": "ok\n"}
        return LogPage(pieces=(piece,), next="c2", ended=False)

    async def cancel(self, id: ExecutionId, reason: str = "") -> None:
        self._note("cancel", id, reason)

    async def retry(self, request: RetryRequest) -> Started:
        self._note("retry", request)
        return Started(KNOWN)

    async def resume(self) -> Sequence[ExecutionId]:
        self._note("resume")
        return [KNOWN, OPEN]

    async def explain(self, id: ExecutionId, path: str, flips: bool = False) -> Document:
        self._note("explain", id, path, flips)
        return deepcopy({"path": path, "placement": PLACEMENT, "sentences": ["local, because"], "waiting_for": None})

    async def runtimes(self) -> Sequence[Document]:
        self._note("runtimes")
        health = {"state": "up", "reason": "answers"}
        kinds = ["bash", "python"]
        return [
            {"name": "local", "type": "local", "enabled": True, "priority": 0, "health": health, "step_kinds": kinds}
        ]

    async def runtime(self, name: str) -> Document:
        self._note("runtime", name)
        health = {"state": "down", "reason": "no", "start_latency_s": None, "checked_at": TIME}
        found = {"name": name, "type": "local", "enabled": True, "priority": 0, "health": health}
        return found | {"step_kinds": ["bash"], "capabilities": {"limits": {"cpu": 2}}}

    async def cleanup_runtime(self, name: str, dry_run: bool = False) -> Document:
        self._note("cleanup_runtime", name, dry_run)
        orphan = {"name": "fx-1", "execution": KNOWN, "path": "a[2].b", "attempt": 3, "gone": not dry_run, "reason": ""}
        found = {"runtime": name, "dry_run": dry_run, "orphans": [orphan]}
        return found | {"executions": [KNOWN], "in_flight": 2, "retained": ["fx-served"]}

    async def collect(self, request: CollectRequest) -> Document:
        self._note("collect", request)
        kinds = [
            {"kind": "executions", "before": TIME, "count": 3, "bytes": 2**40, "note": None},
            {"kind": "audit", "before": None, "count": 0, "bytes": 0, "note": "kept"},
        ]
        return {"dry_run": request.dry_run, "count": 3, "bytes": 2**40, "kinds": kinds}

    async def audit(self, query: AuditQuery) -> Page[Document]:
        self._note("audit", query)
        line = {"at": TIME, "workspace": "w", "actor": "ann", "action": "start", "subject": KNOWN, "outcome": "done"}
        return Page(({**line, "details": {"workflow": "orders", "count": 2}},), "41")


def raised(error: FlexCoreError) -> tuple[type[FlexCoreError], str, str]:
    """What must be the same on both sides of a wire."""
    return type(error), error.message, error.hint
