"""What a workflow file means, on the real engine, store and local runtime."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest
from e2e.embedded import Plane, plane, statuses, step_of
from e2e.moved_clock import MovedClock

from flexcore.control.verify import verify_executions
from flexcore.model.errors import AlreadyExists, InvalidInput, NoFeasibleRuntime
from flexcore.model.ids import StepPath
from flexcore.model.requests import RetryRequest, StartRequest, TaskRequest
from flexcore.testing import auditor


@pytest.fixture
async def here(tmp_path: Path):
    async with plane(tmp_path) as opened:
        yield opened
        looked, faults = await verify_executions(opened.installation.store.reader)
        assert looked > 0
        assert faults == []


async def test_steps_pass_results_on_and_inputs_have_defaults(here: Plane) -> None:
    document = await here.execute("""
name: sums
inputs: {type: object, properties: {n: {type: integer, default: 3}}}
vars: {factor: 10}
steps:
  - {id: one, type: function, with: {name: "tasks:double", args: {n: "${{ input.n }}"}}}
  - {id: two, type: transform, with: {value: "${{ results.one * vars.factor + (previous_result - 6) }}"}}
output: {answer: "${{ results.two }}", text: "is ${{ results.two }}"}
""")

    assert document["status"] == "succeeded"
    assert document["output"] == {"answer": 60, "text": "is 60"}


async def test_foreach_keeps_the_order_of_items_and_runs_some_at_a_time(here: Plane) -> None:
    document = await here.execute("""
name: each
steps:
  - id: fan
    type: foreach
    items: "${{ [5, 6, 7, 8] }}"
    parallelism: 2
    steps:
      - {id: twice, type: function, with: {name: "tasks:double", args: {n: "${{ iter.value }}"}}}
      - {id: note, type: transform, with: {value: {index: "${{ iter.index }}", n: "${{ results.twice }}"}}}
""")

    assert document["output"] == [{"index": i, "n": 2 * n} for i, n in enumerate([5, 6, 7, 8])]


async def test_branch_parallel_and_while(here: Plane) -> None:
    document = await here.execute("""
name: controls
inputs: {type: object}
steps:
  - id: pick
    type: branch
    branches:
      - {if: "${{ input.n > 10 }}", steps: [{id: many, type: transform, with: {value: many}}]}
      - {if: "${{ input.n > 1 }}", steps: [{id: some, type: transform, with: {value: some}}]}
    default: [{id: none, type: transform, with: {value: none}}]
  - id: both
    type: parallel
    branches:
      - {id: left, steps: [{id: l, type: function, with: {name: "tasks:double", args: {n: 1}}}]}
      - {id: right, on_error: continue, steps: [{id: r, type: function, with: {name: "tasks:fail"}}]}
  - id: poll
    type: while
    condition: "${{ (results.count ?? 0) < 3 }}"
    steps: [{id: count, type: transform, with: {value: "${{ iter.index + 1 }}"}}]
  - {id: after, type: transform, with: {value: ["${{ results.many }}", "${{ results.some }}", "${{ results.poll }}"]}}
output: {pick: "${{ results.pick }}", left: "${{ results.both.left }}", error: "${{ results.both.right.error.message }}", after: "${{ results.after }}"}
""", {"n": 5})  # fmt: skip

    assert document["error"] is None
    assert document["output"] == {"pick": "some", "left": 2, "error": "no", "after": [None, "some", 3]}


async def test_a_failure_skips_what_needs_it_and_runs_on_failure_once(here: Plane, tmp_path: Path) -> None:
    document = await here.execute("""
name: fails
steps:
  - {id: good, type: function, with: {name: "tasks:double", args: {n: 1}}}
  - {id: bad, type: function, with: {name: "tasks:fail", args: {message: broken}}}
  - {id: never, type: function, with: {name: "tasks:double", args: {n: 1}}}
  - {id: apart, type: transform, needs: [good], with: {value: 1}}
on_failure:
  - {id: tell, type: bash, with: {script: 'printf "%s: %s\\n" "$1" "$2" >> told.txt', args: ["${{ error.step }}", "${{ error.message }}"]}}
