"""Process steps on the local runtime, with real processes: results, failures, adoption, cancel, slots."""

import asyncio
import os
import signal
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from local_steps import Local, Seen, eventually

from flexcore.model.execution import Handle, Phase
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import ExecutionId, external_name
from flexcore.model.workflow import Requirements
from flexcore.runtime import shim
from flexcore.runtime.interface import (
    ExecutionScope,
    Finished,
    LogChunk,
    LogStream,
    PhaseEntered,
    Submitted,
    Survey,
)


async def test_events_come_in_order(local: Local) -> None:
    seen = await local.run("bash", {"script": "echo hi"})

    assert isinstance(seen.events[0], Submitted)
    assert not seen.events[0].adopted
    assert [event.phase for event in seen.events if isinstance(event, PhaseEntered)] == [Phase.START, Phase.RUN]
    assert [type(event) for event in seen.events].count(Finished) == 1
    last = seen.events[-1]
    assert isinstance(last, Finished)
    assert last.result.usage.peak_memory_bytes
    assert last.result.phases[Phase.RUN] > timedelta(0)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("echo hello", {"stdout": "hello\n", "exit_code": 0}),
        ("true", {"stdout": "", "exit_code": 0}),
        ("echo log; echo '{\"a\": [1, null]}'", {"a": [1, None]}),
        ("echo NaN", {"stdout": "NaN\n", "exit_code": 0}),
        ("echo null > $FLEXCORE_RESULT; echo 1", None),
        ("echo 'grüße, 世界'", {"stdout": "grüße, 世界\n", "exit_code": 0}),
    ],
)
async def test_the_result_of_bash(local: Local, script: str, expected: object) -> None:
    assert (await local.run("bash", {"script": script})).output == expected


async def test_bash_gets_arguments_unharmed_and_out_of_sight(local: Local) -> None:
    args = ["a b", "it's", 'q"$HOME`id`', "two\nlines", "back\\slash", 3, True, None, {"k": [1]}, "ü"]
    script = 'for each in "$@"; do printf "%s|" "$each"; done; tr "\\0" " " < /proc/$$/cmdline'

    seen = await local.run("bash", {"script": script, "args": args})

    printed, _, command_line = seen.output["stdout"].rpartition("|")
    assert printed.split("|") == [*args[:5], "3", "true", "", '{"k":[1]}', "ü"]
    assert command_line.split() == ["bash", "-eo", "pipefail", "/dev/fd/3"]


async def test_a_bash_file_knows_its_name_and_its_neighbours(local: Local) -> None:
    (local.folder / "go.sh").write_text('#!/bin/bash\necho "$(basename "$0") $1 $(cat neighbour)"; exit 0\n')
    (local.folder / "neighbour").write_text("here")

    assert (await local.run("bash", {"file": "go.sh", "args": ["x"]})).output["stdout"] == "go.sh x here\n"


@pytest.mark.parametrize("script", ["false | true", "false\necho not reached"])
async def test_bash_stops_at_the_first_failure(local: Local, script: str) -> None:
    assert (await local.run("bash", {"script": script})).failure.name == "exit 1"


async def test_a_failed_command_shows_its_last_words_without_secrets(local: Local) -> None:
    seen = await local.run("bash", {"script": "echo 'no access with hunter2' >&2; exit 3"}, secrets=("hunter2",))

    assert seen.failure.error_class is ErrorClass.USER
    assert seen.failure.name == "exit 3"
    assert seen.failure.message == "ended with exit code 3: no access with ***"


async def test_children_get_a_clean_environment(local: Local, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLEXCORE_SECRET_KEY", "key")
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    fresh = Local(local.folder.parent)
    script = "import os\ndef main(): return dict(os.environ)"

    seen = await fresh.run("python", {"script": script, "env": {"MINE": 1, "BOTH": "step"}}, env={"BOTH": "request"})

    assert seen.output["MINE"] == "1"
    assert seen.output["BOTH"] == "step"
    assert seen.output["FLEXCORE_STEP"] == "step1"
    assert seen.output["FLEXCORE_TOKEN"] == "7"
    assert not {"FLEXCORE_SECRET_KEY", "FLEXCORE_FAILURE", "PYTHONPATH"} & set(seen.output)


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        ("def main(a, b=2): return {'sum': a + b}", {"sum": 3}),
        ("def main(a): pass", None),
        ("async def main(a): return a", 1),
        ("import sys\ndef main(a): sys.exit(0)", None),
        ("import os\ndef main(a): open(os.environ['FLEXCORE_RESULT'], 'w').write('[7]')", [7]),
        ("import sys\ndef main(a): return [sys.stdin.read(), __name__]", ["", "flexcore_step"]),
        ("def main(a): return 'x' * 5_000_000", "x" * 5_000_000),
    ],
)
async def test_the_result_of_python(local: Local, script: str, expected: object) -> None:
    assert (await local.run("python", {"script": script, "args": {"a": 1}})).output == expected


