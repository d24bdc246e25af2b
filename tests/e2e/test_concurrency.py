"""Limits on what is under way at a time: of a workflow, a step, a tag and a runtime, in one process and in several."""

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from e2e.embedded import Plane, plane, statuses, step_of
from e2e.moved_clock import MovedClock

from flexcore.control.verify import verify_executions
from flexcore.engine import queues
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import Document, RetryRequest, StartRequest
from flexcore.testing import auditor
from flexcore.testing.command import Running, Site, until

FAN = """
name: fan
steps:
  - id: each
    type: foreach
    items: "${{ [1, 2, 3, 4, 5, 6, 7, 8, 9, 10] }}"
    parallelism: 10
    steps:
      - {id: work, type: function, %s with: {name: "tasks:slow", args: {seconds: 0.02}}}
"""
REGION = """
name: region
concurrency: {limit: 1, key: "${{ input.region }}"}
on_failure: [{id: tell, type: transform, with: {value: "${{ error.message }}"}}]
steps: [{id: work, type: bash, with: {script: 'until [ -e "$1" ]; do sleep 0.02; done', args: ["${{ input.go }}"]}}]
"""
_ENDS = ("StepSucceeded", "StepFailed", "StepCancelled", "StepRetryScheduled")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return MovedClock(monkeypatch)


@pytest.fixture
async def here(tmp_path: Path, clock: MovedClock) -> AsyncIterator[Plane]:
    async with plane(tmp_path, tags=frozenset({"gpu"})) as opened:
        yield opened
        _, faults = await verify_executions(opened.installation.store.reader)
        assert faults == []


def limited(here: Plane, **limits: Any) -> None:
    parts = here.installation.engine.parts
    here.installation.engine.parts = replace(parts, limits=replace(parts.limits, **limits))


async def most_at_a_time(here: Plane, *ids: ExecutionId) -> int:
    """Read from the histories how many attempts were under way at a time, at most."""
    api, entries = here.installation.control_plane, list[Document]()
    for id in ids:
        entries += (await api.history(id)).items
    under_way = most = 0
    for entry in sorted(entries, key=lambda each: (each["at"], each["type"] not in _ENDS)):
        is_task = entry.get("kind") == "function" or entry["type"] == "StepRetryScheduled"
        under_way += (entry["type"] == "StepDispatched") - (is_task and entry["type"] in _ENDS)
        most = max(most, under_way)
    return most


async def seen(here: Plane, id: ExecutionId, look: Callable[[Document], bool]) -> Document:
    """Poll an execution until there is something to see."""
    async with asyncio.timeout(20):
        while not look(document := await here.installation.control_plane.execution(id)):
            await asyncio.sleep(0.02)
    return document


async def started(here: Plane, workflow: str, **input: Any) -> ExecutionId:
    request = StartRequest(workflow=workflow, input=input)
    return (await here.installation.control_plane.start(request)).id


async def test_a_step_has_no_more_attempts_under_way_than_its_limit_over_all_executions(here: Plane) -> None:
    text = FAN % "concurrency: {limit: 3},"

    ids = [await here.start(text) for _ in range(2)]
    documents = [await here.finish(id) for id in ids]

    assert [each["status"] for each in documents] == ["succeeded", "succeeded"]
    assert await most_at_a_time(here, *ids) == 3
    assert await here.installation.store.reader.pools(["step:default/fan/work"]) != {}


@pytest.mark.parametrize(
    ("limits", "line"),
    [({"runtimes": {"local": 2}}, ""), ({"tags": {"gpu": 2}}, "requirements: {tags: [gpu]},")],
    ids=["runtime", "tag"],
)
async def test_a_limit_of_the_settings_holds_for_every_step(here: Plane, limits: dict[str, Any], line: str) -> None:
    limited(here, **limits)

    id = await here.start(FAN % line)

    assert (await here.finish(id))["status"] == "succeeded"
    assert await most_at_a_time(here, id) == 2