""")  # fmt: skip

    assert document["status"] == "failed"
    assert document["error"]["class"] == "user"
    assert (document["error"]["name"], document["error"]["message"]) == ("ValueError", "broken")
    assert statuses(document) == {
        "good": "succeeded", "bad": "failed", "never": "skipped", "apart": "succeeded", "on_failure.tell": "succeeded",
    }  # fmt: skip
    assert (tmp_path / "told.txt").read_text() == "bad: broken\n"
    assert step_of(document, "good")["result"] == 2


async def test_on_error_continue_makes_a_result_of_a_failure(here: Plane) -> None:
    document = await here.execute("""
name: goes_on
steps:
  - {id: bad, type: function, on_error: continue, with: {name: "tasks:fail"}}
  - {id: look, type: transform, with: {value: "${{ results.bad.error.class + ' ' + error.step }}"}}
""")

    assert document["output"] == "user bad"


async def test_try_catches_and_finally_always_runs(here: Plane) -> None:
    document = await here.execute("""
name: tries
steps:
  - id: risky
    type: try
    steps: [{id: fetch, type: function, with: {name: "tasks:fail", args: {message: lost}}}]
    catch: [{id: told, type: transform, with: {value: "${{ 'caught ' + error.message }}"}}]
    finally: [{id: close, type: transform, with: {value: closed}}]
""")

    assert document["output"] == "caught lost"
    assert statuses(document)["risky.finally.close"] == "succeeded"


async def test_retry_tries_again_and_counts_attempts(here: Plane, tmp_path: Path) -> None:
    document = await here.execute(f"""
name: flaky
steps:
  - id: shaky
    type: function
    retry: {{attempts: 4, delay: 10ms, factor: 1}}
    with: {{name: "tasks:flaky", args: {{path: "{tmp_path}/tries", times: 3}}}}
""")

    assert (document["status"], document["output"]) == ("succeeded", 3)
    assert step_of(document, "shaky")["attempt"] == 3


async def test_a_crash_of_the_function_host_costs_no_try(here: Plane, tmp_path: Path) -> None:
    document = await here.execute(f"""
name: crashes
steps:
  - {{id: once, type: function, with: {{name: "tasks:crash", args: {{path: "{tmp_path}/crashed"}}}}}}
""")

    assert (document["status"], document["output"]) == ("succeeded", "second time")
    assert step_of(document, "once")["attempt"] == 2


async def test_a_time_limit_ends_a_step_with_its_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = MovedClock(monkeypatch)
    async with plane(tmp_path) as here, asyncio.timeout(60):
        id = await here.start("""
name: too_slow
steps:
  - {id: nap, type: bash, timeout: 1h, with: {script: "touch up; sleep 600; true"}}
""")
        live = here.installation.engine.live[id]
        while not (tmp_path / "up").exists() or live.state.steps[StepPath("nap")].expires_at is None:
            await asyncio.sleep(0.01)
        before = auditor.processes_of(tmp_path)
        clock.move(timedelta(hours=1))
        document = await here.finish(id)

        assert document["status"] == "failed"
        assert document["error"]["class"] == "timeout"
        assert before != {}
        assert auditor.processes_of(tmp_path) == {}


async def test_a_time_limit_of_the_execution_ends_it_and_runs_on_failure(here: Plane) -> None:
    document = await here.execute("""
name: too_long
timeout: 300ms
steps:
  - {id: nap, type: bash, with: {script: "sleep 60"}}
  - {id: after, type: transform, with: {value: 1}}
on_failure: [{id: tell, type: transform, with: {value: "${{ error.class }}"}}]
""")

    assert (document["status"], document["error"]["class"]) == ("failed", "timeout")
    assert statuses(document) == {"nap": "cancelled", "after": "cancelled", "on_failure.tell": "succeeded"}


async def test_cancel_ends_what_runs_and_starts_nothing_more(here: Plane) -> None:
    id = await here.start("""
name: cancelled
steps:
  - id: both
    type: parallel
    branches:
      - {id: a, steps: [{id: nap, type: bash, with: {script: "echo started; sleep 60"}}, {id: next, type: bash, with: {script: "true"}}]}
      - {id: b, steps: [{id: pause, type: wait, with: {for: 1h}}]}
""")  # fmt: skip
    plane = here.installation.control_plane
    async for event in plane.watch(id):
        if event.kind == "log":
            await plane.cancel(id, "enough")

    document = await here.finish(id)

    assert (document["status"], document["error"]["class"]) == ("cancelled", "cancelled")
    assert set(statuses(document).values()) == {"cancelled"}


async def test_waits_suspend_the_execution(here: Plane) -> None:
    id = await here.start("""
