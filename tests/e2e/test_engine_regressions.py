"""Faults that were found once, each with the promise it broke."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest
from e2e.embedded import Plane, plane, statuses, step_of
from e2e.moved_clock import MovedClock

from flexcore.engine.work import CancelChild, EndAttempt, StartAttempt
from flexcore.model.errors import StoreUnavailable
from flexcore.model.ids import StepPath
from flexcore.model.placement import Infeasibility, Placement, ReasonCode, Verdict
from flexcore.model.values import Ref


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> MovedClock:
    return MovedClock(monkeypatch)


@pytest.fixture
async def here(tmp_path: Path, clock: MovedClock):
    async with plane(tmp_path) as opened:
        yield opened


async def test_a_step_that_waited_for_a_runtime_keeps_its_parameters(here: Plane) -> None:
    engine = here.installation.engine
    await here.deploy("name: w\nsteps: [{id: a, type: function, with: {name: 'tasks:double', args: {n: 4}}}]")
    down = Verdict(runtime="local", infeasible=(Infeasibility(ReasonCode.UNHEALTHY, "down"),))
    answers = iter([Placement(chosen=None, source="none", verdicts=(down,))])
    real = engine.parts.place
    engine.parts = replace(
        engine.parts,
        place=lambda view: next(answers, None) or real(view),
        limits=replace(engine.parts.limits, unplaced_interval=timedelta(milliseconds=50)),
    )

    document = await here.execute(
        "name: w\nsteps: [{id: a, type: function, with: {name: 'tasks:double', args: {n: 4}}}]"
    )

    assert document["output"] == 8


async def test_a_cancel_during_a_time_limit_starts_no_further_attempt(
    here: Plane, clock: MovedClock, tmp_path: Path
) -> None:
    performer = here.installation.engine._performer
    performer._driver = replace(performer._driver, grace=timedelta(minutes=5))  # the step itself says when it ends
    id = await here.start("""
name: stubborn
steps:
  - id: a
    type: bash
    timeout: 1h
    retry: {attempts: 3, delay: 10ms}
    with: {script: "trap '' TERM; touch trapped; until [ -e go ]; do sleep 0.02; done; exit 1"}
""")
    live = here.installation.engine.live[id]
    async with asyncio.timeout(60):
        while not (tmp_path / "trapped").exists() or live.state.steps[StepPath("a")].expires_at is None:
            await asyncio.sleep(0.01)
    clock.move(timedelta(hours=1))
    await _until_ending(here, id, "a")

    await here.installation.control_plane.cancel(id, "stop")
    (tmp_path / "go").touch()

    assert (await here.finish(id))["status"] == "cancelled"
    entries = (await here.installation.control_plane.history(id)).items
    assert [each["type"] for each in entries].count("StepDispatched") == 1


async def test_a_cancelled_child_stays_cancelled_after_a_crash(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        await here.deploy("name: kid\nsteps: [{id: a, type: bash, with: {script: 'sleep 20; echo x >> ran'}}]")
        id = await here.start("name: parent\nsteps: [{id: c, type: workflow, with: {name: kid}}]")
        _lose(here, CancelChild)
        async with asyncio.timeout(10):
            while len(here.installation.engine.live) < 2:
                await asyncio.sleep(0.01)
        here.installation.engine.cancel(id, "stop")
        await _until_ending(here, id, "c")

    async with plane(tmp_path) as again:
        await again.installation.control_plane.resume()
        document = await again.finish(id)

    assert (document["status"], statuses(document)) == ("cancelled", {"c": "cancelled"})
    assert not (tmp_path / "ran").exists()


async def test_work_cancelled_before_it_began_does_not_begin_on_resume(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        _lose(here, StartAttempt, EndAttempt)
        id = await here.start("name: w\nsteps: [{id: a, type: bash, with: {script: 'echo x >> ran'}}]")
        here.installation.engine.cancel(id, "stop")
        await _until_ending(here, id, "a")

    async with plane(tmp_path) as again:
        await again.installation.control_plane.resume()
        assert (await again.finish(id))["status"] == "cancelled"

    assert not (tmp_path / "ran").exists()


async def test_the_cache_knows_the_environment(here: Plane) -> None:
    text = """
