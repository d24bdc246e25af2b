"""What would have to change: every statement is verified by making the change and placing again."""

from dataclasses import replace

import pytest
from unit.analyzer.learned_cases import STEP, able, candidate, random_answers, seen

from flexcore.analyzer.flips import Change, Flip, changed, flips
from flexcore.analyzer.place import place
from flexcore.analyzer.predict import Model
from flexcore.analyzer.snapshot import Load, Snapshot
from flexcore.analyzer.view import Measured, Source
from flexcore.runtime.interface import Health


def sized() -> Snapshot:
    """Meltano starts at once, Ray is ten times as fast."""
    runs = [
        seen(name, seconds * size / 10**8, size, start=start)
        for size in (10**8, 10**9, 10**10)
        for name, seconds, start in (("meltano", 2.0, 0.1), ("ray", 0.2, 30.0))
    ]
    return able(Model().observed(runs * 5), ("meltano", "ray"))


def of(found: tuple[Flip, ...], change: Change, runtime: str = "") -> Flip:
    return next(each for each in found if each.change is change and each.runtime == runtime)


@pytest.mark.parametrize("count", [80, pytest.param(1_000, marks=pytest.mark.campaign)])
def test_every_statement_is_true(count: int) -> None:
    verified = 0
    for step, snapshot, policy, placement in random_answers(seed=count, snapshots=count, steps=1):
        for flip in flips(step, snapshot, policy):
            there = place(*changed(step, snapshot, flip, flip.value), policy)
            here = place(*changed(step, snapshot, flip, flip.before), policy)

            assert there.chosen == flip.chosen != placement.chosen, flip
            assert here.chosen == placement.chosen, flip
            verified += 1
        if verified >= count:
            return

    raise AssertionError(f"only {verified} statements")


def test_the_size_from_which_another_runtime_wins_is_found_to_the_byte() -> None:
    step = replace(STEP, data=Measured(10**8, Source.MEASURED))
    flip = of(flips(step, sized()), Change.DATA_SIZE)

    assert flip.chosen == "ray"
    assert isinstance(flip.before, int) and flip.value == flip.before + 1
    assert flip.text.startswith("ray wins above 1") and flip.text.endswith("GB of input")


def test_the_queue_that_would_have_to_drop_is_found() -> None:
    runs = [seen(name, seconds) for _ in range(10) for name, seconds in (("meltano", 100), ("ray", 20))]
    busy = replace(able(Model().observed(runs), ("meltano", "ray")), loads={"ray": Load(queued=40, running=4, slots=4)})
    flip = of(flips(STEP, busy), Change.QUEUE, "ray")

    assert (flip.chosen, flip.text) == ("ray", f"ray wins if the queue of ray drops to {flip.value}")


def test_a_price_that_would_decide_is_found() -> None:
    runs = [seen(name, seconds) for _ in range(10) for name, seconds in (("meltano", 100), ("ray", 90))]
    snapshot = replace(able(Model().observed(runs), ("meltano", "ray")), prices={"ray": 0.5})

    assert of(flips(STEP, snapshot), Change.PRICE, "ray").chosen == "meltano"


def test_health_decides_for_the_rules_too() -> None:
    down = replace(
        able(names=("meltano", "ray")),
        candidates=(candidate("meltano", Health.DOWN), candidate("ray")),
    )
    found = flips(replace(STEP, signature=""), down)

    assert of(found, Change.HEALTH, "meltano").text == "meltano wins if meltano is degraded"
    assert of(found, Change.HEALTH, "ray").text == "nothing can run it if ray is down"
