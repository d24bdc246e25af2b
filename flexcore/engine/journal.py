"""From decisions to the one write: builds the change set of a transition, and commits it for certain."""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

import structlog

from flexcore.engine.draft import Draft
from flexcore.engine.fold import apply
from flexcore.engine.observing import observations
from flexcore.engine.work import Decision
from flexcore.model import changes as c
from flexcore.model.changes import Change, HistoryEntry
from flexcore.model.errors import Ambiguous, FlexCoreError, IllegalTransition, InternalError, StoreUnavailable
from flexcore.model.execution import ExecutionHeader, ExecutionState, StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.graph import Graph
from flexcore.model.ids import Scope, StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.model.pools import WHOLE
from flexcore.model.values import Ref
from flexcore.runtime.plugin import ArtifactStore
from flexcore.store.write import CacheEntry, ChangeSet, ClaimChange, IdempotencyKey, Journal

_log = structlog.get_logger(__name__)

_PAUSE_SECONDS = 0.5


def change_set(
    graph: Graph,
    before: ExecutionState,
    decisions: Sequence[Decision],
    *,
    consumed: tuple[int, ...] = (),
    key: IdempotencyKey | None = None,
) -> ChangeSet:
    """Put decisions, each made on the state the one before led to, into one transaction's worth of changes."""
    after = decisions[-1].state
    steps: dict[StepPath, None] = {}
    scopes: dict[Scope, None] = {}
    entries: list[HistoryEntry] = []
    for decision in decisions:
        steps.update(dict.fromkeys(decision.touched_steps))
        scopes.update(dict.fromkeys(decision.touched_scopes))
        entries.extend(
            HistoryEntry(before.seq + index, decision.at, change)
            for index, change in enumerate(decision.changes, start=len(entries) + 1)
        )
    return ChangeSet(
        execution=after.header.id,
        after=before.seq,
        entries=tuple(entries),
        header=after.header,
        steps=tuple(after.steps[path] for path in steps),
        scopes=tuple(after.scopes[scope] for scope in scopes),
        consumed=consumed,
        cache=tuple(_cache_entries(graph, after, entries)),
        start_key=key,
        claims=tuple(_claim_changes(before, after, steps)),
        observations=tuple(observations(before, after, entries)),
    )


def _claim_changes(before: ExecutionState, after: ExecutionState, touched: Iterable[StepPath]) -> Iterator[ClaimChange]:
    """Work out what the pools' table must show: it is derived from the rows that this change set writes."""
    old, new = before.header, after.header
    if old.claims or old.full or new.claims or new.full:
        yield from _between(WHOLE, old, new, new.created_at)
    if not (before.held or before.queued or after.held or after.queued):
        return
    for path in touched:
        was, now = before.steps.get(path, _NO_STEP), after.steps[path]
        if was.claims or was.full or now.claims or now.full:
            yield from _between(path, was, now, now.queued_at)


def _between(
    path: StepPath, was: ExecutionHeader | StepState, now: ExecutionHeader | StepState, since: datetime | None
) -> Iterator[ClaimChange]:
    held_before = {claim.pool for claim in was.claims}
    queued_before = {claim.pool for claim in was.full}
    for pool in sorted((held_before | queued_before) - {claim.pool for claim in (*now.claims, *now.full)}):
        yield ClaimChange(pool=pool, path=path)
    for claim in now.full:
        if claim.pool not in queued_before:
            yield ClaimChange(pool=claim.pool, path=path, queued_at=since)
    for claim in now.claims:
        if claim.pool not in held_before:
            yield ClaimChange(pool=claim.pool, path=path, limit=claim.limit)


_NO_STEP = StepState(path=WHOLE, kind="", status=StepStatus.WAITING)


def pools_to_look_at(changes: ChangeSet) -> set[str]:
    """Name the pools in which somebody may find a place, or a better rank, once a change set is durable.

    Also those in which it queues: a place may have become free since it was found that there is none.
    """
    return {each.pool for each in changes.claims if each.limit is None}


def _cache_entries(graph: Graph, after: ExecutionState, entries: Sequence[HistoryEntry]) -> Iterator[CacheEntry]:
    """Give what later executions may reuse: successes of steps that say so, not those that were reused themselves."""
    for entry in entries:
        change = entry.change
        if isinstance(change, c.StepSucceeded) and not change.cached:
            key, policy = after.steps[change.path].cache_key, graph.step(change.path).cache
            if key and policy is not None:
                yield CacheEntry(key=key, result=change.result, expires_at=entry.at + policy.ttl)


async def store_surely(artifacts: ArtifactStore, contents: Sequence[bytes], *, may_fail: bool) -> None:
    """Store what changes refer to; a store that cannot write now is asked again until it can, unless it `may_fail`."""
    for data in contents:
        while True:
            try:
                await artifacts.put(data)
                break
            except StoreUnavailable as error:
                if may_fail:
                    raise
                _log.error("artifacts.unavailable", reason=error.message)
                await asyncio.sleep(_PAUSE_SECONDS)


async def read_surely(artifacts: ArtifactStore, ref: Ref) -> bytes:
    """Read what a decision needs; a store that cannot be read now is asked again until it can.

    Raises InternalError for what is lost or damaged: no decision can be made without it.
    """
    while True:
        try:
            return await artifacts.get(ref)
        except StoreUnavailable as error:
            _log.error("artifacts.unavailable", reason=error.message)
            await asyncio.sleep(_PAUSE_SECONDS)
        except FlexCoreError as error:
            raise InternalError(f"a value that is needed is lost: {error.message}", hint=error.hint) from error


async def commit_surely(journal: Journal, changes: ChangeSet) -> None:
    """Commit; a store that cannot write now is asked again until it can.

    Only the start of an execution gives up, because its caller has been told nothing yet.
    """
    uncertain = False
    while True:
        try:
            await journal.commit(changes)
            return
        except IllegalTransition:
            if uncertain:
                return  # the commit whose fate was unknown had been written
            raise
        except (StoreUnavailable, Ambiguous) as error:
            if not changes.after:
                raise
            uncertain = uncertain or isinstance(error, Ambiguous)
            _log.error("store.unavailable", execution=changes.execution, reason=error.message)
            await asyncio.sleep(_PAUSE_SECONDS)


def broken(error: Exception) -> Failure:
    """Say why deciding is over. Messages of foreign errors may hold values of the user's, and stay in the log."""
    message, hint = f"FlexCore broke while deciding: {type(error).__name__}", ""
    if isinstance(error, InternalError):
        message, hint = error.message, error.hint
    return Failure(
        message=message,
        error_class=ErrorClass.INTERNAL,
        name=type(error).__name__,
        hint=hint or "this is a bug of FlexCore; its log has the traceback. Other executions go on",
    )


def failing(state: ExecutionState, failure: Failure, now: datetime) -> Decision:
    """Decide, without `decide`, that an execution has failed: for when deciding itself is what broke."""
    reason = f"nothing more can be decided about this execution: {failure.message}"
    open_steps = [step for step in state.steps.values() if not step.status.is_terminal]
    changes: list[Change] = [c.StepCancelled(path=step.path, kind=step.kind, reason=reason) for step in open_steps]
    changes.append(c.ExecutionFailed(failure=failure))
    draft = Draft(state)
    for change in changes:
        apply(draft, change, now)
    return Decision(
        at=now,
        changes=tuple(changes),
        actions=(),
        state=draft.freeze(),
        touched_steps=tuple(draft.touched_steps),
        touched_scopes=tuple(draft.touched_scopes),
    )