name: cached
inputs: {type: object}
steps: [{id: a, type: bash, env: {X: "${{ input.x }}"}, cache: {ttl: 1h}, with: {script: 'echo "\\"$X\\""'}}]
"""
    assert (await here.execute(text, {"x": "one"}))["output"] == "one"
    assert (await here.execute(text, {"x": "two"}))["output"] == "two"


async def test_a_loop_of_expressions_costs_one_decision_each(here: Plane) -> None:
    """Four hundred were once eighty thousand: the whole of it took 7 s. Counted, not timed."""
    engine = here.installation.engine
    asked: list[int] = []
    real = engine.parts.evaluator.evaluate

    async def counted(queries):
        asked.append(len(queries))
        return await real(queries)

    engine.parts.evaluator.evaluate = counted  # type: ignore[method-assign]  # counts and passes on
    document = await here.execute("""
name: many
inputs: {type: object}
steps:
  - id: each
    type: foreach
    items: "${{ input.items }}"
    steps: [{id: x, type: transform, with: {value: "${{ iter.value + 1 }}"}}]
""", {"items": list(range(400))})  # fmt: skip

    assert document["output"] == list(range(1, 401))
    assert sum(asked) == 400


async def test_a_while_condition_sees_the_loop_around_it(here: Plane) -> None:
    document = await here.execute("""
name: around
steps:
  - id: each
    type: foreach
    items: [5]
    steps:
      - id: loop
        type: while
        condition: "${{ iter.value === 5 && (results.n ?? 0) < 3 }}"
        steps: [{id: n, type: transform, with: {value: "${{ iter.index + 1 }}"}}]
""")

    assert document["output"] == [3]


async def test_a_store_that_is_full_for_a_moment_fails_nothing(here: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    await here.deploy(
        "name: large\nsteps: [{id: b, type: function, with: {name: 'tasks:large', args: {size: 400000}}}]"
    )
    artifacts = type(here.installation.store.artifacts)
    real, refused = artifacts.put, []

    async def put(self, data, *, format="json"):
        if not refused:
            refused.append(data)
            raise StoreUnavailable("the disk is full")
        return await real(self, data, format=format)

    id = await here.start(
        "name: large\nsteps: [{id: b, type: function, with: {name: 'tasks:large', args: {size: 400000}}}]"
    )
    monkeypatch.setattr(artifacts, "put", put)

    document = await here.finish(id)

    assert (document["status"], len(document["output"])) == ("succeeded", 400000)


async def test_a_bug_of_ours_ends_the_execution_and_its_work(here: Plane, tmp_path: Path, monkeypatch) -> None:
    id = await here.start("name: w\nsteps: [{id: a, type: bash, with: {script: 'echo $$ > pid; sleep 60'}}]")
    async with asyncio.timeout(10):
        while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text().strip():
            await asyncio.sleep(0.01)
    broken = {"decide": lambda *_: (_ for _ in ()).throw(RuntimeError("planted"))}
    monkeypatch.setattr("flexcore.engine.loop.decide", broken["decide"])

    here.installation.engine.cancel(id, "stop")
    document = await here.finish(id)

    assert (document["status"], document["error"]["class"]) == ("failed", "internal")
    assert step_of(document, "a")["status"] == "cancelled"
    process = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}")
    async with asyncio.timeout(10):
        while process.exists():
            await asyncio.sleep(0.02)


async def test_a_message_of_megabytes_is_cut(here: Plane) -> None:
    document = await here.execute(
        "name: loud\ninputs: {type: object}\n"
        "steps: [{id: a, type: function, with: {name: 'tasks:fail', args: {message: '${{ input.m }}'}}}]",
        {"m": "x" * 1_000_000},
    )

    assert len(document["error"]["message"]) < 20_000


def _lose(here: Plane, *kinds: type) -> None:
    """Lose actions, as a crash between the commit and the deed would."""
    performer = here.installation.engine._performer
    real = performer.perform
    performer.perform = lambda live, action: None if isinstance(action, kinds) else real(live, action)


async def _until_ending(here: Plane, id: str, path: str) -> None:
    async with asyncio.timeout(10):
        while (live := here.installation.engine.live.get(id)) and live.state.steps[path].ending is None:
            await asyncio.sleep(0.01)


async def test_what_failed_in_a_tolerant_branch_or_iteration_is_the_error_after_it(here: Plane) -> None:
    document = await here.execute("""
