"""A sub-workflow's execution that another process owns is ended by a durable word to that process."""

import asyncio
from typing import cast

from flexcore.engine.actions import Performer
from flexcore.engine.attempts import Driver
from flexcore.engine.live import Live
from flexcore.engine.work import CancelChild, StartChild
from flexcore.model.errors import NotFound, StoreUnavailable
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import ExecutionId

CHILD = ExecutionId("exe_child")


class Elsewhere:
    """Children that this process does not own; the store is busy for the first request."""

    def __init__(self) -> None:
        self.asked: list[ExecutionId] = []

    async def ensure_child(self, live: Live, action: StartChild) -> Live | ExecutionState:
        raise AssertionError("nobody wants a child")

    def cancel(self, id: ExecutionId, reason: str) -> None:
        raise NotFound(f"execution {id} is not open in this process")

    async def ask_to_cancel(self, id: ExecutionId, reason: str) -> None:
        self.asked.append(id)
        if len(self.asked) == 1:
            raise StoreUnavailable("busy")


async def test_a_child_that_another_process_owns_is_asked_to_end_until_that_is_written_down() -> None:
    children, tasks = Elsewhere(), list[asyncio.Task[None]]()

    def spawn(work: object) -> asyncio.Task[None]:
        tasks.append(asyncio.ensure_future(work))  # type: ignore[arg-type]  # whatever a performer runs
        return tasks[-1]

    performer = Performer(cast(Driver, None), children, lambda live, event: None, spawn)
    performer.perform(cast(Live, None), CancelChild(CHILD))
    await asyncio.gather(*tasks)

    assert children.asked == [CHILD, CHILD]
