"""A served runtime and its fence: what is late starts nothing, two attempts never run, and nothing is left behind."""

import asyncio
import hashlib
import os
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from flexcore_local.plugin import PLUGIN as LOCAL

from flexcore.api.remote import hosting as hosted
from flexcore.api.remote.hosting import Hosting, Missing
from flexcore.model.errors import Fenced, RuntimeUnavailable, StoreUnavailable
from flexcore.model.execution import Phase
from flexcore.model.failure import Failure
from flexcore.model.ids import AttemptId, external_name
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    ExecutionScope,
    Failed,
    Finished,
    PhaseEntered,
    Runtime,
    Submitted,
    Survey,
)
from flexcore.runtime.wire.requests import FileEntry
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import attempt_id, execution_request, runtime_context
from flexcore.testing.fakes import ScriptedConfig, ScriptedRuntime, World

HERE = "here"


class Unsure(ScriptedRuntime):
    """Cannot tell whether work has ended, or never sees it gone."""

    report = CleanupReport()

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        return self.report


class Queueing(ScriptedRuntime):
    """Says that work waits before it submits it."""

    def __init__(self) -> None:
        super().__init__(World(RealClock()), HERE, ScriptedConfig())
        self.gate = asyncio.Event()

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


class Refusing(ScriptedRuntime):
    """Refuses the first call once the gate is open, as for want of quota, and every other one at once or never."""

    def __init__(self, *, always: bool) -> None:
        super().__init__(World(RealClock()), HERE, ScriptedConfig())
        self.always = always
        self.gate = asyncio.Event()
        self.calls = 0
        self.arrived = asyncio.Semaphore(0)
        self.seen: list[list[str]] = []

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        self.calls += 1
        self.arrived.release()
        self.seen.append([each.name for each in request.folder.iterdir()])
        if self.calls == 1 or self.always:
            await self.gate.wait()
            yield Finished(ExecutionResult(outcome=Failed(Failure(message="no quota"))))
            return
        async for event in super().execute(request):
            yield event


def open_hosting(folder: Path, runtime: Runtime, later: timedelta = timedelta(0)) -> Hosting:
    async def create(_installation: str, _folder: Path) -> Runtime:
        return runtime

    return Hosting(create, folder, now=lambda: RealClock().now() + later, entropy=lambda: b"01")


@asynccontextmanager
async def hosting(folder: Path, runtime: Runtime, later: timedelta = timedelta(0)) -> AsyncIterator[Hosting]:
    opened = open_hosting(folder, runtime, later)
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


def kept(to: Hosting, *names: str) -> list[FileEntry]:
    """Put files on the shelf, as callers do before they begin."""
    entries = [FileEntry(name, f"sha256-{hashlib.sha256(name.encode()).hexdigest()}") for name in names]
    for each in entries:
        to.shelf.keep(each.digest, each.path.encode())
    return entries


def grown_old(folder: Path, name: str) -> None:
    at = (RealClock().now() - timedelta(days=31)).timestamp()
    os.utime(folder / "installations" / HERE / "work" / name, (at, at))


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
    runtime = Queueing()
    async with hosting(tmp_path, runtime) as there:
        events = there.execute(HERE, attempt(1), ())
        assert isinstance(await anext(events), PhaseEntered)
        await there.cleanup(HERE, AttemptScope(id=attempt(1).id))
        runtime.gate.set()

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


async def test_an_attempt_that_the_runtime_refuses_leaves_nothing_and_is_refused_again(tmp_path: Path) -> None:
    context = runtime_context(tmp_path / "local", clock=RealClock(), installation=HERE)
    refused = replace(attempt(1), kind=StepKind.PYTHON, parameters={"file": "missing.py"})
    async with hosting(tmp_path, LOCAL.create("local", LOCAL.config(), context)) as there:
        files = kept(there, "a", "b")

        answers = [await ran(there, refused, *files) for _ in range(2)]

    assert [[type(each) for each in events] for events in answers] == [[Finished], [Finished]]
    assert answers[0] == answers[1]
    assert work_folders(tmp_path) == []


async def test_the_token_of_a_refused_attempt_goes_in_time(tmp_path: Path) -> None:
    runtime = Refusing(always=True)
    runtime.gate.set()
    async with hosting(tmp_path, runtime) as there:
        await ran(there, attempt(1))
        kept = await there.find(HERE, attempt(1).id)

    async with hosting(tmp_path, runtime, later=timedelta(days=31)) as there:
        assert (kept, await there.find(HERE, attempt(1).id)) == (True, False)
        assert list((tmp_path / "installations" / HERE / "tokens").iterdir()) == []


async def test_the_files_of_a_refused_attempt_are_laid_out_anew_when_it_is_asked_for_again(tmp_path: Path) -> None:
    runtime = Refusing(always=False)
    runtime.gate.set()
    async with hosting(tmp_path, runtime) as there:
        files = kept(there, "a", "b")
        refused = await ran(there, attempt(1), *files)
        left = work_folders(tmp_path)
        accepted = await ran(there, attempt(1), *files)

    assert (len(refused), left) == (1, [])
    assert [sorted(each) for each in runtime.seen] == [["a", "b"]] * 2
    assert isinstance(accepted[0], Submitted)
    assert work_folders(tmp_path) == [external_name(HERE, attempt(1).id)]