name: tolerant
steps:
  - id: both
    type: parallel
    branches:
      - {id: left, steps: [{id: l, type: transform, with: {value: 1}}]}
      - {id: right, on_error: continue, steps: [{id: r, type: function, with: {name: "tasks:fail"}}]}
  - {id: first, type: transform, with: {value: "${{ error.step }}"}}
  - id: each
    type: foreach
    items: "${{ [1, 2] }}"
    on_error: continue
    steps:
      - {id: even, type: transform, if: "${{ iter.value === 2 }}", with: {value: fine}}
      - {id: odd, type: function, if: "${{ iter.value === 1 }}", with: {name: "tasks:fail", args: {message: odd}}}
  - {id: second, type: transform, with: {value: "${{ error.message + ' ' + results.each[0].error.step }}"}}
output: ["${{ results.first }}", "${{ results.second }}"]
""")

    assert document["output"] == ["both.right.r", "odd each[0].odd"]


async def test_finally_runs_when_the_time_limit_of_its_try_is_over(here: Plane) -> None:
    document = await here.execute("""
name: late
steps:
  - id: risky
    type: try
    timeout: 200ms
    on_error: continue
    steps: [{id: pause, type: wait, with: {for: 1m}}, {id: never, type: transform, with: {value: 1}}]
    catch: [{id: caught, type: transform, with: {value: 1}}]
    finally: [{id: close, type: transform, with: {value: "${{ 'closed' }}"}}]
  - {id: after, type: transform, with: {value: "${{ results.close + ' after ' + error.class }}"}}
""")

    assert document["output"] == "closed after timeout"
    assert "risky.catch.caught" not in statuses(document)


async def test_a_step_that_still_has_no_runtime_is_no_news(here: Plane) -> None:
    engine = here.installation.engine
    down = Verdict(runtime="local", infeasible=(Infeasibility(ReasonCode.UNHEALTHY, "down"),))
    nowhere = Placement(chosen=None, source="none", verdicts=(down,))
    answers, real = iter([nowhere] * 5), engine.parts.place
    engine.parts = replace(
        engine.parts,
        place=lambda view: next(answers, None) or real(view),
        limits=replace(engine.parts.limits, unplaced_interval=timedelta(milliseconds=20)),
    )

    id = await here.start("name: w\nsteps: [{id: a, type: function, with: {name: 'tasks:double', args: {n: 4}}}]")

    assert (await here.finish(id))["status"] == "succeeded"
    entries = (await here.installation.control_plane.history(id)).items
    assert [each["type"] for each in entries].count("StepUnplaced") == 1
    assert next(answers, None) is None


async def test_an_attempt_that_is_given_up_while_it_is_prepared_never_begins(
    here: Plane, clock: MovedClock, tmp_path: Path
) -> None:
    asked, may = asyncio.Event(), asyncio.Event()

    class Slow:
        async def get(self, ref: Ref) -> bytes:
            asked.set()
            await may.wait()
            return await here.installation.store.artifacts.get(ref)

    performer = here.installation.engine._performer
    performer._driver = replace(performer._driver, artifacts=Slow())
    id = await here.start(
        """
name: slow
steps:
  - id: group
    type: try
    timeout: 1h
    on_error: continue
    steps: [{id: a, type: python, with: {script: 'def main(n): open("ran", "w")', args: {n: '${{ input.n }}'}}}]
  - {id: after, type: wait, with: {for: 1h}}
""",
        {"n": "x" * 400_000},  # more than is kept inline
    )
    async with asyncio.timeout(60):
        await asked.wait()
        clock.move(timedelta(hours=1))
        while "after" not in (live := here.installation.engine.live[id]).state.steps:
            await asyncio.sleep(0.01)
    [driving] = live.attempts.values()

    may.set()
    await driving

    await here.installation.control_plane.cancel(id, "enough")
    [a] = [each for each in (await here.finish(id))["steps"] if each["path"].endswith("a")]
    assert (a["status"], a["attempt"]) == ("cancelled", 1)
    assert not (tmp_path / "ran").exists()
