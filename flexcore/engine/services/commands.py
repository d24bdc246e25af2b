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
    _posted: int = 0  # ids up to here have been posted in this process
    _looked: bool = False

    async def run_once(self) -> int:
        """Look once; give how many commands were posted. Asks the store only when it has changed."""
        if self._looked and not await self.journal.changed():
            return 0
        self._looked = True
        commands = [each for each in await self.journal.commands() if each.id > self._posted]
        for command in commands:
            self._post(command)
            self._posted = max(self._posted, command.id)
        return len(commands)

    def _post(self, command: Command) -> None:
        body = command.body
        reason = body.get("reason", "") if isinstance(body, dict) else ""
        try:
            self.engine.cancel(command.execution, str(reason), command.id)
        except NotFound:
            return  # it has just ended: there is nothing left to want of it
