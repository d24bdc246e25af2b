"""Change sets for the store's suite: the life of one execution, told step by step."""

import os
import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from flexcore.model.changes import (
    Change,
    ExecutionAccepted,
    ExecutionSucceeded,
    HistoryEntry,
    ScopeOpened,
    StepDispatched,
    StepSucceeded,
)
from flexcore.model.execution import ExecutionHeader, ExecutionState, ScopeState, StepState
from flexcore.model.ids import ExecutionId, Scope, StepPath, new_id
from flexcore.model.lifecycle import ExecutionStatus, StepStatus
from flexcore.model.placement import Placement
from flexcore.model.values import Payload
from flexcore.store.read import Definition
from flexcore.store.write import CacheEntry, ChangeSet, ClaimChange, IdempotencyKey

LOAD = StepPath("load")
START = datetime(2026, 11, 1, 12, tzinfo=UTC)


def now() -> datetime:
    """The real time, as bootstrap would give it to a store."""
    return datetime.now(UTC)


def fresh_execution() -> ExecutionId:
    """A new id."""
    return ExecutionId(new_id("exe", time.time_ns() // 1_000_000, os.urandom(10)))


class Story:
    """One execution: every method gives the next change set, as if the one before had been committed."""

    def __init__(
        self, id: ExecutionId | None = None, *, workflow: str = "etl", at: datetime | None = None, after: int = 0
    ) -> None:
        self.at = at or now()
        self.header = ExecutionHeader(
            id=id or fresh_execution(),
            workflow=workflow,
            version="sha256-1",
            workspace="default",
            status=ExecutionStatus.RUNNING,
            input=Payload({"source": "crm", "limit": 3}),
            labels={"team": "data"},
            created_at=self.at,
            started_at=self.at,
        )
        self.steps: dict[StepPath, StepState] = {}
        self.scopes: dict[Scope, ScopeState] = {}
        self.seq = after

    @property
    def id(self) -> ExecutionId:
        """The execution's id."""
        return self.header.id

    @property
    def state(self) -> ExecutionState:
        """What a reader should find when all was committed."""
        return ExecutionState(header=self.header, steps=self.steps, scopes=self.scopes, seq=self.seq)

    def begin(self, key: IdempotencyKey | None = None) -> ChangeSet:
        """Accept the execution."""
        change = ExecutionAccepted(workflow=self.header.workflow, version="sha256-1", input=self.header.input)
        return replace(self._next([change]), start_key=key)

    def begin_again(self) -> ChangeSet:
        """Accept it once more, because the first time was refused."""
        self.seq = 0
        return self.begin()

    def dispatch(self, path: StepPath = LOAD, token: int = 1, consumed: Sequence[int] = ()) -> ChangeSet:
        """Send an attempt out."""
        placement = Placement(chosen="local", source="rule", rule="S1", rule_would_choose="local")
        change = StepDispatched(
            path=path, kind="python", attempt=token, token=token, runtime="local", placement=placement
        )
        step = StepState(
            path=path,
            kind="python",
            status=StepStatus.PENDING,
            attempt=token,
            token=token,
            runtime="local",
            placement=placement,
            created_at=self.at,
        )
        return replace(self._next([change], [step]), consumed=tuple(consumed))

    def claim(self, change: ClaimChange) -> ChangeSet:
        """Write down anything, and with it take a place, wait for one or give one back."""
        return replace(self._next([ScopeOpened(scope=Scope(f"fan[{self.seq}]"))]), claims=(change,))

    def succeed(self, path: StepPath = LOAD, token: int = 1, result: Payload | None = None) -> ChangeSet:
        """End a step, and cache what came out."""
        change = StepSucceeded(path=path, kind="python", attempt=token, result=result or Payload({"rows": 27_004}))
        before = self.steps.get(path) or StepState(path=path, kind="python", status=StepStatus.PENDING)
        step = replace(
            before, status=StepStatus.SUCCEEDED, token=token, result=change.result, finished_at=self.at, attempt=token
        )
        cached = CacheEntry(key=f"{self.id}/{path}", result=change.result, expires_at=self.at + timedelta(hours=1))
        return replace(self._next([change], [step]), cache=(cached,))

    def open_scope(self, scope: str) -> ChangeSet:
        """Begin an iteration."""
        state = ScopeState(scope=Scope(scope), status=StepStatus.RUNNING)
        self.scopes[state.scope] = state
        return replace(self._next([ScopeOpened(scope=state.scope)]), scopes=(state,))

    def finish(self) -> ChangeSet:
        """End the execution."""
        self.header = replace(
            self.header, status=ExecutionStatus.SUCCEEDED, output=Payload([1, None, "x"]), finished_at=self.at
        )
        return self._next([ExecutionSucceeded(output=self.header.output)])

    def _next(self, changes: Sequence[Change], steps: Sequence[StepState] = ()) -> ChangeSet:
        entries = tuple(HistoryEntry(self.seq + place, self.at, change) for place, change in enumerate(changes, 1))
        after, self.seq = self.seq, self.seq + len(entries)
        self.steps.update({step.path: step for step in steps})
        return ChangeSet(execution=self.id, after=after, entries=entries, header=self.header, steps=tuple(steps))


def start_key(key: str, fingerprint: str = "f") -> IdempotencyKey:
    """A caller's name for a start of `etl`."""
    return IdempotencyKey(workspace="default", workflow="etl", key=key, fingerprint=fingerprint)


def definition(name: str, version: str, text: str = "steps: []") -> Definition:
    """A version of a workflow."""
    return Definition(
        workspace="default",
        name=name,
        version=version,
        text=text,
        file_name=f"{name}.yaml",
        runtimes=("local",),
        files={"load.py": "sha256-2"},
        created_at=START,
    )