name: waits
steps:
  - {id: pause, type: wait, with: {for: 1s}}
  - {id: after, type: transform, with: {value: done}}
""")

    document = await here.installation.control_plane.execution(id)
    assert document["status"] == "suspended"
    assert step_of(document, "pause")["waiting_for"].startswith("time: until ")
    assert step_of(document, "after")["waiting_for"] == "step 'pause' to end"
    assert (await here.finish(id))["output"] == "done"


async def test_a_sub_workflow_is_a_linked_execution(here: Plane) -> None:
    await here.deploy("""
name: child
inputs: {type: object, required: [n], properties: {n: {type: integer}, m: {type: integer, default: 4}}}
steps: [{id: sum, type: transform, with: {value: "${{ input.n + input.m }}"}}]
""")

    document = await here.execute("""
name: parent
steps:
  - {id: sub, type: workflow, with: {name: child, input: {n: 3}}}
  - {id: bad, type: workflow, on_error: continue, with: {name: child, input: {n: text}}}
  - {id: aside, type: workflow, with: {name: child, input: {n: 1}, wait: false}}
""")

    assert step_of(document, "sub")["result"] == 7
    assert step_of(document, "bad")["result"]["error"]["class"] == "input"
    child = await here.finish(step_of(document, "aside")["result"]["id"])
    assert (child["parent"], child["output"]) == (document["id"], 5)


async def test_large_values_travel_out_of_line_and_nobody_can_tell(here: Plane) -> None:
    document = await here.execute("""
name: large
steps:
  - {id: big, type: function, with: {name: "tasks:large", args: {size: 700000}}}
  - {id: length, type: transform, with: {value: "${{ results.big.length }}"}}
  - {id: passed, type: python, with: {script: "def main(text): return len(text)", args: {text: "${{ results.big }}"}}}
output: {length: "${{ results.length }}", passed: "${{ results.passed }}", big: "${{ results.big }}"}
""")

    assert (document["output"]["length"], document["output"]["passed"]) == (700000, 700000)
    assert document["output"]["big"] == "x" * 700000
    kept = await here.installation.store.reader.execution(document["id"])
    assert kept.state.steps["big"].result.ref is not None


async def test_secrets_reach_the_step_and_nothing_else(
    here: Plane, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEXCORE_SECRET_TOKEN", "hunter2hunter2")

    document = await here.execute("""
name: secretive
steps:
  - id: use
    type: bash
    with:
      script: 'echo "$AUTH"; echo "{\\"length\\": ${#AUTH}, \\"auth\\": \\"$AUTH\\"}"'
      env: {AUTH: "Bearer ${{ secrets.TOKEN }}"}
  - {id: forged, type: bash, with: {script: 'echo "$1"', args: ["${{ '$' + '{{ secrets.TOKEN }}' }}"]}}
""")

    assert document["status"] == "succeeded", document["error"]
    assert step_of(document, "use")["result"] == {"length": 21, "auth": "Bearer ***"}
    assert step_of(document, "forged")["result"]["stdout"] == "${{ secrets.TOKEN }}\n"
    page = await here.installation.control_plane.logs(document["id"], "use")
    assert "hunter2" not in str(page)
    files = [path for path in (tmp_path / ".flexcore").rglob("*") if path.is_file()]
    assert not [path for path in files if b"hunter2" in path.read_bytes()]


async def test_a_missing_secret_fails_the_step_and_names_it(here: Plane) -> None:
    document = await here.execute("""
name: keyless
steps: [{id: use, type: bash, with: {script: "true", env: {A: "${{ secrets.NOPE }}"}}}]
""")

    assert document["error"]["class"] == "input"
    assert "NOPE" in document["error"]["message"]


async def test_the_cache_reuses_only_successes_with_the_same_parameters(here: Plane, tmp_path: Path) -> None:
    text = f"""
name: caching
inputs: {{type: object}}
steps:
  - id: once
    type: function
    cache: {{ttl: 1h}}
    with: {{name: "tasks:flaky", args: {{path: "{tmp_path}/runs", times: "${{{{ input.n }}}}"}}}}
