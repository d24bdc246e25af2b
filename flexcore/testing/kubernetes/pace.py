"""The time that the cluster's own delays take: scaled, so that tests do not wait; never the order of things."""

import asyncio
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """How fast the cluster's own delays pass; what users ask for in seconds is kept as it is."""

    scale: float

    def scaled(self, seconds: float) -> float:
        """Give what such a delay takes here."""
        return seconds * self.scale

    async def rest(self, seconds: float) -> None:
        """Let such a delay pass."""
        await asyncio.sleep(self.scaled(seconds))
