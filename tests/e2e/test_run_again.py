"""Running a finished execution again: all of it, or on past a failed step with a result that a person gave."""

import asyncio
import json
from dataclasses import replace
from pathlib import Path

import pytest
from e2e.cli_session import Session
from e2e.embedded import Plane, plane

from flexcore.model.errors import AlreadyExists, InvalidInput, InvalidRequest, NotFound
from flexcore.model.requests import RetryRequest

BROKEN = """
name: broken
steps:
  - {id: one, type: bash, with: {script: "echo one >> log; echo 1"}}
  - {id: two, type: bash, with: {script: "echo two >> log; exit 1"}}
  - {id: three, type: transform, with: {value: "${{ results.one + results.two.rows }}"}}
output: ${{ results.three }}
"""


@pytest.fixture
async def here(tmp_path: Path):
    async with plane(tmp_path) as opened:
        yield opened


async def again(here: Plane, **request):
    started = await here.installation.control_plane.retry(RetryRequest(**request))
    return await here.finish(started.id)


def step(document, path):
    return next(each for each in document["steps"] if each["path"] == path)


async def test_a_given_result_takes_the_place_of_the_failed_step(here: Plane) -> None:
    before = await here.execute(BROKEN)

    after = await again(here, id=before["id"], results={"two": {"rows": 41}}, reason="loaded by hand")

    assert (after["status"], after["output"], after["forked_from"]) == ("succeeded", 42, before["id"])
    assert (here.folder / "log").read_text().split() == ["one", "two"]
    two = step(after, "two")
    assert (two["status"], two["result"], two["cached"]) == ("succeeded", {"rows": 41}, False)
    assert two["given_by"]["reason"] == "loaded by hand"
    assert two["given_by"]["actor"]
    assert step(after, "one")["given_by"] is None
    explained = await here.installation.control_plane.explain(after["id"], "two")
    assert "loaded by hand" in " ".join(explained["sentences"])
    assert (await here.installation.control_plane.execution(before["id"])) == before


async def test_a_given_result_stays_given_in_a_later_fork(here: Plane) -> None:
    before = await here.execute(BROKEN.replace("results.two.rows", "results.two.rows.none.here"))
    failed = await again(here, id=before["id"], results={"two": {"rows": None}}, reason="first try")
    assert failed["error"]["step"] == "three"

    after = await again(here, id=failed["id"], results={"three": 7}, reason="known from elsewhere")

    assert (after["status"], after["output"]) == ("succeeded", 7)
    assert step(after, "two")["given_by"]["reason"] == "first try"


@pytest.mark.parametrize(
    ("request_", "error", "words"),
    [
        ({"results": {"one": 2}, "reason": "x"}, InvalidRequest, "'one' has not failed"),
        ({"results": {"none": 2}, "reason": "x"}, NotFound, "its steps are|no step 'none'"),
        ({"results": {"two": 2}}, InvalidRequest, "needs a reason"),
        ({"results": {"two": 2}, "reason": "x", "everything": True}, InvalidRequest, "running everything again"),
        ({"from_step": "two", "everything": True}, InvalidRequest, "running everything again"),
        ({"newest": True}, InvalidRequest, "do not fit another"),
        ({"reason": "x"}, InvalidRequest, "goes with a result"),
        ({"from_step": "two[0].gone"}, NotFound, "no step"),
    ],
)
async def test_what_makes_no_sense_starts_nothing(here: Plane, request_, error, words) -> None:
    before = await here.execute(BROKEN)

    with pytest.raises(error, match=words):
        await again(here, id=before["id"], **request_)

    assert (here.folder / "log").read_text().split() == ["one", "two"]


async def test_a_step_inside_another_cannot_be_given(here: Plane) -> None:
    before = await here.execute("""
name: nested
steps:
  - {id: each, type: foreach, items: [1], steps: [{id: work, type: function, with: {name: "tasks:fail"}}]}
""")

    with pytest.raises(InvalidRequest, match="inside 'each'"):
        await again(here, id=before["id"], results={"each[0].work": 1}, reason="x")
    after = await again(here, id=before["id"], results={"each": [1]}, reason="x")

    assert (after["status"], after["output"]) == ("succeeded", [1])


async def test_everything_again_uses_no_result(here: Plane) -> None:
    before = await here.execute(BROKEN)

    after = await again(here, id=before["id"], everything=True)

    assert (after["status"], after["forked_from"], after["version"]) == ("failed", before["id"], before["version"])
    assert (here.folder / "log").read_text().split() == ["one", "two", "one", "two"]


async def test_the_newest_version_gets_the_old_input(here: Plane) -> None:
    text = """
name: grows
inputs: {type: object, properties: {n: {type: integer}}}
steps: [{id: a, type: transform, with: {value: "${{ input.n }}"}}]
"""
    before = await here.execute(text, {"n": 4})
    await here.deploy(text.replace("input.n", "input.n + 1"))

    assert (await again(here, id=before["id"], everything=True))["output"] == 4
    assert (await again(here, id=before["id"], everything=True, newest=True))["output"] == 5
    await here.deploy(text.replace("properties: {n", "required: [m], properties: {n"))
    with pytest.raises(InvalidInput, match="m"):
        await again(here, id=before["id"], everything=True, newest=True)


async def test_the_same_key_runs_a_failure_again_only_once(here: Plane) -> None:
    before = await here.execute(BROKEN)
    request = RetryRequest(id=before["id"], idempotency_key="once")
    retry = here.installation.control_plane.retry

    started = await asyncio.gather(retry(request), retry(request), retry(request))
    await here.finish(started[0].id)
    later = await retry(request)

    assert {each.id for each in [*started, later]} == {started[0].id}
    assert sorted(each.existing for each in started) == [False, True, True]
    assert (here.folder / "log").read_text().split() == ["one", "two", "two"]
    with pytest.raises(AlreadyExists, match="used for another request"):
        await retry(replace(request, everything=True))
    assert (await retry(RetryRequest(id=before["id"]))).id != started[0].id


def test_on_the_command_line(tmp_path: Path) -> None:
    cli = Session(tmp_path)
    (tmp_path / "broken.yaml").write_text(BROKEN)
    before = cli.json("workflow", "execute", "broken.yaml", code=1)

    wrong = cli("workflow", "retry", before["id"], "--set-result", "two")
    twice = cli("workflow", "retry", before["id"], "--set-result", "two=1", "--set-result", "two=2", "--reason", "x")
    after = cli.json(
        "workflow", "retry", before["id"], "--set-result", f"two={json.dumps({'rows': 2})}", "--reason", "by hand"
    )
    rerun = cli.json("workflow", "rerun", before["id"], code=1)

    assert wrong.code == twice.code == 2
    assert "two results" in twice.err
    assert "two={" in wrong.err or "step={" in wrong.err
    assert after["output"] == 3
    assert rerun["forked_from"] == before["id"]
