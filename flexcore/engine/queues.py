"""Wakes what waits for a place in a limited pool, in the order in which it came to wait.

Whatever frees a place in this process is followed by a look at once; what other processes free is found by looking
again and again. A look decides nothing: it tells an execution to ask, and the store has the last word.
"""

import asyncio
from collections.abc import Callable, Coroutine, Iterable, Mapping, Set
from dataclasses import dataclass, field
from typing import Any

import structlog

from flexcore.engine.live import Live
from flexcore.engine.work import Event, PlaceFree
from flexcore.model.errors import FlexCoreError
from flexcore.model.ids import ExecutionId
from flexcore.model.pools import WHOLE, Claim, Party, PoolUse
from flexcore.store.write import NOBODY, Journal

_log = structlog.get_logger(__name__)

_PATIENCE_SECONDS = 3.0  # with whoever is first and does not take the place: it may be stopped, or out of order
_PASSED_OVER_SECONDS = 60.0  # how long it is passed over then, before it is waited for again


@dataclass(slots=True, eq=False)
class Queues:
    """What waits in this process, and since when those who are first, but wait elsewhere, have let a free place lie."""

    journal: Journal
    post: Callable[[Live, Event], None]
    spawn: "Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]"
    _waiting: dict[ExecutionId, Live] = field(default_factory=dict)
    _offered: dict[str, dict[ExecutionId, float]] = field(default_factory=dict)
    _asked: set[str] = field(default_factory=set)

    @property
    def is_waiting(self) -> bool:
        """Say whether anything waits here."""
        return bool(self._waiting)

    @property
    def is_held_up(self) -> bool:
        """Say whether a place lies free for somebody elsewhere, whose time to take it is running."""
        return bool(self._offered)

    def note(self, live: Live) -> None:
        """Take notice of whether an execution waits for anything."""
        if live.state.queued or live.state.header.full:
            self._waiting[live.id] = live
        elif self._waiting:
            self._waiting.pop(live.id, None)

    def drop(self, live: Live) -> None:
        """Forget an execution that is no longer here."""
        self._waiting.pop(live.id, None)

    def look_soon(self, pools: Set[str]) -> None:
        """Look soon at who may have a place that has become free."""
        if not self._waiting or not pools:
            return
        if not self._asked:
            self.spawn(self._look_soon())
        self._asked.update(pools)

    async def look(self) -> int:
        """Look at every pool in which something waits here; give how many were told to ask."""
        wanted = self._wanted()
        for pool in self._offered.keys() - wanted.keys():
            del self._offered[pool]
        return await self._tell(wanted) if wanted else 0

    async def uses(self, claims: Iterable[Claim], execution: ExecutionId) -> Mapping[str, PoolUse]:
        """Look at pools for a decision, without those whose turn has long come and who do not take it."""
        wanted = {claim.pool: claim.limit for claim in claims}
        return await self.journal.pools(wanted, execution, without=self._absent(wanted))

    async def _look_soon(self) -> None:
        pools, self._asked = self._asked, set()
        wanted = self._wanted()
        try:
            await self._tell({pool: wanted[pool] for pool in pools if pool in wanted})
        except FlexCoreError as error:
            _log.warning("queues.look_postponed", reason=error.message)  # the service looks again by itself

    def _wanted(self) -> dict[str, int]:
        """Name the pools in which something waits here. Of several limits, of versions of a workflow, the highest."""
        found: dict[str, int] = {}
        for live in self._waiting.values():
            for full in (live.state.header.full, *live.state.queued.values()):
                for claim in full:
                    found[claim.pool] = max(claim.limit, found.get(claim.pool, 0))
        return found

    async def _tell(self, wanted: Mapping[str, int]) -> int:
        told, absent = 0, self._absent(wanted)
        for pool, use in (await self.journal.pools(wanted, without=absent) if wanted else {}).items():
            first = use.waiting[: max(wanted[pool] - use.held, 0)]
            self._watch(pool, first, absent.get(pool, frozenset()))
            for party in first:
                live = self._waiting.get(party.execution)
                if live is not None:
                    self.post(live, PlaceFree(None if party.path == WHOLE else party.path))
                    told += 1
        return told

    def _watch(self, pool: str, first: Iterable[Party], absent: Set[ExecutionId]) -> None:
        """Keep the time since when those who wait elsewhere could have taken the place that lies there free."""
        now, before = asyncio.get_running_loop().time(), self._offered.pop(pool, {})
        recent = {id: since for id, since in before.items() if now - since < _PASSED_OVER_SECONDS}
        if elsewhere := absent | ({party.execution for party in first} - self._waiting.keys()):
            self._offered[pool] = {id: recent.get(id, now) for id in elsewhere}

    def _absent(self, pools: Iterable[str]) -> Mapping[str, Set[ExecutionId]]:
        """Name those who are passed over, so that a process that is stopped does not stop all others."""
        if not self._offered:
            return NOBODY
        now = asyncio.get_running_loop().time()
        return {
            pool: {id for id, since in self._offered[pool].items() if _is_passed_over(now - since)}
            - self._waiting.keys()
            for pool in pools
            if pool in self._offered
        }


def _is_passed_over(seconds: float) -> bool:
    return _PATIENCE_SECONDS <= seconds < _PASSED_OVER_SECONDS
