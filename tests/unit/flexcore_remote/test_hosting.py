"""A served runtime and its fence: what is late starts nothing, two attempts never run, and nothing is left behind."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flexcore.api.remote import hosting as hosted
from flexcore.api.remote.hosting import Hosting, Missing
from flexcore.model.errors import Fenced, RuntimeUnavailable, StoreUnavailable
from flexcore.model.execution import Phase
from flexcore.model.ids import AttemptId, external_name
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    Finished,
    PhaseEntered,
    Runtime,
    Submitted,
)
from flexcore.runtime.wire.requests import FileEntry
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import attempt_id, execution_request
from flexcore.testing.fakes import ScriptedConfig, ScriptedRuntime, World

HERE = "here"


class Unsure(ScriptedRuntime):
    """Cannot tell whether work has ended, or never sees it gone."""

    report = CleanupReport()

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        return self.report


class Queueing(ScriptedRuntime):
    """Says that work waits before it submits it."""

    gate = asyncio.Event()

    async def execute(self, request: ExecutionRequest) -> AsyncIterator[ExecutionEvent]:  # type: ignore[override]
        yield PhaseEntered(Phase.QUEUE, RealClock().now())
        await self.gate.wait()
        async for event in super().execute(request):
            yield event


class Forgetful(ScriptedRuntime):
    """Has calls and no work that lasts, as `function` steps are: told once, forgotten."""

    async def execute(self, request: ExecutionRequest) -> AsyncIterator[ExecutionEvent]:  # type: ignore[override]
        async for event in super().execute(request):
            if isinstance(event, Submitted):
                yield replace(event, handle=replace(event.handle, transient=True))
                continue
            if isinstance(event, Finished):
                self.world.works.clear()
            yield event


def open_hosting(folder: Path, runtime: Runtime) -> Hosting:
    async def create(_installation: str, _folder: Path) -> Runtime:
        return runtime

    return Hosting(create, folder, now=RealClock().now, entropy=lambda: b"01")


@asynccontextmanager
async def hosting(folder: Path, runtime: Runtime) -> AsyncIterator[Hosting]:
    opened = open_hosting(folder, runtime)
    try:
        yield opened
    finally:
        await opened.close()


def scripted(kind: type[ScriptedRuntime] = ScriptedRuntime) -> ScriptedRuntime:
    return kind(World(RealClock()), HERE, ScriptedConfig())


def attempt(number: int) -> ExecutionRequest:
    return execution_request(id=attempt_id(number=number), token=number, grace=timedelta(0))


async def ran(to: Hosting, request: ExecutionRequest, *files: FileEntry) -> list[ExecutionEvent | Missing]:
    return [event async for event in to.execute(HERE, request, files)]


def work_folders(folder: Path) -> list[str]:
    return [each.name for each in (folder / "installations" / HERE / "work").glob("*")]


async def test_a_call_that_comes_after_the_cleanup_leaves_no_folder(tmp_path: Path) -> None:
    async with hosting(tmp_path, scripted()) as there:
        await there.cleanup(HERE, AttemptScope(id=attempt(1).id))

        with pytest.raises(Fenced):
            await ran(there, attempt(1))

    assert work_folders(tmp_path) == []


async def test_who_asks_with_a_handle_after_the_cleanup_leaves_no_folder_and_brings_no_files(tmp_path: Path) -> None:
    async with hosting(tmp_path, scripted()) as there:
        told = await ran(there, attempt(1))
        assert isinstance(told[0], Submitted)
        await there.cleanup(HERE, AttemptScope(id=attempt(1).id))

        events = await ran(there, replace(attempt(1), handle=told[0].handle), FileEntry("a", "sha256-" + "0" * 64))

    assert isinstance(events[-1], Finished)
    assert work_folders(tmp_path) == []


@pytest.mark.parametrize(
    "report",
    [CleanupReport(unknown={"fx-a": "the line is dead"}), CleanupReport(pending=frozenset({"fx-a"}))],
    ids=["unknown", "never gone"],
)
async def test_nothing_begins_beside_an_older_attempt_that_may_be_there(
    tmp_path: Path, report: CleanupReport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hosted, "_MARGIN", timedelta(seconds=0.1))
    runtime = scripted(Unsure)
    runtime.report = report  # type: ignore[attr-defined]
    async with hosting(tmp_path, runtime) as there:
        await ran(there, attempt(1))

        for _ in range(2):
            with pytest.raises(RuntimeUnavailable, match="newer one"):
                await ran(there, attempt(2))

    assert started(runtime) == [attempt(1).id]


async def test_what_is_cleaned_up_while_it_waits_in_a_queue_is_not_submitted(tmp_path: Path) -> None:
    runtime = scripted(Queueing)
    async with hosting(tmp_path, runtime) as there:
        events = there.execute(HERE, attempt(1), ())
        assert isinstance(await anext(events), PhaseEntered)
        await there.cleanup(HERE, AttemptScope(id=attempt(1).id))
        Queueing.gate.set()

        with pytest.raises(Fenced, match="while it was starting"):
            await anext(events)

    assert runtime.world.works[external_name(HERE, attempt(1).id)].result is not None
    assert work_folders(tmp_path) == []


async def test_what_a_server_that_died_left_half_is_removed_by_the_next(tmp_path: Path) -> None:
    half = tmp_path / "installations" / HERE / "work" / ".new-half"
    half.mkdir(parents=True)

    async with hosting(tmp_path, scripted()) as there:
        await ran(there, attempt(1))

    assert ".new-half" not in work_folders(tmp_path)


async def test_two_calls_for_one_attempt_are_one_work(tmp_path: Path) -> None:
    runtime = scripted()
    async with hosting(tmp_path, runtime) as there:
        both = await asyncio.gather(ran(there, attempt(1)), ran(there, attempt(1)))

    handles = {each.handle.identity for events in both for each in events if isinstance(each, Submitted)}
    assert len(handles) == 1
    assert len(runtime.world.works) == 1


async def test_the_end_of_a_call_that_the_runtime_forgets_is_told_again_until_the_cleanup(tmp_path: Path) -> None:
    runtime = scripted(Forgetful)
    async with hosting(tmp_path, runtime) as there:
        first = await ran(there, attempt(1))
        again = await ran(there, attempt(1))
        assert isinstance(first[0], Submitted) and first[0].handle.transient
        adopted = await ran(there, replace(attempt(1), handle=first[0].handle))
        await there.cleanup(HERE, AttemptScope(id=attempt(1).id))
        with pytest.raises(Fenced):
            await ran(there, attempt(1))

    assert [each[-1] for each in (again, adopted)] == [first[-1]] * 2
    assert started(runtime) == []  # forgotten, and not begun a second time


async def test_a_folder_that_cannot_be_used_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(StoreUnavailable, match="cannot be made"):
        open_hosting(tmp_path / "file" / "served", scripted())


async def test_a_full_disk_is_no_failure_of_the_step(tmp_path: Path) -> None:
    async with hosting(tmp_path, scripted()) as there:
        await ran(there, attempt(1))
        (tmp_path / "installations" / HERE / "work").rename(tmp_path / "moved")
        (tmp_path / "installations" / HERE / "work").touch()  # no folder can be made any more

        with pytest.raises(StoreUnavailable, match="laid out"):
            await ran(there, replace(attempt(1), id=attempt_id("other")))


def started(runtime: ScriptedRuntime) -> list[AttemptId]:
    return [each.attempt for each in runtime.world.works.values()]