async def test_a_retry_waits_for_a_place_like_any_other(here: Plane) -> None:
    id = await here.start("""
name: retries
steps:
  - id: each
    type: foreach
    items: "${{ [1, 2, 3] }}"
    parallelism: 3
    on_error: continue
    steps:
      - id: work
        type: function
        concurrency: {limit: 1}
        retry: {attempts: 2, delay: 10ms}
        with: {name: "tasks:fail"}
""")
    document = await here.finish(id)

    assert [step_of(document, f"each[{index}].work")["attempt"] for index in range(3)] == [2, 2, 2]
    assert await most_at_a_time(here, id) == 1


async def test_executions_over_the_limit_stay_pending_and_say_why(here: Plane, tmp_path: Path) -> None:
    await here.deploy(REGION)
    go = {region: str(tmp_path / region) for region in ("eu", "us")}
    first = await started(here, "region", region="eu", go=go["eu"])
    second = await started(here, "region", region="eu", go=go["eu"])
    third = await started(here, "region", region="eu", go=go["eu"])
    other = await started(here, "region", region="us", go=go["us"])

    waiting = await here.installation.control_plane.execution(third)
    beside = await seen(here, other, lambda document: document["steps"][0]["status"] == "running")
    Path(go["eu"]).touch()
    Path(go["us"]).touch()
    documents = [await here.finish(id) for id in (first, second, third, other)]

    assert waiting["status"] == "pending"
    assert waiting["waiting_for"] == (
        f"a place in workflow 'region' for key 'eu' (1 of 1 taken, by {first}; number 2 in the queue)"
    )
    assert waiting["steps"][0]["waiting_for"] == (f"the execution to begin, which waits for {waiting['waiting_for']}")
    assert beside["waiting_for"] is None
    assert [each["status"] for each in documents] == ["succeeded"] * 4
    begun = [each["started_at"] for each in documents]
    assert begun[0] < begun[1] < begun[2], "first come, first served"
    assert begun[1] >= documents[0]["finished_at"]


async def test_what_waits_in_a_queue_can_be_cancelled(here: Plane, tmp_path: Path) -> None:
    await here.deploy(REGION)
    go = tmp_path / "go"
    ids = [await started(here, "region", region=1, go=str(go)) for _ in range(3)]

    await here.installation.control_plane.cancel(ids[1], "not needed")
    cancelled = await seen(here, ids[1], lambda document: document["finished_at"] is not None)
    go.touch()
    documents = [await here.finish(id) for id in (ids[0], ids[2])]

    assert (cancelled["status"], cancelled["error"]["message"], cancelled["started_at"]) == (
        "cancelled",
        "not needed",
        None,
    )
    assert [each["status"] for each in documents] == ["succeeded", "succeeded"]


async def test_the_time_limit_of_an_execution_runs_while_it_is_queued(here: Plane, tmp_path: Path) -> None:
    await here.deploy(REGION.replace("name: region", "name: region\ntimeout: 300ms"))
    await here.deploy(REGION.replace("name: region", "name: other"))
    go = str(tmp_path / "go")
    first = await started(here, "region", region=None, go=go)
    second = await started(here, "region", region=None, go=go)

    documents = [await here.finish(id) for id in (first, second)]

    assert [each["error"]["class"] for each in documents] == ["timeout", "timeout"]
    assert statuses(documents[1])["on_failure.tell"] == "succeeded"


