"""When a job that is over is deleted: not before Ray has let go of it, and once more where that could not be known."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from flexcore_ray import removing
from flexcore_ray.client import Address, Dashboard, Job
from flexcore_ray.removing import Removals

from flexcore.model.errors import RuntimeUnavailable

NOW = datetime(2030, 1, 1, tzinfo=UTC)
OVER = Job(id="fx-a", status="SUCCEEDED", metadata={"a": "b"}, ended_at=NOW)
TRACE = {"submission_id": "fx-a", "status": "FAILED", "metadata": None, "entrypoint": "Entrypoint not found."}


class Ray(Dashboard):
    """A cluster that notes that it is done with the job at the look of that number, and may write it down again."""

    def __init__(self, *, notes_at: int | None = 2, comes_back: bool = False) -> None:
        super().__init__(Address("http://nowhere"), 1)
        self.done: list[str] = []
        self._notes_at, self._comes_back = notes_at, comes_back

    async def is_done_with(self, name: str) -> bool:
        self.done.append("look")
        return self.done.count("look") == self._notes_at

    async def delete(self, name: str) -> None:
        self.done.append("delete")

    async def job(self, name: str) -> Job | None:
        return Job.of(TRACE) if self._comes_back and self.done.count("delete") == 1 else None


async def read(name: str) -> None:
    """Nobody reads."""


async def removed(ray: Any, job: Job = OVER) -> Sequence[str]:
    removals = Removals(read)
    removals.begin(ray, job, NOW)
    assert removals.names == {"fx-a"}
    await removals.over("fx-a")
    assert removals.names == frozenset()
    done: Sequence[str] = ray.done
    return done


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, seconds in {"_LOOK_S": 0.01, "_LETS_GO_S": 30, "_COMES_BACK_S": 30}.items():
        monkeypatch.setattr(removing, name, seconds)


async def test_a_job_is_deleted_once_ray_has_let_go_of_it() -> None:
    assert await removed(Ray()) == ["look", "look", "delete"]


async def test_what_came_back_of_a_job_is_deleted_too(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, loop = Ray(notes_at=None, comes_back=True), asyncio.get_running_loop()
    time = loop.time
    monkeypatch.setattr(loop, "time", lambda: time() + 20 * ray.done.count("look"))  # the second look is the last

    assert await removed(ray) == ["look", "look", "delete", "delete"]


async def test_a_job_that_ended_long_ago_is_deleted_at_once() -> None:
    old = Job(id="fx-a", status="FAILED", ended_at=NOW - timedelta(hours=1))

    assert await removed(Ray(), old) == ["delete"]


async def test_a_cluster_that_cannot_be_reached_keeps_its_record() -> None:
    class Away(Ray):
        async def is_done_with(self, name: str) -> bool:
            raise RuntimeUnavailable("away")

    assert await removed(Away()) == []


async def test_closing_waits_for_what_is_under_way_and_no_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    ray, removals = Ray(), Removals(read)
    removals.begin(ray, OVER, NOW)
    await removals.close()
    assert ray.done[-1] == "delete"

    monkeypatch.setattr(removing, "_CLOSE_S", 0.02)
    slow, removals = Ray(notes_at=None), Removals(read)
    removals.begin(slow, OVER, NOW)
    await removals.close()
    assert "delete" not in slow.done
    assert removals.names == frozenset()


def test_a_trace_is_told_from_a_job_that_failed() -> None:
    trace = Job.of(TRACE)
    failed = Job.of({**TRACE, "metadata": {"flexcore.installation": "i"}, "entrypoint": "exec python3"})
    strange = Job.of({**TRACE, "entrypoint": "sleep 100"})

    assert trace is not None
    assert failed is not None
    assert strange is not None
    assert [trace.is_trace, failed.is_trace, strange.is_trace] == [True, False, False]


async def test_a_connection_that_was_closed_is_no_mistake_of_the_adapter() -> None:
    dashboard = Dashboard(Address("http://127.0.0.1:9"), 1)
    await dashboard.close()

    with pytest.raises(RuntimeUnavailable):
        await dashboard.version()
