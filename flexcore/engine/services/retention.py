"""Removes what is old enough: executions, their logs, cached results, content that nobody refers to.

What is still needed is the store's to know; how long things are kept is said here. The order matters: what goes first
is no reason any more to keep what it used.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import assert_never

import structlog

from flexcore.model.errors import Conflict
from flexcore.model.requests import Collectable, CollectRequest
from flexcore.store.audit import AuditEntry, AuditTrail
from flexcore.store.retention import GRACE, Collected, Gone, Retention

_log = structlog.get_logger(__name__)

_ACTOR = "flexcore"  # nobody asked: it was time
_ANSWERED = timedelta(days=7)  # as long as idempotency keys live: somebody may still ask what came of a command
_ONLY_NAMED = frozenset({Collectable.VERSIONS})
_NOT_BY_AGE = frozenset({Collectable.AUDIT})
_WITH_GRACE = frozenset({Collectable.ARTIFACTS, Collectable.CACHE, Collectable.VERSIONS})


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was done about one kind. Without `before`, nothing: `note` says why."""

    kind: Collectable
    before: datetime | None
    collected: Collected = Collected()
    note: str = ""


@dataclass(slots=True)
class RetentionService:
    """`collect` is one round by somebody's wish, `run_once` one by the clock.

    `ages` says how old each kind may become (zero: any age); `keep_last` executions of each workflow stay in any case.
    """

    retention: Retention
    trail: AuditTrail
    ages: Mapping[Collectable, timedelta]
    keep_last: int
    now: Callable[[], datetime]
    interval: timedelta

    async def run_once(self) -> tuple[Outcome, ...]:
        """Collect everything by the settings, unless somebody else is at it; what went is audited."""
        try:
            outcomes = await self.collect(CollectRequest())
        except Conflict:
            return ()
        counts = {each.kind.value: each.collected.count for each in outcomes if each.collected.count}
        if counts:
            _log.info("retention.collected", **counts)
            entry = AuditEntry(
                at=self.now(), workspace="", actor=_ACTOR, action="collect", subject="store", details=counts
            )
            await self.trail.add(entry)
        return outcomes

    async def collect(self, request: CollectRequest) -> tuple[Outcome, ...]:
        """Remove what is old, or say what would go. Raises Conflict while somebody else collects in this store."""
        wanted = request.kinds or frozenset(Collectable) - _ONLY_NAMED
        now = self.now()
        gone = Gone()
        outcomes: list[Outcome] = []
        with self.retention.alone():
            for kind in Collectable:  # in their order
                if kind not in wanted:
                    continue
                age = self._age(kind, request)
                if age is None:
                    outcomes.append(Outcome(kind, None, note=f"kept: the setting retention.{kind} is never"))
                else:
                    collected, gone = await self._collect(kind, now - age, gone, request.dry_run)
                    outcomes.append(Outcome(kind, now - age, collected, _NOTES.get(kind, "")))
        return tuple(outcomes)

    def _age(self, kind: Collectable, request: CollectRequest) -> timedelta | None:
        """Say how old a kind may become; None: any age."""
        if kind is Collectable.KEYS:
            return timedelta(0)  # they say themselves when they expire
        wish = request.older_than if kind not in _NOT_BY_AGE or kind in request.kinds else None
        age = self.ages.get(kind, GRACE) if wish is None else wish
        if wish is None and not age:
            return None
        return max(age, GRACE) if kind in _WITH_GRACE else age

    async def _collect(self, kind: Collectable, before: datetime, gone: Gone, dry_run: bool) -> tuple[Collected, Gone]:
        match kind:
            case Collectable.EXECUTIONS:
                collected, executions = await self.retention.executions(
                    before, keep_last=self.keep_last, dry_run=dry_run
                )
                return collected, replace(gone, executions=executions)
            case Collectable.VERSIONS:
                collected, versions = await self.retention.versions(before, gone.executions, dry_run=dry_run)
                return collected, replace(gone, versions=versions)
            case Collectable.CACHE:
                return await self.retention.cache(before, dry_run=dry_run), replace(gone, cache_before=before)
            case Collectable.KEYS:
                return await self.retention.keys(before, before - _ANSWERED, dry_run=dry_run), gone
            case Collectable.LOGS:
                return await self.retention.logs(before, gone.executions, dry_run=dry_run), gone
            case Collectable.ARTIFACTS:
                return await self.retention.artifacts(before, gone, dry_run=dry_run), gone
            case Collectable.AUDIT:
                return await self.retention.audit(before, dry_run=dry_run), gone
        assert_never(kind)


_NOTES = {
    Collectable.EXECUTIONS: "with their logs",
    Collectable.VERSIONS: "unpacked copies too; current, pinned and used versions stay",
    Collectable.KEYS: "idempotency keys that have expired, commands that were answered",
    Collectable.ARTIFACTS: "nothing younger than an hour, or than a step that is still running",
}
