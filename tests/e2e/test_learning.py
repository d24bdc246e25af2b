"""What a control plane learns from its own runs: placement moves to where steps end sooner, says so, and keeps it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from flexcore.bootstrap import opened
from flexcore.model.errors import StoreUnavailable
from flexcore.model.execution import Phase
from flexcore.runtime import registry
from flexcore.settings import RuntimeSettings, load
from flexcore.testing.fakes import World, scripted_plugin
from tests.e2e.embedded import Plane, step_of
from tests.e2e.moved_clock import MovedClock

WORK = """
name: scoring
steps:
  - {id: score, type: http, with: {delay_s: 10, output: {n: 3}}}
"""


class ScaledClock:
    """Everything takes so many times as long, and nobody waits for it: the clock of the machine is set on."""

    def __init__(self, machine: MovedClock, factor: float) -> None:
        self._machine = machine
        self._factor = factor

    def now(self) -> datetime:
        """Give the time of the machine."""
        return self._machine.now()

    async def sleep(self, delay: timedelta) -> None:
        """Let so much time be over."""
        self._machine.move(delay * self._factor)


@dataclass(frozen=True)
class Site:
    """A folder in which planes are opened one after the other, each with a slow and a quick runtime."""

    folder: Path
    slow: World
    quick: World

    @asynccontextmanager
    async def plane(self, placement: str = "balanced", **prices: float) -> AsyncIterator[Plane]:
        """Open a plane. `slow` comes first by priority."""
        settings = load(self.folder, environ={}).settings
        runtimes = {
            name: RuntimeSettings(
                type=name, priority=priority, options={"kinds": ["http"]}, price_per_hour=prices.get(name, 0.0)
            )
            for priority, name in enumerate(("slow", "quick"))
        }
        settings = replace(
            settings,
            runtimes=runtimes,
            policy=replace(settings.policy, placement=placement, grace=timedelta(seconds=1)),
        )
        async with opened(settings) as installation:
            yield Plane(installation, self.folder)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    """Install both runtimes as plug-ins."""
    machine = MovedClock(monkeypatch)
    slow, quick = World(ScaledClock(machine, 10)), World(ScaledClock(machine, 1))
    plugins = {"slow": lambda: scripted_plugin(slow, "slow"), "quick": lambda: scripted_plugin(quick, "quick")}
    monkeypatch.setattr(registry, "installed_plugins", lambda: plugins)
    yield Site(tmp_path, slow, quick)
    await slow.close()
    await quick.close()


async def taught(plane: Plane, runs: int = 3) -> None:
    """Run the step on each runtime, and have what came of it learned."""
    for _ in range(runs):
        for runtime in ("slow", "quick"):
            await plane.execute(WORK, runtime=runtime)
    await learned(plane)


async def learned(plane: Plane) -> None:
    """Do what the service does once a second."""
    await plane.installation.control_plane.planner.refresh()


async def test_placement_moves_to_where_the_step_ends_sooner_and_says_why(site: Site) -> None:
    async with site.plane() as plane:
        first = step_of(await plane.execute(WORK), "score")
        await taught(plane)
        document = await plane.execute(WORK)
        explained = await plane.installation.control_plane.explain(document["id"], "score")

    moved = step_of(document, "score")["placement"]
    assert (first["runtime"], first["placement"]["source"]) == ("slow", "rule")
    assert (moved["chosen"], moved["source"], moved["policy"]) == ("quick", "learned", "balanced")
    expected = {each["runtime"]: each["prediction"] for each in moved["candidates"] if each["prediction"]}
    assert expected["quick"]["total"]["p50_s"] < expected["slow"]["total"]["p50_s"]
    assert expected["quick"]["n"] == 3
    assert explained["placement"] == moved
    assert "quick" in explained["sentences"][0]


async def test_what_would_bring_a_step_elsewhere_is_worked_out_on_demand(site: Site) -> None:
    async with site.plane() as plane:
        await taught(plane)
        document = await plane.execute(WORK)
        plain = await plane.installation.control_plane.explain(document["id"], "score")
        explained = await plane.installation.control_plane.explain(document["id"], "score", flips=True)

    assert "flips" not in plain
    down = next(each for each in explained["flips"] if each["change"] == "health" and each["runtime"] == "quick")
    assert down["chosen"] == "slow"
    assert down["text"] == f"slow wins if quick is {down['value']}"


async def test_a_restart_keeps_what_was_learned(site: Site) -> None:
    async with site.plane() as plane:
        await taught(plane)

    async with site.plane() as plane:
        found = step_of(await plane.execute(WORK), "score")["placement"]

    assert (found["chosen"], found["source"]) == ("quick", "learned")


async def test_the_rules_ignore_what_was_learned(site: Site) -> None:
    async with site.plane() as plane:
        await taught(plane)

    async with site.plane("rules") as plane:
        found = step_of(await plane.execute(WORK), "score")["placement"]

    assert (found["chosen"], found["source"]) == ("slow", "rule")


async def test_while_what_was_learned_cannot_be_read_the_rules_decide(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.plane() as plane:
        await taught(plane)

        async def broken(position: int, most: int) -> Any:
            raise StoreUnavailable("the disk is gone")

        learning = plane.installation.control_plane.planner.lookout.learning
        assert learning is not None
        with monkeypatch.context() as patched:
            patched.setattr(learning.observations, "after", broken)
            await learned(plane)
            without = step_of(await plane.execute(WORK), "score")["placement"]
        await learned(plane)
        again = step_of(await plane.execute(WORK), "score")["placement"]

    assert (without["chosen"], without["source"]) == ("slow", "rule")
    assert (again["chosen"], again["source"]) == ("quick", "learned")


async def test_a_bug_in_learning_costs_what_was_learned_and_never_a_step(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, observations: object) -> Any:
        raise ZeroDivisionError

    async with site.plane() as plane:
        monkeypatch.setattr("flexcore.analyzer.predict.Model.observed", broken)
        await taught(plane, runs=1)
        document = await plane.execute(WORK)

    assert step_of(document, "score")["status"] == "succeeded"
    assert step_of(document, "score")["placement"]["source"] == "rule"


async def test_what_a_step_costs_is_estimated_before_and_stored_after(site: Site) -> None:
    async with site.plane(quick=36.0, slow=36.0) as plane:
        await taught(plane)
        document = await plane.execute(WORK)

    step = step_of(document, "score")
    busy = step["phases"]["start_s"] or 0.0
    assert step["usage"]["cost"] == pytest.approx((busy + step["phases"]["run_s"]) / 100)
    [expected] = [each["prediction"] for each in step["placement"]["candidates"] if each["runtime"] == "quick"]
    assert step["placement"]["estimated_cost"] == expected["cost"]
    assert expected["cost"] == pytest.approx((expected["total"]["mean_s"] - expected["wait"]["mean_s"]) / 100)
    assert 0.1 < step["placement"]["estimated_cost"] / step["usage"]["cost"] < 10
    assert document["usage"]["cost"] == step["usage"]["cost"]


async def test_money_decides_where_the_policy_says_so(site: Site) -> None:
    async with site.plane("cheapest", quick=100.0, slow=0.01) as plane:
        await taught(plane)
        found = step_of(await plane.execute(WORK), "score")["placement"]

    assert (found["chosen"], found["source"]) == ("slow", "learned")


async def test_a_plan_shows_what_is_expected(site: Site) -> None:
    async with site.plane() as plane:
        await taught(plane)
        name = await plane.deploy(WORK)
        plan = await plane.installation.control_plane.plan(name)

    (step,) = plan["steps"]
    assert step["placement"]["chosen"] == "quick"
    assert [each["prediction"]["n"] for each in step["placement"]["candidates"] if each["feasible"]] == [3, 3]


async def test_time_in_a_queue_for_places_is_told_apart_from_the_run(site: Site) -> None:
    text = """
name: queued
steps:
  - id: each
    type: foreach
    items: [1, 2]
    parallelism: 2
    steps:
      - {id: score, type: http, runtime: slow, concurrency: {limit: 1}, with: {delay_s: 3}}
"""
    async with site.plane() as plane:
        document = await plane.execute(text)
        store = plane.installation.store
        (one, two) = (await store.observations.after(0, 10)).observations

    queued = sorted(step["phases"]["queue_s"] or 0.0 for step in document["steps"] if step["id"] == "score")
    assert queued[0] == 0
    assert queued[1] >= 30
    assert one.signature == two.signature == "queued/each.score"
    assert two.seconds[Phase.QUEUE] == pytest.approx(queued[1])
