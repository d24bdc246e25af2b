"""Puts together what placement reads: the runtimes as they are, how busy, at what price, and what has been learned.

Made anew about once a second and when a runtime changes; between two looks nobody waits for anything.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from itertools import combinations

import structlog

from flexcore.analyzer.predict import NOTHING_LEARNED, Model
from flexcore.analyzer.snapshot import Candidate, Load, Snapshot
from flexcore.analyzer.standing import IDLE
from flexcore.model.errors import FlexCoreError
from flexcore.monitor.learning import Learning

_FIRST_READING_SECONDS = 0.5
_PATIENCE = timedelta(seconds=0.5)
"""How long a look waits for a runtime that is asked again: what is known of all others must not grow old with it."""

_log = structlog.get_logger(__name__)


@dataclass(slots=True, kw_only=True)
class Lookout:
    """Makes snapshots. `learning` is None where the tables alone decide; `prices` are per hour, by runtime."""

    candidates: Callable[[timedelta | None], Awaitable[tuple[Candidate, ...]]]
    known: Callable[[], tuple[Candidate, ...]]
    loads: Callable[[], Awaitable[Mapping[str, Load]]]
    prices: Mapping[str, float]
    learning: Learning | None
    now: Callable[[], datetime]
    _has_looked: bool = False
    _reading: "asyncio.Task[None] | None" = None

    async def look(self, *, in_full: bool = False) -> Snapshot:
        """Ask the runtimes and the store.

        What has been learned is left alone (unless `in_full`) as long as no two runtimes compete for a kind of step:
        it could change nothing, and learning costs as much as deciding.
        """
        candidates = await self.candidates(_PATIENCE if self._has_looked and not in_full else None)
        if self.learning is not None and (in_full or _compete(candidates)):
            await self._learn(self.learning)
        self._has_looked = True
        model = NOTHING_LEARNED if self.learning is None else self.learning.model
        loads = await self._loads()
        if model is not NOTHING_LEARNED:
            loads = {each.name: self._warmed(each.name, loads.get(each.name, IDLE), model) for each in candidates}
        return Snapshot(candidates, loads=loads, prices=self.prices, model=model)

    def again(self, snapshot: Snapshot) -> Snapshot:
        """Take over how the runtimes are by now, from memory alone."""
        return replace(snapshot, candidates=self.known())

    async def _learn(self, learning: Learning) -> None:
        """Wait for what is new only so long: a server that has much to read goes by the rules until it has read it."""
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(learning.refresh())
        await asyncio.wait({self._reading}, timeout=_FIRST_READING_SECONDS)
        if self._reading.done():
            self._reading.result()

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    def _warmed(self, runtime: str, load: Load, model: Model) -> Load:
        return load._replace(warm=load.running > 0 or model.is_warm(runtime, self.now()))

    async def _loads(self) -> Mapping[str, Load]:
        try:
            return await self.loads()
        except FlexCoreError as error:
            _log.warning("load.unknown", reason=error.message)
            return {}


def _compete(candidates: Sequence[Candidate]) -> bool:
    kinds = [each.capabilities.step_kinds for each in candidates if each.enabled and each.capabilities is not None]
    return any(one & other for one, other in combinations(kinds, 2))
