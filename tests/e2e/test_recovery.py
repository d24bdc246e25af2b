"""After a crash: whatever can go on goes on, and nothing stays behind that nobody will ask for."""

import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e.embedded import Plane, plane, statuses
from e2e.moved_clock import MovedClock

from flexcore.engine.services.sweep import SweepService
from flexcore.model.changes import HistoryEntry
from flexcore.model.errors import NotFound, StoreUnavailable
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import AttemptId, ExecutionId, StepPath, external_name
from flexcore.runtime.interface import AttemptScope, CleanupReport, CleanupScope, ExecutionScope, Survey
from flexcore.store.write import Journal

WAITS = "name: waits\nsteps:\n  - {id: a, type: wait, with: {for: 1h}}\n"
TELLS = "name: tells\nsteps:\n  - {id: a, type: bash, with: {script: 'echo $1', args: ['${{ secrets.WORD }}']}}\n"
WORD = "open-sesame-4711"

DAMAGE = {
    "that is no text of ours": "UPDATE history SET body = '{' WHERE execution = ? AND seq = 3",
    "that does not fit": 'UPDATE history SET body = replace(body, \'"path":"a"\', \'"path":"b"\') '
    "WHERE execution = ? AND seq >= 3",
    "that is gone": "DELETE FROM history WHERE execution = ?",
}


