"""A runtime is told whether it is asked for an attempt for the first time: then there is nothing to look for."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.embedded import Plane

from flexcore.bootstrap import opened
from flexcore.runtime import registry
from flexcore.runtime.interface import ExecutionRequest
from flexcore.settings import RuntimeSettings, load
from flexcore.testing.clock import RealClock
from flexcore.testing.fakes import World, scripted_plugin

WORK = "name: w\nsteps:\n  - {id: a, type: http, retry: {attempts: 2, delay: 10ms}, with: WITH}\n"


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    found = World(RealClock())
    monkeypatch.setattr(registry, "installed_plugins", lambda: {"scripted": lambda: scripted_plugin(found)})
    return found


@asynccontextmanager
async def plane(folder: Path) -> AsyncIterator[Plane]:
    runtimes = {"scripted": RuntimeSettings(type="scripted", options={"kinds": ["http"]})}
    async with opened(replace(load(folder, environ={}).settings, runtimes=runtimes)) as installation:
        yield Plane(installation, folder)


def asked(world: World) -> list[tuple[int, bool]]:
    """Give the number of the attempt and whether it was called fresh, of every call."""
    return [(each.id.number, each.fresh) for _, each in world.calls if isinstance(each, ExecutionRequest)]


async def test_the_first_call_for_each_attempt_is_fresh(world: World, tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        await here.execute(WORK.replace("WITH", "{fail: user}"))

    assert asked(world) == [(1, True), (2, True)]


async def test_a_call_that_follows_one_of_unknown_outcome_is_not(world: World, tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        await here.execute(WORK.replace("WITH", "{unavailable: 1}"))

    assert asked(world) == [(1, True), (1, False)]


async def test_what_another_process_may_have_asked_for_is_not(world: World, tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        id = await here.start(WORK.replace("WITH", "{gate: go}"))
        async for _ in here.installation.control_plane.watch(id):
            if asked(world):
                break
    async with plane(tmp_path) as here:
        await here.installation.control_plane.resume()
        world.open("go")
        await here.finish(id)

    assert asked(world) == [(1, True), (1, False)]
