"""What the control plane promises about versions, watchers, keys and retries, on the real engine and store."""

import asyncio
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from e2e.embedded import Plane, plane, statuses, step_of

from flexcore.control.verify import verify_executions
from flexcore.model.errors import AlreadyExists, InvalidDefinition, InvalidRequest, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import AuditQuery, Bundle, RetryRequest, StartRequest, TaskRequest
from flexcore.model.values import canonical, digest

SHELL = "name: shell\nsteps: [{id: run, type: bash, with: {file: say.sh}}]"


@pytest.fixture
async def here(tmp_path: Path) -> AsyncIterator[Plane]:
    async with plane(tmp_path) as opened:
        yield opened


async def run_newest(here: Plane, name: str) -> ExecutionId:
    return (await here.installation.control_plane.start(StartRequest(workflow=name))).id


# --- versions


async def said(here: Plane, id: ExecutionId) -> str:
    assert (await here.finish(id))["status"] == "succeeded"
    page = await here.installation.control_plane.logs(id)
    return "".join(piece["text"] for piece in page.pieces)


async def test_an_edited_file_is_not_run_until_it_is_deployed(here: Plane) -> None:
    name = await here.deploy(SHELL, say__sh="echo first; pwd\n")
    assert await said(here, await run_newest(here, name)) == f"first\n{here.folder}\n"

    (here.folder / "say.sh").write_text("echo other; pwd\n")
    assert (await said(here, await run_newest(here, name))).startswith("first\n")

    (here.folder / "say.sh").write_text("echo first; pwd\n")
    assert await said(here, await run_newest(here, name)) == f"first\n{here.folder}\n"

    await here.deploy(SHELL, say__sh="echo other; pwd\n")
    assert await said(here, await run_newest(here, name)) == f"other\n{here.folder}\n"


async def test_an_edit_of_the_same_length_with_the_old_time_is_noticed(here: Plane) -> None:
    name = await here.deploy(SHELL, say__sh="echo first\n")
    await here.finish(await run_newest(here, name))
    path = here.folder / "say.sh"
    times = path.stat()

    path.write_text("echo other\n")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert await said(here, await run_newest(here, name)) == "first\n"


async def test_a_retry_runs_the_code_that_was_deployed(here: Plane) -> None:
    name = await here.deploy(SHELL, say__sh="echo first; exit 1\n")
    before = await run_newest(here, name)
    await here.finish(before)
    (here.folder / "say.sh").write_text("echo other\n")

    again = await here.installation.control_plane.retry(RetryRequest(id=before))

    assert (await here.finish(again.id))["status"] == "failed"


async def test_data_beside_the_workflow_is_read_and_written_in_its_folder(here: Plane) -> None:
    (here.folder / "data.csv").write_text("1,2\n")
    text = 'name: data\nsteps: [{id: run, type: bash, with: {script: "cat data.csv; cp data.csv copy.csv"}}]'

    assert await said(here, await here.start(text)) == "1,2\n"
    assert (here.folder / "copy.csv").read_text() == "1,2\n"


async def test_a_copy_that_somebody_changed_is_put_right(here: Plane, tmp_path: Path) -> None:
    bundle = Bundle(text=SHELL, files={"say.sh": b"echo first; pwd\n"})  # of no folder on this machine
    await here.installation.control_plane.deploy(bundle)
    folder = Path((await said(here, await run_newest(here, "shell"))).splitlines()[1])
    assert folder.is_relative_to(tmp_path / ".flexcore")

    (folder / "say.sh").write_text("echo other\n")
    assert await said(here, await run_newest(here, "shell")) == f"first\n{folder}\n"
    (folder / "say.sh").unlink()
    assert await said(here, await run_newest(here, "shell")) == f"first\n{folder}\n"


@pytest.mark.parametrize("name", ["../outside", "/etc/outside", "a/../../outside", "a//b", "", "c:/outside", "a\\b"])
async def test_a_file_that_leaves_the_bundle_is_refused(here: Plane, name: str) -> None:
    with pytest.raises(InvalidRequest, match="not a path inside a bundle") as caught:
        await here.installation.control_plane.deploy(Bundle(text=SHELL, files={name: b"x"}))

    assert repr(name) in str(caught.value)


# --- watchers


async def test_every_watcher_of_a_neighbours_execution_hears_its_end(tmp_path: Path) -> None:
    async with plane(tmp_path) as owner, plane(tmp_path) as neighbour:
        until = "until [ -e go ]; do sleep 0.05; done"
        id = await owner.start(f'name: long\nsteps: [{{id: run, type: bash, with: {{script: "{until}"}}}}]')

        async def last(after: int) -> str:
            kinds = [event.body["type"] async for event in neighbour.installation.control_plane.watch(id, after)]
            return str(kinds[-1])

        watchers = [asyncio.create_task(last(after)) for after in (0, 0, 0, 1, 10**6)]
        events = neighbour.installation.control_plane.watch(id)
        await anext(events)  # by now everybody listens, or soon will
        (tmp_path / "go").touch()
        async with asyncio.timeout(10):
            ends = await asyncio.gather(*watchers)
        await events.aclose()

    assert len(set(ends)) == 1