async def test_the_time_limit_of_a_step_does_not_run_while_it_is_queued(
    here: Plane, clock: MovedClock, tmp_path: Path
) -> None:
    id = await here.start("""
name: fan
steps:
  - id: each
    type: foreach
    items: [0, 1, 2]
    parallelism: 3
    steps:
      - id: work
        type: bash
        concurrency: {limit: 1}
        timeout: 1h
        with: {script: 'until [ -e "go$1" ]; do sleep 0.02; done', args: ["${{ iter.index }}"]}
""")
    waiting = await seen(here, id, lambda document: any(each["waiting_for"] for each in document["steps"][2:]))
    for index in range(3):  # the last one begins after more than its time limit in the queue
        await seen(here, id, lambda document, at=f"each[{index}].work": step_of(document, at)["status"] == "running")
        clock.move(timedelta(minutes=40))
        (tmp_path / f"go{index}").touch()
    document = await here.finish(id)

    queued = [each["waiting_for"] for each in waiting["steps"] if (each["waiting_for"] or "").startswith("a place")]
    assert queued[0] == (f"a place in step 'work' of workflow 'fan' (1 of 1 taken, by {id}; number 1 in the queue)")
    assert document["status"] == "succeeded", document["error"]
    assert step_of(document, "each[2].work")["phases"]["queue_s"] > timedelta(hours=1).total_seconds()


async def test_a_stay_in_a_queue_is_one_entry_of_the_history(here: Plane) -> None:
    id = await here.start(FAN % "concurrency: {limit: 1},")
    await here.finish(id)

    entries = (await here.installation.control_plane.history(id)).items
    assert sum(each["type"] == "StepQueued" for each in entries) == 9


async def test_a_retried_execution_queues_too_and_keeps_what_it_takes_over(here: Plane, tmp_path: Path) -> None:
    text = REGION.replace("steps: [{", "steps: [{id: before, type: transform, with: {value: kept}}, {")
    await here.deploy(text)
    go = str(tmp_path / "go")
    failed = await started(here, "region", region="eu", go=go)
    await here.installation.control_plane.cancel(failed, "to be retried")
    await here.finish(failed)
    holder = await started(here, "region", region="eu", go=go)
    retried = (await here.installation.control_plane.retry(RetryRequest(id=failed))).id

    waiting = await here.installation.control_plane.execution(retried)
    Path(go).touch()
    documents = [await here.finish(id) for id in (holder, retried)]

    assert (waiting["status"], step_of(waiting, "before")["status"]) == ("pending", "succeeded")
    assert [each["status"] for each in documents] == ["succeeded", "succeeded"]
    assert step_of(documents[1], "before")["result"] == "kept"


async def test_a_key_that_cannot_be_computed_fails_the_step(here: Plane) -> None:
    document = await here.execute(FAN % "concurrency: {limit: 1, key: '${{ [1].concat(iter.value) }}'},")

    assert document["error"]["class"] == "input"
    assert "the `key` of `concurrency` gave a list" in document["error"]["message"]