@pytest.mark.parametrize(
    ("script", "name", "error_class", "part"),
    [
        ("def main(): raise ValueError('bad row')", "ValueError", ErrorClass.USER, "bad row"),
        ("def main(): return {1, 2}", "InvalidResult", ErrorClass.USER, "not JSON"),
        ("def main(): return float('nan')", "InvalidResult", ErrorClass.USER, "not JSON"),
        ("def main(): return '\\ud800'", "InvalidResult", ErrorClass.USER, "not JSON"),
        ("import sys\ndef main(): sys.exit(3)", "exit 3", ErrorClass.USER, "exit code 3"),
        ("import sys\ndef main(): sys.exit('no luck')", "SystemExit", ErrorClass.USER, "no luck"),
        ("import os\ndef main(): os._exit(0)", "NoResult", ErrorClass.USER, "before `main` returned"),
        ("def main(): raise MemoryError", "MemoryError", ErrorClass.OOM, "out of memory"),
        ("def other(): pass", "AttributeError", ErrorClass.USER, "no function `main`"),
        ("def main(:", "SyntaxError", ErrorClass.USER, "invalid syntax"),
        ("def main(x): pass", "TypeError", ErrorClass.USER, "missing 1 required"),
        ("import os\ndef main(): os.kill(os.getpid(), 11)", "SIGSEGV", ErrorClass.USER, "SIGSEGV"),
    ],
)
async def test_a_failure_of_python(local: Local, script: str, name: str, error_class: ErrorClass, part: str) -> None:
    failure = (await local.run("python", {"script": script})).failure

    assert (failure.name, failure.error_class) == (name, error_class)
    assert part in failure.message


async def test_a_traceback_shows_the_authors_frames_only(local: Local) -> None:
    (local.folder / "sub").mkdir()
    (local.folder / "sub" / "step.py").write_text("import near\nimport far\ndef main():\n    return near.fail()\n")
    (local.folder / "sub" / "near.py").write_text("def fail():\n    return 1 / 0\n")
    (local.folder / "far.py").write_text("")

    seen = await local.run("python", {"file": "sub/step.py"})

    trace = seen.log(LogStream.STDERR).decode()
    assert trace.count("File ") == 2
    assert "return near.fail()" in trace
    assert "flexcore_local" not in trace
    assert trace.rstrip().endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize(
    ("kind", "parameters", "part"),
    [
        ("python", {"script": "x", "packages": ["--pre"]}, "does not begin with"),
        ("python", {"script": "x", "file": "y"}, "exactly one"),
        ("python", {"file": "missing.py"}, "missing.py"),
        ("bash", {}, "exactly one"),
        ("bash", {"script": "x", "shell": "zsh"}, "shell"),
        ("bash", {"script": "x", "args": ["\ud800"]}, "lone surrogate"),
        ("bash", {"script": "x", "args": ["a\0b"]}, "NUL"),
        ("http", {"url": "file:///etc/passwd"}, "only http"),
        ("sql", {"connection": "sqlite://", "script": "x", "args": {}, "params": []}, "not both"),
    ],
)
async def test_what_cannot_be_right_starts_nothing(
    local: Local, kind: str, parameters: dict[str, object], part: str
) -> None:
    seen = await local.run(kind, parameters)

    assert len(seen.events) == 1
    assert seen.failure.error_class is ErrorClass.INPUT
    assert part in seen.failure.message
    assert shim.survey(local.state / "attempts") == {}


async def test_binary_output_arrives_as_it_was(local: Local) -> None:
    script = "import sys\ndef main():\n sys.stdout.buffer.write(bytes(range(256)) * 4000)\n sys.stderr.write('ü' * 9)"

    seen = await local.run("python", {"script": script})

    assert seen.log() == bytes(range(256)) * 4000
    assert seen.log(LogStream.STDERR).decode() == "ü" * 9


