"""Hands the owner what others want of its executions: durable commands, looked for by polling alone."""

from dataclasses import dataclass
from datetime import timedelta

from flexcore.engine.loop import Engine
from flexcore.model.errors import NotFound
from flexcore.store.write import Command, Journal


@dataclass(slots=True)
class CommandService:
    """Posts each command to its execution once; it is consumed with the transition that answers it."""

    engine: Engine
    journal: Journal
    interval: timedelta = timedelta(milliseconds=100)
    _posted: frozenset[int] = frozenset()  # unconsumed commands that were posted in this process
    _looked: bool = False

    async def run_once(self) -> int:
        """Look once, if the store has changed since; give how many commands were posted."""
        if self._looked and not await self.journal.changed():
            return 0
        return await self.deliver()

    async def deliver(self) -> int:
        """Look in any case: after taking over executions, their commands may be as old as one likes."""
        self._looked = False  # if the store fails now, the next round must not wait for another change
        waiting = await self.journal.commands()
        fresh = [each for each in waiting if each.id not in self._posted]
        posted = [each.id for each in fresh if self._post(each)]
        self._posted = frozenset(each.id for each in waiting) & (self._posted | set(posted))
        self._looked = True
        return len(posted)

    def _post(self, command: Command) -> bool:
        body = command.body
        reason = body.get("reason", "") if isinstance(body, dict) else ""
        try:
            self.engine.cancel(command.execution, str(reason), command.id)
        except NotFound:
            return False  # it has just ended, or is just being taken over
        return True
