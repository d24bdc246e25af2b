"""Learns how long steps take where: folds the observations of all processes on the store into a model, as they come.

Reads committed observations only, so that a restart, or another process, comes to the same model. Never in the way of
a decision: whoever places reads the model that is there. While the store cannot be read nothing is known, and the rule
tables decide.
"""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from flexcore.analyzer.predict import NOTHING_LEARNED, Model
from flexcore.model.errors import FlexCoreError
from flexcore.model.observation import Observation
from flexcore.store.observations import Observations

OF_A_COMMAND, OF_A_SERVER = 2_000, 20_000
"""So many observations are read at first, the newest: what is older has been forgotten nearly altogether. A command
has somebody waiting for its first step."""

_AT_A_TIME = 500  # and so many with each later look: of a flood, the newest are enough
_SLICE = 100  # observations folded without letting anybody else have the loop

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Learning:
    """What has been learned so far, and up to which observation."""

    observations: Observations
    most: int = OF_A_COMMAND
    model: Model = NOTHING_LEARNED
    _learned: Model = NOTHING_LEARNED
    _position: int = 0
    _turn: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def refresh(self) -> None:
        """Fold what is new; the model is swapped whole."""
        async with self._turn:
            limit = _AT_A_TIME if self._position else self.most
            try:
                found = await self.observations.after(self._position, limit)
            except FlexCoreError as error:
                if self.model is not NOTHING_LEARNED:
                    _log.warning("learning.suspended", reason=error.message)
                self.model = NOTHING_LEARNED
                return
            self._position = found.last
            before, self._learned = self._learned, await self._folded(found.observations)
            self.model = self._learned
            for family in sorted(set(self.model.resting) - set(before.resting)):
                _log.warning("learning.rests", family=family, reason="its choices were worse than the rules' would be")

    async def _folded(self, observations: Sequence[Observation]) -> Model:
        """Fold in slices. A shell: a bug in learning must cost what was learned here, and never a step."""
        learned = self._learned
        for begin in range(0, len(observations), _SLICE):
            try:
                learned = learned.observed(observations[begin : begin + _SLICE])
            except Exception:
                _log.exception("learning.broke", observations=len(observations[begin : begin + _SLICE]))
            await asyncio.sleep(0)
        return learned