async def test_detached_work_is_adopted_by_handle_and_by_name(local: Local) -> None:
    request = local.request("bash", {"script": "echo one; until [ -e go ]; do sleep 0.01; done; echo two; echo 5"})
    handle = await local.submit(request)
    later = local.another()
    by_handle = asyncio.create_task(local.execute(replace(request, handle=handle), later))
    by_name = asyncio.create_task(local.execute(request, later))

    (local.folder / "go").touch()

    for seen in (await by_handle, await by_name):
        assert seen.submitted == Submitted(handle, adopted=True)
        assert seen.log() == b"one\ntwo\n5\n"
        assert seen.output == 5


async def test_logs_continue_at_the_offset_after_adoption(local: Local) -> None:
    request = local.request("bash", {"script": "echo one; until [ -e go ]; do sleep 0.01; done; echo two"})
    events = local.runtime.execute(request)
    while not isinstance(event := await anext(events), LogChunk):
        pass
    await events.aclose()

    (local.folder / "go").touch()
    seen = await local.execute(replace(request, log_offsets={LogStream.STDOUT: len(event.data)}))

    assert event.data + seen.log() == b"one\ntwo\n"
    assert next(each.offset for each in seen.events if isinstance(each, LogChunk)) == len(event.data)


async def test_the_same_attempt_runs_once_until_it_is_cleaned_up(local: Local) -> None:
    request = local.request("bash", {"script": "echo x >> count; sleep 0.1; wc -l < count"})

    both = await asyncio.gather(local.execute(request), local.execute(request, local.another()))
    again = await local.execute(request)
    report = await local.cancel(request)
    anew = await local.execute(request)

    assert [seen.output for seen in (*both, again)] == [1, 1, 1]
    assert report.gone == {external_name(local.installation, request.id)}
    assert anew.output == 2


async def test_a_killed_shim_is_lost_and_nothing_is_left(local: Local) -> None:
    request = local.request("bash", {"script": "(setsid sleep 1000 &); sleep 1000"})
    handle = await local.submit(request)

    os.kill(int(handle.identity.split(":")[0]), signal.SIGKILL)
    seen = await local.execute(replace(request, handle=handle))

    assert seen.failure.error_class is ErrorClass.LOST
    assert shim.owned_processes(handle.name) == set()


async def test_a_handle_whose_work_is_gone_is_lost_and_starts_nothing(local: Local) -> None:
    request = local.request("bash", {"script": "touch ran"}, handle=Handle(1, "fx-gone", "1:1"))

    seen = await local.execute(request)

    assert seen.failure.error_class is ErrorClass.LOST
    assert not (local.folder / "ran").exists()


async def test_cancel_gives_time_to_finish(local: Local) -> None:
    request = local.request("bash", {"script": "trap 'echo told; exit 0' TERM; touch up; while :; do sleep 0.02; done"})
    task = asyncio.create_task(local.execute(request))
    await eventually((local.folder / "up").exists)

    report = await local.cancel(request)
    seen = await task

    assert report.gone == {external_name(local.installation, request.id)}
    assert seen.failure.error_class is ErrorClass.CANCELLED
    assert seen.log() == b"told\n"
    assert not any((local.state / "attempts").iterdir())


async def test_cancel_forces_what_ignores_it(local: Local) -> None:
    script = "trap '' TERM; (setsid sleep 1000 &); touch up; while :; do sleep 0.05; done"
    request = local.request("bash", {"script": script})
    task = asyncio.create_task(local.execute(request))
    await eventually((local.folder / "up").exists)

    await local.cancel(request, grace_s=0.1)

    assert (await task).failure.error_class is ErrorClass.CANCELLED
    assert shim.owned_processes(external_name(local.installation, request.id)) == set()


async def test_the_deadline_is_a_backstop(local: Local) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=0.2)

    seen = await local.run("bash", {"script": "sleep 1000"}, deadline=deadline)

    assert seen.failure.error_class is ErrorClass.TIMEOUT