async def test_a_call_that_is_refused_takes_nothing_from_another_for_the_same_attempt(tmp_path: Path) -> None:
    runtime = Refusing(always=False)
    async with hosting(tmp_path, runtime) as there:
        files = kept(there, "a")
        events = there.execute(HERE, attempt(1), files)
        refused = asyncio.ensure_future(anext(events))
        await runtime.arrived.acquire()
        accepted = await ran(there, attempt(1), *files)
        runtime.gate.set()
        assert isinstance(await refused, Finished)
        await events.aclose()

    assert isinstance(accepted[0], Submitted)
    assert work_folders(tmp_path) == [external_name(HERE, attempt(1).id)]


async def test_the_last_of_two_calls_that_are_refused_takes_the_folder_away(tmp_path: Path) -> None:
    runtime = Refusing(always=True)
    async with hosting(tmp_path, runtime) as there:
        files = kept(there, "a")
        both = [there.execute(HERE, attempt(1), files) for _ in range(2)]
        asked = [asyncio.ensure_future(anext(each)) for each in both]
        for _ in both:
            await runtime.arrived.acquire()
        runtime.gate.set()
        await asyncio.gather(*asked)
        await both[0].aclose()
        between = work_folders(tmp_path)
        await both[1].aclose()

    assert (len(between), work_folders(tmp_path)) == (1, [])


async def test_a_caller_that_leaves_before_the_answer_leaves_the_files(tmp_path: Path) -> None:
    runtime = Refusing(always=True)
    async with hosting(tmp_path, runtime) as there:
        asking = asyncio.ensure_future(ran(there, attempt(1), *kept(there, "a")))
        await runtime.arrived.acquire()
        asking.cancel()
        await asyncio.wait([asking])

        assert len(work_folders(tmp_path)) == 1  # something may have been begun


async def test_a_caller_that_leaves_with_the_answer_leaves_nothing(tmp_path: Path) -> None:
    runtime = Refusing(always=True)
    runtime.gate.set()
    async with hosting(tmp_path, runtime) as there:
        events = there.execute(HERE, attempt(1), kept(there, "a"))
        await anext(events)
        leaving = asyncio.ensure_future(events.aclose())
        await asyncio.sleep(0)
        leaving.cancel()
        await asyncio.wait([leaving])

    assert work_folders(tmp_path) == []


async def test_ends_that_the_runtime_has_forgotten_are_surveyed_until_they_are_cleaned_up(tmp_path: Path) -> None:
    name = external_name(HERE, attempt(1).id)
    async with hosting(tmp_path, scripted(Forgetful)) as there:
        await ran(there, attempt(1), *kept(there, "a"))
        before = await there.cleanup(HERE, Survey(HERE))
        ended = await there.cleanup(HERE, AttemptScope(id=attempt(1).id))
        after = await there.cleanup(HERE, Survey(HERE))

    assert before.pending == {name} and before.attempts == {name: attempt(1).id}
    assert name in ended.gone
    assert not after.pending and not after.attempts
    assert work_folders(tmp_path) == []


async def test_the_end_of_an_execution_takes_the_folders_of_forgotten_ends_along(tmp_path: Path) -> None:
    async with hosting(tmp_path, scripted(Forgetful)) as there:
        await ran(there, attempt(1), *kept(there, "a"))

        report = await there.cleanup(HERE, ExecutionScope(execution=attempt(1).id.execution))

    assert external_name(HERE, attempt(1).id) in report.gone
    assert work_folders(tmp_path) == []


async def test_old_folders_that_nobody_knows_of_go_with_a_survey(tmp_path: Path) -> None:
    works = replace(attempt(1), parameters={"gate": "never"})
    over = replace(attempt(1), id=attempt_id("other"))
    names = [external_name(HERE, each.id) for each in (works, over)]
    async with hosting(tmp_path, scripted()) as there:
        await ran(there, over)
        events = there.execute(HERE, works, ())
        assert isinstance(await anext(events), Submitted)
        await events.aclose()
        await there.cleanup(HERE, Survey(HERE))
        young = sorted(work_folders(tmp_path))
        for name in names:
            grown_old(tmp_path, name)
        await there.cleanup(HERE, Survey("elsewhere"))
        unasked = sorted(work_folders(tmp_path))

        await there.cleanup(HERE, Survey(HERE))

    assert young == unasked == sorted(names)
    assert work_folders(tmp_path) == [names[0]]


async def test_an_old_folder_that_a_call_is_about_stays(tmp_path: Path) -> None:
    runtime = Refusing(always=True)
    async with hosting(tmp_path, runtime) as there:
        asking = asyncio.ensure_future(ran(there, attempt(1), *kept(there, "a")))
        await runtime.arrived.acquire()
        grown_old(tmp_path, external_name(HERE, attempt(1).id))

        await there.cleanup(HERE, Survey(HERE))

        assert len(work_folders(tmp_path)) == 1
        runtime.gate.set()
        await asking


def started(runtime: ScriptedRuntime) -> list[AttemptId]:
    return [each.attempt for each in runtime.world.works.values()]
