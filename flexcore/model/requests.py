"""What callers ask of the control plane and what they get: the same in process, over gRPC and over HTTP.

Documents are plain JSON mappings in the shape that the outer contract fixes (`docs/api.md`), made in one place
(`flexcore/monitor/document.py`); entrances pass them on as they are.
"""

from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

from flexcore.model.errors import Diagnostic, InvalidRequest
from flexcore.model.ids import ExecutionId
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.values import JSON

Item = TypeVar("Item")
Document: TypeAlias = dict[str, Any]

_LONGEST_PATH = 1024


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    """Some of a list, and where the rest begins (None: that was all)."""

    items: tuple[Item, ...]
    next: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionQuery:
    """Which executions; newest first. `cursor` is a Page's `next`.

    All of `labels` have to be there. `search` is text in the id, the workflow's name or the error; A to Z in any case.
    `failed_step` is the path of a step that failed. `since` is included, `until` is not.
    """

    workspace: str = "default"
    workflow: str | None = None
    status: ExecutionStatus | None = None
    since: datetime | None = None
    until: datetime | None = None
    unfinished: bool = False
    labels: Mapping[str, str] = field(default_factory=dict)
    search: str | None = None
    failed_step: str | None = None
    limit: int = 50
    cursor: str | None = None


def labels_in(pairs: Iterable[str]) -> dict[str, str]:
    """Read labels written as `key=value`. Raises InvalidRequest.

    >>> labels_in(["team=data", "note=a=b"])
    {'team': 'data', 'note': 'a=b'}
    """
    labels: dict[str, str] = {}
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidRequest(f"{pair!r} is not a label", hint="write key=value")
        if labels.setdefault(key, value) != value:
            raise InvalidRequest(f"label '{key}' is given with two values: '{labels[key]}' and '{value}'")
    return labels


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditQuery:
    """Which lines of the audit trail; newest first. `subject` is an execution, or a workflow with its executions."""

    workspace: str = "default"
    since: datetime | None = None
    actor: str | None = None
    subject: str | None = None
    limit: int = 50
    cursor: str | None = None


class Collectable(StrEnum):
    """What can be removed when it is old: each kind has its own age (the settings `retention`)."""

    EXECUTIONS = "executions"
    VERSIONS = "versions"
    CACHE = "cache"
    KEYS = "keys"
    LOGS = "logs"
    ARTIFACTS = "artifacts"
    AUDIT = "audit"


@dataclass(frozen=True, slots=True, kw_only=True)
class CollectRequest:
    """Remove what is old: all kinds, or those named. `older_than` stands for the ages in the settings.

    It applies to the audit trail only when that is named; versions of workflows go only when they are named.
    """

    kinds: frozenset[Collectable] = frozenset()
    older_than: timedelta | None = None
    dry_run: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A workflow file and its other files by relative path. `origin`: the author's folder, if on this machine."""

    text: str
    file_name: str = "workflow.yaml"
    files: Mapping[str, bytes] = field(default_factory=dict)
    origin: str = ""


def check_bundle_path(path: str) -> None:
    """Refuse a name that is no plain path below the workflow's folder, before anybody makes a path of it.

    Raises InvalidRequest.
    """
    parts = PurePosixPath(path).parts
    # Compared with its parts, so that "a//b", "./a" and "a/" are refused too: one file has one name.
    relative = bool(parts) and "/".join(parts) == path and ".." not in parts and ":" not in parts[0]
    if not relative or len(path) > _LONGEST_PATH or "\\" in path or not path.isprintable():
        hint = "paths are relative to the workflow file, with forward slashes, and stay below it"
        raise InvalidRequest(f"not a path inside a bundle: {path[:_LONGEST_PATH]!r}", hint=hint)


@dataclass(frozen=True, slots=True, kw_only=True)
class StartRequest:
    """Start an execution. Without `version`, the newest. `timeout` bounds the whole execution."""

    workflow: str
    version: str | None = None
    workspace: str = "default"
    input: JSON = None
    labels: Mapping[str, str] = field(default_factory=dict)
    runtime: str | None = None
    idempotency_key: str | None = None
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryRequest:
    """Run a finished execution again, as a new one that is linked to it and has the same input.

    Results above `from_step` (unset: above what failed) are used again; with `everything`, none. `newest` takes the
    version that new executions take, and goes with `everything` only. `results` are given by hand for steps that
    failed, by path, and need a `reason`. The same `idempotency_key` with the same request gives the same execution.
    """

    id: ExecutionId
    from_step: str | None = None
    everything: bool = False
    newest: bool = False
    results: Mapping[str, JSON] = field(default_factory=dict)
    reason: str = ""
    idempotency_key: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRequest:
    """One task on one runtime, without a workflow file: a one-step execution underneath."""

    runtime: str
    type: str
    parameters: Mapping[str, JSON] = field(default_factory=dict)
    workspace: str = "default"
    timeout: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Started:
    """The acknowledgement: durable. `existing` when the idempotency key had been used for the same request."""

    id: ExecutionId
    existing: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchEvent:
    """Something that happened to an execution.

    `kind` is `history` (then `seq` is set and `body` is the change with its `type`), `log` (`body`: path, stream,
    text) or `progress` (`body`: path, fraction, note, metrics). Only history can be resumed from a `seq`.
    """

    kind: str
    at: datetime
    body: Document
    seq: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LogPage:
    """Lines of an attempt's output in the order written; give `next` back to read on."""

    # {path, attempt, stream, offset, text, lines?}; `lines` are the JSON lines that end in the piece, understood:
    # [{offset, level, message, time, fields}], the offset being where the line begins in the stream.
    pieces: tuple[Document, ...]
    next: str | None
    ended: bool  # nothing more will come