"""

    first = await here.execute(text, {"n": 1})
    second = await here.execute(text, {"n": 1})
    third = await here.execute(text, {"n": 2})

    assert [step_of(each, "once")["cached"] for each in (first, second, third)] == [False, True, False]
    assert [each["output"] for each in (first, second, third)] == [1, 1, 2]


async def test_the_same_key_gives_the_same_execution_and_another_request_is_refused(here: Plane) -> None:
    name = await here.deploy("name: keyed\ninputs: {type: object}\nsteps: [{id: a, type: transform, with: {value: 1}}]")
    plane = here.installation.control_plane

    first = await plane.start(StartRequest(workflow=name, input={"n": 1}, idempotency_key="k"))
    again = await plane.start(StartRequest(workflow=name, input={"n": 1}, idempotency_key="k"))

    assert (again.id, again.existing) == (first.id, True)
    with pytest.raises(AlreadyExists, match=first.id):
        await plane.start(StartRequest(workflow=name, input={"n": 2}, idempotency_key="k"))


async def test_retry_is_a_linked_execution_that_reuses_what_is_above(here: Plane, tmp_path: Path) -> None:
    (tmp_path / "log").touch()
    first = await here.execute("""
name: again
steps:
  - {id: one, type: bash, with: {script: "echo one >> log; echo 1"}}
  - {id: two, type: bash, with: {script: "echo two >> log; test -e fixed; echo 2"}}
  - {id: three, type: transform, with: {value: "${{ results.one + results.two }}"}}
""")
    assert first["status"] == "failed"
    (tmp_path / "fixed").touch()

    retried = await here.finish((await here.installation.control_plane.retry(RetryRequest(id=first["id"]))).id)

    assert (retried["status"], retried["output"], retried["forked_from"]) == ("succeeded", 3, first["id"])
    assert (tmp_path / "log").read_text().split() == ["one", "two", "two"]
    forked = await here.finish(
        (await here.installation.control_plane.retry(RetryRequest(id=retried["id"], from_step="two"))).id
    )
    assert (tmp_path / "log").read_text().split() == ["one", "two", "two", "two"]
    assert step_of(forked, "one")["cached"]


async def test_bad_input_starts_nothing(here: Plane) -> None:
    name = await here.deploy(
        "name: strict\ninputs: {type: object, required: [n], properties: {n: {type: integer}}}\n"
        "steps: [{id: a, type: transform, with: {value: 1}}]"
    )

    with pytest.raises(InvalidInput, match=r"input\.n: 'x' is not of type 'integer'"):
        await here.installation.control_plane.start(StartRequest(workflow=name, input={"n": "x"}))

    await here.execute("name: other\nsteps: [{id: a, type: transform, with: {value: 1}}]")
    page = await here.installation.store.reader.executions(_any())
    assert [each.workflow for each in page.items] == ["other"]


def _any():
    from flexcore.model.requests import ExecutionQuery

    return ExecutionQuery()


async def test_a_pin_that_nothing_can_follow_is_refused(here: Plane) -> None:
    with pytest.raises(NoFeasibleRuntime, match="runtime 'meltano' can run no step"):
        await here.execute("name: pinned\nsteps: [{id: a, type: bash, with: {script: 'true'}}]", runtime="meltano")
    await here.execute("name: other\nsteps: [{id: a, type: transform, with: {value: 1}}]")


async def test_a_step_that_no_runtime_can_run_fails_with_each_runtimes_reason(here: Plane) -> None:
    document = await here.execute("""
name: greedy
steps: [{id: a, type: bash, requirements: {gpu: 4}, with: {script: "true"}}]
""")

    assert document["error"]["name"] == "NoFeasibleRuntime"
    assert "local" in document["error"]["message"]
    assert "meltano" in document["error"]["message"]


async def test_one_task_runs_on_a_runtime_without_a_file(here: Plane) -> None:
    plane = here.installation.control_plane
    request = TaskRequest(runtime="local", type="bash", parameters={"script": "echo hi"})

    started = await plane.execute_task(request)

    document = await here.finish(started.id)
    assert document["output"] == {"stdout": "hi\n", "exit_code": 0}
    assert await plane.workflows() == []


async def test_a_looping_expression_fails_its_step_and_nothing_else(here: Plane) -> None:
    document = await here.execute("""
name: loops
steps:
  - {id: forever, type: transform, on_error: continue, with: {value: "${{ (() => { while (true) {} })() }}"}}
  - {id: fine, type: transform, with: {value: "${{ 1 + 1 }}"}}
""")

    assert document["output"] == 2
    assert step_of(document, "forever")["error"]["step"] == "forever"
