"""A control plane in memory with a script: what is deployed and how executions end are set by the test."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from flexcore.cli.options import Options
from flexcore.model.errors import Diagnostic, InvalidDefinition, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import (
    AuditQuery,
    Bundle,
    CollectRequest,
    ControlPlaneApi,
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

NOON = datetime(2026, 1, 2, 12, tzinfo=UTC)
PLACEMENT = {
    "chosen": "local",
    "source": "rule",
    "rule": "P4",
    "rule_would_choose": "meltano",
    "fallback_reason": "meltano cannot run python steps",
    "candidates": [],
}


def step(path: str, status: str = "succeeded", **more: Any) -> Document:
    """Make a step of an execution's document."""
    base = {"path": path, "id": path, "type": "python", "status": status, "runtime": "local", "attempt": 1}
    empty = {"result": None, "error": None, "waiting_for": None, "cached": False}
    return {**base, "duration_s": 1.5, "usage": {"rows": None}, "placement": PLACEMENT, **empty, **more}


def execution(id: str = "exe_1", status: str = "succeeded", **more: Any) -> Document:
    """Make an execution's document."""
    base = {"id": id, "workflow": "etl", "version": "v-1", "status": status, "error": None, "input": None}
    times = {"created_at": "2026-01-02T12:00:00Z", "finished_at": "2026-01-02T12:00:02Z", "duration_s": 2.0}
    return {**base, **times, "output": {"n": 1}, "forked_from": None, "steps": [step("fetch")], **more}


def history(seconds: float, type_name: str, **body: Any) -> WatchEvent:
    """Make a history event, so many seconds after noon."""
    at = NOON + timedelta(seconds=seconds)
    return WatchEvent(kind="history", at=at, body={"type": type_name, **body}, seq=1)


EVENTS = (
    history(0, "ExecutionStarted"),
    history(0, "StepDispatched", path="fetch", runtime="local", attempt=1),
    WatchEvent(kind="log", at=NOON, body={"path": "fetch", "text": "\x1b[31mhello\x1b[0m\n"}),
    history(2, "StepSucceeded", path="fetch", usage={"rows": 27004}),
    history(2, "ExecutionSucceeded"),
)