async def test_memory_above_the_requirement_is_oom(local: Local) -> None:
    script = "import time\ndef main():\n held = bytearray(200_000_000)\n time.sleep(100)"

    seen = await local.run("python", {"script": script}, requirements=Requirements(memory=100 << 20))

    assert seen.failure.error_class is ErrorClass.OOM


async def test_slots_limit_what_runs_at_a_time(tmp_path: Path) -> None:
    local = Local(tmp_path, slots=1)
    first = local.request("bash", {"script": "touch up; until [ -e go ]; do sleep 0.01; done; touch done"})
    running = asyncio.create_task(local.execute(first))
    await eventually((local.folder / "up").exists)
    waiting = local.runtime.execute(local.request("bash", {"script": "test -e done"}))
    queued = await anext(waiting)

    (local.folder / "go").touch()
    rest = Seen([event async for event in waiting])

    assert isinstance(queued, PhaseEntered)
    assert queued.phase is Phase.QUEUE
    assert rest.output == {"stdout": "", "exit_code": 0}
    assert (await running).output["exit_code"] == 0


async def test_what_waits_for_a_slot_can_be_cancelled_and_never_starts(tmp_path: Path) -> None:
    local = Local(tmp_path, slots=1)
    first = local.request("bash", {"script": "touch up; sleep 1000"})
    running = asyncio.create_task(local.execute(first))
    await eventually((local.folder / "up").exists)
    second = local.request("bash", {"script": "touch ran"})
    waiting = local.runtime.execute(second)
    await anext(waiting)
    rest = asyncio.create_task(anext(waiting))
    await asyncio.sleep(0)

    report = await local.cancel(second)
    finished = await rest
    await local.cancel(first, grace_s=0)

    assert report.gone == {external_name(local.installation, second.id)}
    assert Seen([finished]).failure.error_class is ErrorClass.CANCELLED
    assert (await running).failure.error_class is ErrorClass.CANCELLED
    assert not (local.folder / "ran").exists()


async def test_an_execution_is_surveyed_and_ended_as_a_whole(local: Local) -> None:
    requests = [local.request("bash", {"script": "sleep 1000"}) for _ in range(2)]
    for request in requests:
        await local.submit(request)
    names = {external_name(local.installation, request.id) for request in requests}

    surveyed = await local.runtime.cleanup(Survey(local.installation))
    elsewhere = await local.runtime.cleanup(Survey("there"))
    ended = await local.runtime.cleanup(ExecutionScope(execution=ExecutionId("exe_1"), grace=timedelta(0)))

    assert surveyed.pending == names
    assert set(surveyed.attempts.values()) == {request.id for request in requests}
    assert elsewhere.pending == frozenset()
    assert ended.gone == names
    assert (await local.runtime.cleanup(Survey(local.installation))).pending == frozenset()


async def test_an_execution_is_ended_with_what_waits(tmp_path: Path) -> None:
    local = Local(tmp_path, slots=1)
    first, second = (local.request("bash", {"script": "touch up; sleep 1000"}) for _ in range(2))
    tasks = [asyncio.create_task(local.execute(request)) for request in (first, second)]
    await eventually((local.folder / "up").exists)

    ended = await local.runtime.cleanup(ExecutionScope(execution=ExecutionId("exe_1"), grace=timedelta(0)))

    assert ended.gone == {external_name(local.installation, request.id) for request in (first, second)}
    assert [(await task).failure.error_class for task in tasks] == [ErrorClass.CANCELLED] * 2


async def test_an_environment_that_cannot_be_passed_is_an_input_failure(local: Local) -> None:
    seen = await local.run("bash", {"script": "x", "env": {"A": "a\0b"}})

    assert seen.failure.error_class is ErrorClass.INPUT


async def test_a_result_above_the_limit_is_refused(tmp_path: Path) -> None:
    local = Local(tmp_path, max_result_bytes=1000)

    seen = await local.run("python", {"script": "def main(): return 'x' * 2000"})

    assert seen.failure.name == "ResultTooLarge"


async def test_health_and_capabilities_say_what_is_there(local: Local) -> None:
    await local.run("bash", {"script": "true"})

    health = await local.runtime.health()
    capabilities = await local.runtime.capabilities()

    assert health.state.value == "up"
    assert health.start_latency is not None
    assert capabilities.limits.slots == 4
    assert {kind.value for kind in capabilities.step_kinds} == {"python", "bash", "http", "sql", "function"}