def damage(folder: Path, statement: str, id: ExecutionId) -> None:
    connection = sqlite3.connect(folder / ".flexcore" / "flexcore.db")
    with connection:
        for (trigger,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall():
            connection.execute(f"DROP TRIGGER {trigger}")
        assert connection.execute(statement, (id,)).rowcount > 0
    connection.close()


def files_with(folder: Path, text: str) -> list[Path]:
    return [each for each in folder.rglob("*") if each.is_file() and text.encode() in each.read_bytes()]


def attempts_in(folder: Path) -> list[Path]:
    return list((folder / ".flexcore" / "runtimes" / "local" / "attempts").iterdir())


async def until_running(here: Plane, id: ExecutionId, path: str) -> None:
    async for _ in here.installation.control_plane.watch(id):
        state = (await here.installation.store.reader.execution(id)).state
        if (step := state.steps.get(StepPath(path))) is not None and step.handle is not None:
            return


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return MovedClock(monkeypatch)


@pytest.mark.parametrize("row", DAMAGE)
async def test_a_bad_row_stops_the_recovery_of_its_own_execution_only(tmp_path: Path, row: str) -> None:
    waits = "until [ -e go ]; do sleep 0.02; done; echo 1"
    bash = f"name: w\nsteps:\n  - {{id: a, type: bash, with: {{script: '{waits}'}}}}\n"
    async with plane(tmp_path) as before:
        ids = [await before.start(bash) for _ in range(2)]  # as many as run at a time on the smallest machine
        for id in ids:
            await until_running(before, id, "a")
    damage(tmp_path, DAMAGE[row], ids[0])

    async with plane(tmp_path) as here:
        rescued = await here.installation.control_plane.resume()
        (tmp_path / "go").touch()
        ended = await here.finish(ids[1])
        again = await here.installation.control_plane.resume()

    assert rescued == [ids[1]]
    assert ended["status"] == "succeeded"
    assert again == []


class Failing:
    """A journal that cannot read some executions a few times, with all the rest of the real one."""

    def __init__(self, journal: Journal, times: dict[ExecutionId, int]) -> None:
        self._journal = journal
        self._times = times

    async def history(self, id: ExecutionId) -> Sequence[HistoryEntry]:
        if self._times.get(id, 0):
            self._times[id] -= 1
            raise StoreUnavailable("the disk sleeps")
        return await self._journal.history(id)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


async def test_what_the_store_could_not_give_is_adopted_in_a_later_round(tmp_path: Path, clock: MovedClock) -> None:
    async with plane(tmp_path) as before:
        ids = [await before.start(WAITS) for _ in range(2)]

    async with plane(tmp_path) as here:
        rescue = here.installation.control_plane.rescue
        rescue.journal = Failing(rescue.journal, {ids[0]: 1})
        rounds = [await rescue.run_once() for _ in range(3)]
        clock.move(timedelta(hours=1))
        ended = [await here.finish(id) for id in ids]

    assert rounds == [[ids[1]], [ids[0]], []]
    assert [each["status"] for each in ended] == ["succeeded", "succeeded"]


async def test_a_round_that_breaks_off_after_the_taking_is_made_up_for(tmp_path: Path, clock: MovedClock) -> None:
    async with plane(tmp_path) as before:
        id = await before.start(WAITS)

    async def not_ready() -> None:
        raise StoreUnavailable("not yet")

    async with plane(tmp_path) as here:
        rescue = here.installation.control_plane.rescue
        ready, rescue.ready = rescue.ready, not_ready
        with pytest.raises(StoreUnavailable):
            await rescue.run_once()
        rescue.ready = ready

        assert await rescue.run_once() == [id]
        clock.move(timedelta(hours=1))
        assert (await here.finish(id))["status"] == "succeeded"


async def test_a_rescue_leaves_alone_what_this_process_runs_itself(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        id = await here.start(WAITS)
        live = here.installation.engine.live[id]

        assert await here.installation.control_plane.resume() == []
        assert here.installation.engine.live[id] is live


async def test_a_command_is_delivered_though_the_store_failed_when_it_came(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        id = await here.start("name: w\nsteps:\n  - {id: a, type: wait, with: {for: 1h}}\n")
        service = here.installation.control_plane.command_service
        real, times = service.journal.commands, iter([True, False])

        async def commands() -> Any:
            if next(times, False):
                raise StoreUnavailable("the disk sleeps")
            return await real()

        service.journal.commands = commands  # type: ignore[method-assign]
        await here.installation.store.commands.send(id, "cancel", {}, here.installation.control_plane.now())

        assert (await here.finish(id))["status"] == "cancelled"


async def test_what_a_crash_left_of_a_finished_attempt_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEXCORE_SECRET_WORD", WORD)
    async with plane(tmp_path) as before:
        monkeypatch.setattr(before.installation.engine._performer, "_forget", lambda *_: None)
        document = await before.execute(TELLS)
    left = files_with(tmp_path, WORD)

    async with plane(tmp_path) as here:
        await here.installation.control_plane.resume()

    assert statuses(document) == {"a": "succeeded"}
    assert left != []
    assert files_with(tmp_path, WORD) == []
    assert attempts_in(tmp_path) == []


async def test_an_attempt_of_an_execution_that_is_gone_is_ended(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        id = await here.start("name: w\nsteps:\n  - {id: a, type: bash, with: {script: 'sleep 60'}}\n")
        await until_running(here, id, "a")
        attempt = AttemptId(id, StepPath("a"), 1)
        here.installation.engine.live.pop(id).let_go()
    damage(tmp_path, "DELETE FROM executions WHERE id = ?", id)

    async with plane(tmp_path) as here:
        gone = await here.installation.control_plane.sweep.run_once()

    assert gone == [attempt]
    assert attempts_in(tmp_path) == []


async def test_what_is_in_flight_is_not_touched_by_a_sweep(tmp_path: Path) -> None:
    async with plane(tmp_path) as here, plane(tmp_path) as neighbour:
        id = await here.start("name: w\nsteps:\n  - {id: a, type: bash, with: {script: 'sleep 0.5; echo 7'}}\n")
        await until_running(here, id, "a")

        assert await here.installation.control_plane.sweep.run_once() == []
        assert await neighbour.installation.control_plane.sweep.run_once() == []
        assert (await here.finish(id))["output"] == 7


class Shelf:
    """A runtime that only lists what it was given, and notes what it is told to end."""

    name = "shelf"

    def __init__(self, there: dict[str, AttemptId], executions: Iterable[ExecutionId] = ()) -> None:
        self.there = there
        self.executions = frozenset(executions)
        self.retained: frozenset[str] = frozenset()
        self.asked: list[CleanupScope] = []

    @property
    def names(self) -> tuple[str, ...]:
        return ("shelf",)

    def get(self, name: str) -> Any:
        return self

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        if isinstance(scope, Survey):
            kept = {"executions": self.executions, "retained": self.retained}
            return CleanupReport(pending=frozenset(self.there), attempts=self.there, **kept)
        self.asked.append(scope)
        return CleanupReport()


async def test_neither_a_neighbours_work_nor_what_cannot_be_judged_is_swept() -> None:
    attempts = [AttemptId(ExecutionId(f"exe_{each}"), StepPath("a"), 1) for each in range(3)]
    owners = ["here", "there", "here"]
    shelf = Shelf({external_name(*each): each[1] for each in zip(owners, attempts, strict=True)})

    async def state_of(id: ExecutionId) -> ExecutionState:
        raise StoreUnavailable("the disk sleeps")

    swept = await SweepService(shelf, state_of, "here", timedelta(hours=1)).run_once()

    assert swept == []
    assert shelf.asked == []


async def test_what_is_kept_between_attempts_goes_once_no_attempt_can_follow(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        over = await here.start("name: over\nsteps: [{id: a, type: bash, with: {script: 'exit 1'}}]\n")
        await here.finish(over)
        running = await here.start("name: runs\nsteps: [{id: a, type: wait, with: {for: 1h}}]\n")
        deleted = ExecutionId("exe_nobody_knows")
        shelf = Shelf({}, [over, running, deleted])

        async def state_of(id: ExecutionId) -> ExecutionState:
            return (await here.installation.store.reader.execution(id)).state

        await SweepService(shelf, state_of, "here", timedelta(hours=1)).run_once()

    assert shelf.asked == [ExecutionScope(execution=id, grace=timedelta(0)) for id in sorted([over, deleted])]


async def test_orphans_are_listed_before_they_are_removed_and_what_is_meant_to_stay_stays(tmp_path: Path) -> None:
    attempt = AttemptId(ExecutionId("exe_nobody_knows"), StepPath("a"), 1)
    name, served = external_name("here", attempt), external_name("here", replace(attempt, path=StepPath("serve")))
    shelf = Shelf({name: attempt, served: replace(attempt, path=StepPath("serve"))})
    shelf.retained = frozenset({served})
    sweep = SweepService(shelf, unknown, "here", timedelta(hours=1))

    found = await sweep.sweep("shelf", dry_run=True)

    assert ([each.name for each in found.orphans], found.gone, found.retained) == ([name], [], [served])
    assert shelf.asked == []

    swept = await sweep.sweep("shelf")

    assert swept.gone == [attempt]
    assert shelf.asked == [AttemptScope(id=attempt, grace=timedelta(0))]


async def unknown(id: ExecutionId) -> ExecutionState:
    raise NotFound(f"no execution {id}")
