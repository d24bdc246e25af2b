"""What placement learns from: how attempts went, appended by the journal, read by whoever learns."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from flexcore.model.observation import Observation


@dataclass(frozen=True, slots=True)
class Observed:
    """Some observations, oldest first; `last` is the position behind which the next ones will be."""

    observations: Sequence[Observation]
    last: int


class Observations(Protocol):
    """The observations of all processes on the store, in the order in which they were committed."""

    async def after(self, position: int, most: int) -> Observed:
        """Give what was appended behind a position (0: from the first), of many the newest. Raises StoreUnavailable."""
        ...
