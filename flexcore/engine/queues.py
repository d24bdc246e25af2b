"""Wakes what waits for a place in a limited pool, in the order in which it came to wait.

Whatever frees a place in this process is followed by a look at once; what other processes free is found by looking
again and again. A look decides nothing: it tells an execution to ask, and the store has the last word.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from flexcore.engine.live import Live
from flexcore.engine.work import Event, PlaceFree
from flexcore.model.errors import FlexCoreError
from flexcore.model.ids import ExecutionId
from flexcore.model.pools import WHOLE, Claim, Party, PoolUse
from flexcore.store.write import Journal

_log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 3.0  # with whoever is first and does not take the place: it may be stopped, or out of order


@dataclass(slots=True, eq=False)
class Queues:
    """What waits in this process, and since when those who are first everywhere have let a free place lie."""

    journal: Journal
    post: Callable[[Live, Event], None]
    spawn: "Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]"
    _waiting: dict[ExecutionId, Live] = field(default_factory=dict)
    _first: dict[str, tuple[Party, float]] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)

    @property
    def is_waiting(self) -> bool:
        """Say whether anything waits here."""
        return bool(self._waiting)

    def note(self, live: Live) -> None:
        """Take notice of whether an execution waits for anything."""
        if live.state.queued or live.state.header.full:
            self._waiting[live.id] = live
        elif self._waiting:
            self._waiting.pop(live.id, None)

    def drop(self, live: Live) -> None:
        """Forget an execution that is no longer here."""
        self._waiting.pop(live.id, None)

    def freed(self, pools: Iterable[str]) -> None:
        """Look soon at who may have a place that has become free."""
        if not self._waiting:
            return
        if not self._asked:
            self.spawn(self._look_soon())
        self._asked.update(pools)

    async def look(self) -> int:
        """Look at every pool in which something waits here; give how many were told to ask."""
        wanted = self._wanted()
        for pool in self._first.keys() - wanted.keys():
            del self._first[pool]
        return await self._tell(wanted) if wanted else 0

    async def uses(self, claims: Iterable[Claim], execution: ExecutionId) -> Mapping[str, PoolUse]:
        """Look at pools for a decision, without those whose turn has long come and who do not take it."""
        wanted = {claim.pool: claim.limit for claim in claims}
        found = await self.journal.pools(wanted, execution)
        return {pool: self._without_the_absent(pool, use) for pool, use in found.items()} if self._first else found

    async def _look_soon(self) -> None:
        pools, self._asked = self._asked, set()
        wanted = self._wanted()
        try:
            await self._tell({pool: wanted[pool] for pool in pools if pool in wanted})
        except FlexCoreError as error:
            _log.warning("queues.look_postponed", reason=error.message)  # the service looks again by itself

    def _wanted(self) -> dict[str, int]:
        found: dict[str, int] = {}
        for live in self._waiting.values():
            for full in (live.state.header.full, *live.state.queued.values()):
                found.update((claim.pool, claim.limit) for claim in full)
        return found

    async def _tell(self, wanted: Mapping[str, int]) -> int:
        told = 0
        for pool, seen in (await self.journal.pools(wanted) if wanted else {}).items():
            free = wanted[pool] - seen.held
            if free <= 0:
                self._first.pop(pool, None)
                continue
            use = self._attended(pool, seen)
            for party in use.waiting[:free]:
                live = self._waiting.get(party.execution)
                if live is not None:
                    self.post(live, PlaceFree(None if party.path == WHOLE else party.path))
                    told += 1
        return told

    def _attended(self, pool: str, use: PoolUse) -> PoolUse:
        """Watch the clock over whoever is first while a place is free."""
        now, first = asyncio.get_running_loop().time(), use.waiting[0] if use.waiting else None
        if first is None:
            self._first.pop(pool, None)
        elif pool not in self._first or self._first[pool][0] != first:
            self._first[pool] = (first, now)
        return self._without_the_absent(pool, use)

    def _without_the_absent(self, pool: str, use: PoolUse) -> PoolUse:
        first = self._first.get(pool)
        if first is None or not use.waiting or use.waiting[0] != first[0] or first[0].execution in self._waiting:
            return use
        if asyncio.get_running_loop().time() - first[1] < _PATIENCE_SECONDS:
            return use
        return PoolUse(held=use.held, waiting=use.waiting[1:])