# --- verify

LARGE = 'name: large\nsteps: [{id: big, type: function, with: {name: "tasks:large", args: {size: 500000}}}]'


async def test_other_workspaces_are_verified(here: Plane) -> None:
    plane_ = here.installation.control_plane
    text = "name: good\nsteps: [{id: a, type: transform, with: {value: 1}}]"
    for workspace in ("default", "other"):
        await plane_.deploy(Bundle(text=text), workspace)
        await here.finish((await plane_.start(StartRequest(workflow="good", workspace=workspace))).id)

    store = here.installation.store
    assert await verify_executions(store.reader, store.artifacts) == (2, [])


@pytest.mark.parametrize("damage", ["lost", "changed"])
async def test_a_lost_or_damaged_artifact_is_a_fault(here: Plane, damage: str) -> None:
    document = await here.execute(LARGE)
    store = here.installation.store
    name = digest(canonical("x" * 500_000))
    (file,) = here.folder.rglob(name)
    if damage == "lost":
        file.unlink()
    else:
        file.write_bytes(b"x")

    looked, faults = await verify_executions(store.reader, store.artifacts)

    assert looked == 1
    assert faults
    for fault in faults:
        assert fault.execution == document["id"]
        assert name in fault.message
    assert any("step 'big'" in fault.message for fault in faults)


# --- starts


async def test_an_idempotency_key_outlives_its_workflow(here: Plane) -> None:
    text = "name: once\nsteps: [{id: a, type: transform, with: {value: 1}}]"
    id = await here.start(text, idempotency_key="k")
    await here.finish(id)
    plane_ = here.installation.control_plane
    await plane_.delete_workflow("once")

    again = await plane_.start(StartRequest(workflow="once", idempotency_key="k"))

    assert (again.id, again.existing) == (id, True)
    with pytest.raises(AlreadyExists):
        await plane_.start(StartRequest(workflow="once", idempotency_key="k", input={"n": 1}))
    with pytest.raises(NotFound):
        await plane_.start(StartRequest(workflow="once"))


# --- retries


async def test_a_retry_lists_the_nested_steps_that_it_took_over(here: Plane) -> None:
    before = await here.execute("""
name: nested
steps:
  - id: fan
    type: foreach
    items: "${{ [1, 2] }}"
    steps:
      - id: both
        type: parallel
        branches:
          - {id: left, steps: [{id: l, type: transform, with: {value: "${{ iter.value }}"}}]}
          - {id: right, steps: [{id: r, type: transform, with: {value: 1}}]}
  - id: pick
    type: branch
    branches: [{if: "${{ false }}", steps: [{id: a, type: transform, with: {value: 1}}]}]
    default: [{id: b, type: transform, with: {value: 2}}]
  - {id: last, type: function, with: {name: "tasks:fail"}}
""")
    assert before["status"] == "failed"

    again = await here.installation.control_plane.retry(RetryRequest(id=ExecutionId(before["id"])))
    after = await here.finish(again.id)

    assert list(statuses(after)) == list(statuses(before))
    assert step_of(after, "fan[1].both.left.l")["result"] == 2
    assert "pick.default.b" in statuses(after)


async def test_a_retry_keeps_the_time_limit_of_the_request(here: Plane) -> None:
    text = 'name: limited\nsteps: [{id: a, type: function, with: {name: "tasks:fail"}}]'
    before = await here.execute(text, timeout=timedelta(minutes=5))
    assert before["status"] == "failed"

    again = await here.installation.control_plane.retry(RetryRequest(id=ExecutionId(before["id"])))
    await here.finish(again.id)

    header = (await here.installation.store.reader.execution(again.id)).state.header
    assert header.expires_at is not None
    assert header.created_at is not None
    assert abs(header.expires_at - header.created_at - timedelta(minutes=5)) < timedelta(seconds=5)


async def test_a_task_that_is_refused_is_in_the_audit_trail(here: Plane) -> None:
    control_plane = here.installation.control_plane

    with pytest.raises(InvalidDefinition):
        await control_plane.execute_task(TaskRequest(runtime="local", type="x" * 2000))

    (line,) = (await control_plane.audit(AuditQuery())).items
    assert (line["action"], line["outcome"]) == ("execute", "invalid_definition")
    assert len(line["subject"]) < 1100