async def test_who_does_not_take_the_place_that_is_its_turn_is_passed_over(
    here: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(queues, "_PATIENCE_SECONDS", 0.1)
    await here.deploy(REGION)
    go, engine = tmp_path / "go", here.installation.engine
    ids = [await started(here, "region", region="eu", go=str(go)) for _ in range(4)]
    stopped = [engine.live[id] for id in ids[1:3]]
    for live in stopped:
        engine.queues.drop(live)  # as if it belonged to a process that is stopped: nobody tells it of free places

    go.touch()
    async with asyncio.timeout(10):
        last = await here.finish(ids[3])
    waiting = [await here.installation.control_plane.execution(live.id) for live in stopped]
    for live in stopped:
        engine.queues.note(live)
    documents = [await here.finish(live.id) for live in stopped]

    assert last["status"] == "succeeded"
    assert [each["status"] for each in waiting] == ["pending", "pending"]
    assert [each["status"] for each in documents] == ["succeeded", "succeeded"]


async def test_of_two_versions_the_one_with_the_higher_limit_goes_on_as_soon_as_it_may(
    here: Plane, tmp_path: Path
) -> None:
    go = [str(tmp_path / name) for name in "abcd"]
    await here.deploy(REGION.replace("limit: 1", "limit: 2"))
    ids = [await started(here, "region", region="eu", go=go[index]) for index in range(3)]
    await here.deploy(REGION)
    ids.append(await started(here, "region", region="eu", go=go[3]))

    Path(go[0]).touch()
    third = await seen(here, ids[2], lambda document: document["status"] != "pending")
    fourth = await here.installation.control_plane.execution(ids[3])
    for path in go:
        Path(path).touch()
    documents = [await here.finish(id) for id in ids]

    assert (third["status"], fourth["status"]) == ("running", "pending")
    assert [each["status"] for each in documents] == ["succeeded"] * 4


async def test_a_tag_that_is_named_twice_takes_one_place(here: Plane) -> None:
    limited(here, tags={"gpu": 1})

    async with asyncio.timeout(10):
        document = await here.execute(FAN % "requirements: {tags: [gpu, gpu]},")

    assert document["status"] == "succeeded"


# --- several processes


WORK = """
name: work
concurrency: {limit: 2}
inputs: {type: object, properties: {folder: {type: string}}}
steps:
  - id: each
    type: foreach
    items: "${{ [1, 2, 3] }}"
    parallelism: 3
    steps:
      - id: one
        type: bash
        concurrency: {limit: 2}
        with:
          script: |
            echo begin >> "$1/seen"
            while sleep 0.1; [ -e "$1/hold" ]; do :; done
            echo end >> "$1/seen"
          args: ["${{ input.folder }}"]
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "work.yaml").write_text(WORK)
    yield Site(folder)
    for pid in auditor.processes_of(folder):  # only what this very test has started can name its folder
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def execute(site: Site) -> Running:
    return site.start("--output", "json", "workflow", "execute", "work", "-p", f"folder={site.folder}")


def most_seen(site: Site) -> int:
    under_way = most = 0
    for line in (site.folder / "seen").read_text().splitlines():
        under_way += 1 if line.startswith("begin") else -1
        most = max(most, under_way)
    return most


def holders(site: Site) -> Sequence[tuple[str, str]]:
    with closing(sqlite3.connect(f"file:{site.database}?mode=ro", uri=True)) as connection:
        return connection.execute("SELECT pool, execution FROM claims WHERE queued IS NULL").fetchall()


def test_processes_that_share_a_store_keep_to_the_limits_together(site: Site) -> None:
    running = [execute(site) for _ in range(3)]

    done = [each.ended() for each in running]

    assert [each.code for each in done] == [0, 0, 0], done
    assert most_seen(site) == 2
    assert holders(site) == []
    begun = sorted(each.document["started_at"] for each in done)
    assert begun[2] >= min(each.document["finished_at"] for each in done), "a third began beside two others"
    assert site.run("verify").code == 0


def test_places_of_a_killed_process_stay_taken_until_somebody_goes_on_with_its_work(site: Site) -> None:
    (site.folder / "hold").touch()
    owner = execute(site)
    until(lambda: (site.folder / "seen").exists() and most_seen(site) == 2, "two attempts are under way", 20)
    owner.kill(group=False)
    taken = [pool for pool, _ in holders(site)]

    second = execute(site)
    queued = until(lambda: _queued(site), "the second one waits")
    (site.folder / "hold").unlink()
    resumed = site.run("--output", "json", "workflow", "resume")

    assert sorted(taken) == ["step:default/work/one"] * 2 + ["workflow:default/work"]
    assert "2 of 2 taken" in queued
    assert resumed.code == 0, resumed.err
    assert second.ended().code == 0
    assert most_seen(site) == 2
    assert holders(site) == []
    assert site.run("verify").code == 0


def _queued(site: Site) -> str | None:
    for told in auditor.executions(site.database):
        if told.entries("StepQueued") and told.status == "running" and not told.attempts("bash"):
            shown = site.run("--output", "json", "execution", "explain", told.id, "each[0].one")
            return str(json.loads(shown.out)["waiting_for"]) if shown.code == 0 else None
    return None
