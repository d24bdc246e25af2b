"""Reading what was observed, and putting together what placement reads."""

from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from structlog.testing import capture_logs

from flexcore.analyzer.predict import NOTHING_LEARNED, Model
from flexcore.analyzer.snapshot import Load
from flexcore.model.errors import StoreUnavailable
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.observation import Observation
from flexcore.model.pools import Party, PoolView
from flexcore.model.workflow import StepKind
from flexcore.monitor.learning import Learning
from flexcore.monitor.load import Gauge, loads
from flexcore.monitor.lookout import Lookout
from flexcore.runtime.candidate import Candidate
from flexcore.runtime.interface import Health
from flexcore.store.observations import Observed
from flexcore.testing.factories import capabilities, health_status
from flexcore.testing.store_suite_learning import observation

AT = datetime(2026, 11, 1, tzinfo=UTC)


def runs(model: Model) -> int:
    """Count what was learned of `etl/load` on `local`."""
    return model.outlook("etl/load", "python", "local").n


@dataclass
class Written:
    """Observations that others append; `asked` has the limits of the reads."""

    rows: list[Observation] = field(default_factory=list)
    broken: bool = False
    asked: list[int] = field(default_factory=list)

    async def after(self, position: int, most: int) -> Observed:
        self.asked.append(most)
        if self.broken:
            raise StoreUnavailable("the disk is gone")
        return Observed(self.rows[position:][-most:], len(self.rows))


async def test_reading_on_comes_to_what_reading_anew_does() -> None:
    written = Written([observation(run_s=1 + number) for number in range(3)])
    going_on = Learning(written)
    await going_on.refresh()
    written.rows += [observation("etl/other"), observation(run_s=9)]
    await going_on.refresh()

    anew = Learning(written)
    await anew.refresh()

    assert going_on.model == anew.model != NOTHING_LEARNED
    assert runs(going_on.model) == 4


async def test_a_store_that_cannot_be_read_teaches_nothing_until_it_can() -> None:
    written = Written([observation()])
    learning = Learning(written)
    await learning.refresh()
    before = learning.model

    written.broken = True
    await learning.refresh()
    meanwhile = learning.model
    written.broken = False
    await learning.refresh()

    assert meanwhile is NOTHING_LEARNED
    assert learning.model == before


async def test_much_is_read_at_first_and_little_after_that() -> None:
    written = Written([observation()])
    learning = Learning(written, 2000)

    await learning.refresh()
    await learning.refresh()

    assert written.asked == [2000, 500]


def lookout(written: Written, *kinds: tuple[StepKind, ...]) -> Lookout:
    found = tuple(
        Candidate(name=f"r{number}", kind="r", capabilities=capabilities(*each)) for number, each in enumerate(kinds)
    )

    async def ask(patience: timedelta | None) -> tuple[Candidate, ...]:
        return found

    async def load() -> Mapping[str, Load]:
        raise StoreUnavailable("the disk is gone")

    down = tuple(
        Candidate(
            name=each.name, kind="r", health=health_status(Health.DOWN, "it burns"), capabilities=each.capabilities
        )
        for each in found
    )
    return Lookout(
        candidates=ask, known=lambda: down, loads=load, prices={"r0": 2.0}, learning=Learning(written), now=lambda: AT
    )


async def test_nothing_is_read_as_long_as_it_could_change_nothing() -> None:
    written = Written([observation()])
    alone = lookout(written, (StepKind.PYTHON,), (StepKind.SINGER,))

    await alone.look()
    unread = list(written.asked)
    seen = await alone.look(in_full=True)

    assert unread == []
    assert runs(seen.model) == 1


async def test_a_snapshot_has_what_was_learned_prices_and_whatever_load_is_known() -> None:
    competing = lookout(Written([observation()]), (StepKind.PYTHON,), (StepKind.PYTHON, StepKind.BASH))

    snapshot = await competing.look()
    again = competing.again(snapshot)
    await competing.close()

    assert runs(snapshot.model) == 1
    assert snapshot.prices == {"r0": 2.0}
    assert snapshot.loads == {"r0": Load(warm=False), "r1": Load(warm=False)}
    assert [each.health and each.health.state for each in again.candidates] == [Health.DOWN, Health.DOWN]
    assert again.model is snapshot.model


async def test_an_instance_is_warm_for_a_while_after_an_attempt() -> None:
    lately = observation()._replace(runtime="r1", at=AT - timedelta(minutes=9))
    competing = lookout(Written([lately]), (StepKind.PYTHON,), (StepKind.PYTHON,))

    snapshot = await competing.look()
    competing.now = lambda: AT + timedelta(minutes=1)
    later = await competing.look()
    await competing.close()

    assert {name: load.warm for name, load in snapshot.loads.items()} == {"r0": False, "r1": True}
    assert {name: load.warm for name, load in later.loads.items()} == {"r0": False, "r1": False}


async def test_when_learning_begins_to_rest_somebody_is_told_once() -> None:
    written = Written([observation()._replace(score=20.0, rule_score=5.0)] * 30)
    learning = Learning(written)

    with capture_logs() as logged:
        await learning.refresh()
        written.rows.append(observation())
        await learning.refresh()

    assert [each["event"] for each in logged] == ["learning.rests"]


async def test_load_is_counted_here_and_read_from_the_store_where_places_are_limited() -> None:
    told: list[str] = []
    gauge = Gauge(changed=lambda: told.append("changed"))
    gauge.attempt_started("local", StepKind.PYTHON)
    gauge.attempt_started("ray", StepKind.PYTHON)
    gauge.attempt_started("done", StepKind.PYTHON)
    gauge.attempt_finished("done", StepKind.PYTHON, "succeeded", 1.0)

    def pools(names: Any) -> Awaitable[Mapping[str, PoolView]]:
        waiting = (Party(ExecutionId("exe_1"), StepPath("a")),)

        async def found() -> Mapping[str, PoolView]:
            return {name: PoolView(held=3, waiting=waiting) for name in names}

        return found()

    assert await loads(gauge, {"ray": 4}, pools) == {
        "local": Load(running=1),
        "ray": Load(running=3, queued=1, slots=4),
    }
    assert told == []


async def test_a_runtime_that_changes_is_told_of_at_once() -> None:
    told: list[str] = []
    gauge = Gauge(changed=lambda: told.append("changed"))
    gauge.attempt_started("ray", StepKind.PYTHON)

    gauge.attempt_finished("ray", StepKind.PYTHON, "unavailable", 1.0)
    gauge.health_changed("ray", health_status(Health.DOWN))

    assert told == ["changed", "changed"]
