"""What others want of an execution reaches its owner: by polling the store, often enough and once."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import cast

import pytest

from flexcore.engine.loop import Engine
from flexcore.engine.services.commands import CommandService
from flexcore.model.errors import NotFound
from flexcore.model.ids import ExecutionId
from flexcore.store.sqlite import Store, open_store
from flexcore.testing.store_samples import Story, now


class Open:
    """The executions that are open here; notes what is to be cancelled, and by which command."""

    def __init__(self, *executions: ExecutionId) -> None:
        self.executions = set(executions)
        self.cancelled: list[tuple[ExecutionId, str, int | None]] = []

    def cancel(self, id: ExecutionId, reason: str, command: int | None = None) -> None:
        if id not in self.executions:
            raise NotFound(f"execution {id} is not open in this process")
        self.cancelled.append((id, reason, command))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path, now=now)
    await opened.ownership.acquire()
    yield opened
    await opened.ownership.release()
    opened.close()


@pytest.fixture
async def neighbour(tmp_path: Path, store: Store) -> AsyncIterator[Store]:
    """The same store, as another process has it open."""
    opened = open_store(tmp_path, now=now)
    yield opened
    opened.close()


async def begun(store: Store) -> ExecutionId:
    story = Story()
    await store.journal.commit(story.begin())
    return story.id


def service(engine: Open, store: Store) -> CommandService:
    return CommandService(cast(Engine, engine), store.journal)


async def test_a_round_posts_what_another_process_has_sent_and_each_command_once(
    store: Store, neighbour: Store
) -> None:
    id = await begun(store)
    engine = Open(id)
    commands = service(engine, store)
    posted = [await commands.run_once()]

    sent = await neighbour.commands.send(id, "cancel", {"reason": "enough"}, now())
    posted += [await commands.run_once(), await commands.run_once()]
    await neighbour.commands.send(id, "cancel", {}, now())  # the first one has not been answered yet
    posted.append(await commands.run_once())

    assert posted == [0, 1, 0, 1]
    assert engine.cancelled[0] == (id, "enough", sent)


async def test_a_command_for_what_is_just_being_taken_over_is_posted_afterwards(store: Store, neighbour: Store) -> None:
    id, engine = await begun(store), Open()
    commands = service(engine, store)
    await neighbour.commands.send(id, "cancel", {}, now())
    before = await commands.run_once()

    engine.executions.add(id)
    after = await commands.deliver()

    assert (before, after) == (0, 1)


def test_a_cancel_is_heard_within_two_seconds(store: Store) -> None:
    assert service(Open(), store).interval <= timedelta(seconds=1)