@dataclass
class FakeControlPlane:
    """Answers from its fields and keeps what it was asked in `asked`."""

    documents: dict[str, Document] = field(default_factory=lambda: {"exe_1": execution()})
    deployed: dict[str, str] = field(default_factory=dict)
    pins: dict[str, str] = field(default_factory=dict)
    problems: list[Diagnostic] = field(default_factory=list)
    unfinished: list[str] = field(default_factory=list)
    pages: list[LogPage] = field(default_factory=list)
    events: Sequence[WatchEvent] = EVENTS
    error: Exception | None = None
    hangs: bool = False
    unreachable: bool = False  # its runtime
    is_stubborn: bool = False
    details: Document = field(default_factory=lambda: {"version": "v-1"})  # of lines of the audit trail
    asked: list[Any] = field(default_factory=list)

    def connect(self, options: Options) -> AbstractAsyncContextManager[ControlPlaneApi]:
        """Stand in for the real connection."""
        self.asked.append(options)

        @asynccontextmanager
        async def session() -> AsyncGenerator[ControlPlaneApi, None]:
            yield self

        return session()

    async def validate(self, bundle: Bundle) -> Sequence[Diagnostic]:
        """Give the problems of the script."""
        self.asked.append(bundle)
        return self.problems

    async def deploy(self, bundle: Bundle, workspace: str = "default") -> Document:
        """Deploy under the name in the text."""
        self.asked.append(bundle)
        if self.problems:
            raise InvalidDefinition(self.problems)
        name = bundle.text.partition("name: ")[2].split()[0]
        self.deployed[name] = bundle.text
        return {"name": name, "version": "v-1", "created": True, "pinned": self.pins.get(name)}

    async def diff(self, bundle: Bundle, workspace: str = "default") -> Document:
        """Compare with what is deployed under the name in the text."""
        if self.problems:
            raise InvalidDefinition(self.problems)
        name = bundle.text.partition("name: ")[2].split()[0]
        before = self.deployed.get(name)
        change = "new" if before is None else "unchanged" if before == bundle.text else "changed"
        base = {"name": name, "version": "v-1", "change": change, "current": None, "pinned": self.pins.get(name)}
        files = {"added": sorted(bundle.files), "changed": [], "removed": []}
        return {**base, "text": "-before\n+after" if change == "changed" else "", "files": files}

    async def plan(
        self, workflow: str, version: str | None = None, runtime: str | None = None, workspace: str = "default"
    ) -> Document:
        """Plan one step."""
        steps = [{"path": "fetch", "id": "fetch", "type": "python", "placement": PLACEMENT}]
        return {"workflow": workflow, "version": version, "steps": steps, "hints": ["configure one"]}

    async def workflows(self, workspace: str = "default", runtime: str | None = None) -> Sequence[Document]:
        """List what is deployed."""
        self.asked.append((workspace, runtime))
        return [{"name": name, "version": "v-1", "runtimes": ["local"], "description": ""} for name in self.deployed]

    async def workflow(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        """Give what is deployed."""
        if name not in self.deployed:
            raise NotFound(f"there is no workflow '{name}'")
        versions = [{"version": "v-1", "created_at": "2026-01-02T12:00:00Z"}]
        return {"name": name, "version": "v-1", "text": self.deployed[name], "versions": versions}

    async def pin(self, name: str, version: str, workspace: str = "default") -> Document:
        """Pin it."""
        self.pins[name] = version
        return {"name": name, "current": "v-1", "pinned": version}

    async def unpin(self, name: str, workspace: str = "default") -> Document:
        """Take the pin out."""
        self.pins.pop(name, None)
        return {"name": name, "current": "v-1", "pinned": None}

    async def rollback(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        """Go back to what is asked for."""
        self.asked.append(("rollback", name, version))
        return {"name": name, "current": version or "v-0", "pinned": None}

    async def cleanup_runtime(self, name: str, dry_run: bool = False) -> Document:
        """Find two orphans, of which one is stubborn."""
        self.asked.append(("cleanup", name, dry_run))
        orphan = {"name": "fx-1", "execution": "exe_1", "path": "load", "attempt": 1, "gone": not dry_run, "reason": ""}
        stubborn = orphan | {"name": "fx-2", "path": "fan[3].score", "gone": False, "reason": "it is still ending"}
        found = {"runtime": name, "dry_run": dry_run, "orphans": [orphan, stubborn]}
        return found | {"executions": [], "in_flight": 2, "retained": ["fx-served"]}

    async def collect(self, request: CollectRequest) -> Document:
        """Find two executions."""
        self.asked.append(request)
        found = {"kind": "executions", "before": "2026-01-02T12:00:00Z", "count": 2, "bytes": 2_500_000, "note": None}
        return {"dry_run": request.dry_run, "count": 2, "bytes": 2_500_000, "kinds": [found]}

    async def audit(self, query: AuditQuery) -> Page[Document]:
        """Give three lines, two at a time."""
        self.asked.append(query)
        line = {"at": "2026-01-02T12:00:00Z", "workspace": "default", "actor": "ann", "action": "pin"}
        lines = [{**line, "subject": f"w{n}", "details": self.details, "outcome": "done"} for n in (3, 2, 1)]
        at = int(query.cursor or 0)
        count = min(2, query.limit)
        return Page(tuple(lines[at : at + count]), str(at + count) if at + count < len(lines) else None)

    async def delete_workflow(self, name: str, workspace: str = "default") -> None:
        """Forget it."""
        await self.workflow(name)
        del self.deployed[name]

    async def start(self, request: StartRequest) -> Started:
        """Start the first execution of the script."""
        if self.error is not None:
            raise self.error
        self.asked.append(request)
        return Started(ExecutionId("exe_1"))

    async def execute_task(self, request: TaskRequest) -> Started:
        """Start the first execution of the script."""
        if self.problems:
            raise InvalidDefinition(self.problems)
        self.asked.append(request)
        return Started(ExecutionId("exe_1"))

    async def execution(self, id: ExecutionId) -> Document:
        """Give a document."""
        if id not in self.documents:
            raise NotFound(f"there is no execution {id}")
        return self.documents[id]

    async def executions(self, query: ExecutionQuery) -> Page[Document]:
        """Give them one by one, to try the paging."""
        self.asked.append(query)
        found = list(self.documents.values())
        at = int(query.cursor or 0)
        return Page(tuple(found[at : at + 1]), str(at + 1) if at + 1 < len(found) else None)

    async def history(self, id: ExecutionId, after: int = 0, limit: int = 1000) -> Page[Document]:
        """Give three entries, two at a time."""
        entries = [{"seq": seq, "at": "2026-01-02T12:00:00Z", "type": "StepStarted", "path": "a"} for seq in (1, 2, 3)]
        found = [each for each in entries if int(str(each["seq"])) > after]
        return Page(tuple(found[:2]), "more" if len(found) > 2 else None)

    async def watch(self, id: ExecutionId, after: int = 0) -> AsyncGenerator[WatchEvent, None]:
        """Give the events of the script."""
        for event in self.events:
            yield event
        while self.hangs:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                self.hangs = self.is_stubborn
                if not self.is_stubborn:
                    raise

    async def logs(self, id: ExecutionId, path: str | None = None, cursor: str | None = None) -> LogPage:
        """Give page after page."""
        self.asked.append((path, cursor))
        at = int(cursor or 0)
        return self.pages[at] if at < len(self.pages) else LogPage(pieces=(), next=cursor, ended=True)

    async def cancel(self, id: ExecutionId, reason: str = "") -> None:
        """Cancel it at once."""
        self.asked.append(("cancel", id, reason))
        self.documents[id] = {**self.documents[id], "status": "cancelled"}

    async def retry(self, request: RetryRequest) -> Started:
        """Start another."""
        self.asked.append(request)
        self.documents["exe_2"] = execution("exe_2", forked_from=request.id)
        return Started(ExecutionId("exe_2"))

    async def resume(self) -> Sequence[ExecutionId]:
        """Take up what the script left."""
        return [ExecutionId(each) for each in self.unfinished]

    async def explain(self, id: ExecutionId, path: str, flips: bool = False) -> Document:
        """Explain the one placement."""
        return {"path": path, "placement": PLACEMENT, "sentences": ["because"], "waiting_for": None}

    async def runtimes(self) -> Sequence[Document]:
        """List one."""
        return [await self.runtime("local")]

    async def runtime(self, name: str) -> Document:
        """Give one."""
        health = {"state": "up", "reason": "2 processes at a time"}
        capabilities: Document = {
            "step_kinds": ["bash", "python"],
            "limits": {"cpu": 2.0, "gpu": None, "memory": 25_000_000_000},
            "versions": {"bash": "5.2", "limits": "memory by a watch"},
            "price_per_hour": None,
        }
        if self.unreachable:
            capabilities = {"error": {"code": "runtime_unavailable", "message": "nobody there", "hint": "start it"}}
        base = {"name": name, "type": "local", "enabled": True, "priority": 0, "step_kinds": ["bash", "python"]}
        return {**base, "health": health, "capabilities": capabilities}


def last(fake: FakeControlPlane, kind: type[Any]) -> Any:
    """Give the last thing of a kind that a control plane was asked."""
    return next(each for each in reversed(fake.asked) if isinstance(each, kind))