class ControlPlaneApi(Protocol):
    """Every capability of FlexCore, whether the control plane runs in this process or behind a server.

    Methods raise the errors of `flexcore.model.errors`, the same on both sides.
    """

    async def validate(self, bundle: Bundle) -> Sequence[Diagnostic]:
        """Check a workflow; an empty answer means it is valid."""
        ...

    async def deploy(self, bundle: Bundle, workspace: str = "default") -> Document:
        """Store a version: `{name, version, created}`. Raises InvalidDefinition."""
        ...

    async def diff(self, bundle: Bundle, workspace: str = "default") -> Document:
        """Say what deploying would change.

        `{name, version, change: new|changed|unchanged, current, pinned, text, files: {added, changed, removed}}`, where
        `text` is a unified diff. Raises InvalidDefinition.
        """
        ...

    async def plan(
        self, workflow: str, version: str | None = None, runtime: str | None = None, workspace: str = "default"
    ) -> Document:
        """Say where each step would go now: `{workflow, version, steps: [{path, id, type, placement}]}`."""
        ...

    async def workflows(self, workspace: str = "default", runtime: str | None = None) -> Sequence[Document]:
        """List definitions: `{name, version, description, runtimes, created_at}`, by name."""
        ...

    async def workflow(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        """Give a definition with its `text`, its `versions` and what it is `pinned` to.

        A version may be given by how it begins; without one, the version that new executions take.
        """
        ...

    async def pin(self, name: str, version: str, workspace: str = "default") -> Document:
        """Have new executions take this version whatever is deployed: `{name, current, pinned}`."""
        ...

    async def unpin(self, name: str, workspace: str = "default") -> Document:
        """Have new executions take the current version again: `{name, current, pinned}`."""
        ...

    async def rollback(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        """Make an older version the current one, by default the one deployed before it: `{name, current, pinned}`.

        Raises Conflict when the workflow is pinned, or there is nothing older.
        """
        ...

    async def delete_workflow(self, name: str, workspace: str = "default") -> None:
        """Take a definition out of the list."""
        ...

    async def start(self, request: StartRequest) -> Started:
        """Accept an execution. Raises NotFound, InvalidInput, NoFeasibleRuntime, AlreadyExists (key reused), …."""
        ...

    async def execute_task(self, request: TaskRequest) -> Started:
        """Run one task on one runtime."""
        ...

    async def execution(self, id: ExecutionId) -> Document:
        """Give the execution document."""
        ...

    async def executions(self, query: ExecutionQuery) -> Page[Document]:
        """List executions without their steps, newest first."""
        ...

    async def history(self, id: ExecutionId, after: int = 0, limit: int = 1000) -> Page[Document]:
        """Give history entries `{seq, at, type, …}`."""
        ...

    def watch(self, id: ExecutionId, after: int = 0) -> AsyncGenerator[WatchEvent, None]:
        """Follow an execution from a history entry on, until it has ended. History has no gaps and no repeats."""
        ...

    async def logs(self, id: ExecutionId, path: str | None = None, cursor: str | None = None) -> LogPage:
        """Read the logs of a step's last attempt, or of all steps."""
        ...

    async def cancel(self, id: ExecutionId, reason: str = "") -> None:
        """Ask for the end of an execution; durable on return. Raises IllegalTransition when it has ended."""
        ...

    async def retry(self, request: RetryRequest) -> Started:
        """Start a new, linked execution that reuses the results above the given (or the first failed) step.

        Raises NotFound, InvalidRequest, InvalidInput (the newest version asks for another input).
        """
        ...

    async def resume(self) -> Sequence[ExecutionId]:
        """Take up every unfinished execution whose owner is dead; name those now being worked on."""
        ...

    async def explain(self, id: ExecutionId, path: str, flips: bool = False) -> Document:
        """Say why a step went where it did, or why it waits: `{path, placement, sentences, waiting_for}`.

        With `flips`, also the smallest single changes that would bring it elsewhere, as things are now: `{flips}`.
        """
        ...

    async def runtimes(self) -> Sequence[Document]:
        """List runtimes: `{name, type, enabled, priority, health: {state, reason}, step_kinds}`."""
        ...

    async def runtime(self, name: str) -> Document:
        """Give one runtime with its full health and capabilities."""
        ...

    async def cleanup_runtime(self, name: str, dry_run: bool = False) -> Document:
        """End and remove what attempts left on a runtime that nobody will ask for again, or with `dry_run` list it.

        `{runtime, dry_run, orphans: [{name, execution, path, attempt, gone, reason}], executions, in_flight,
        retained}`. Raises NotFound, RuntimeUnavailable.
        """
        ...

    async def collect(self, request: CollectRequest) -> Document:
        """Remove what is old: `{dry_run, count, bytes, kinds: [{kind, before, count, bytes, note}]}`.

        Raises Conflict while somebody else collects in the same store.
        """
        ...

    async def audit(self, query: AuditQuery) -> Page[Document]:
        """Say who changed what: `{at, workspace, actor, action, subject, details, outcome}`, newest first."""
        ...
