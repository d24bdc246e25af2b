"""Function steps: the host process, its calls side by side, its death, and what is lost with it."""

import asyncio
import subprocess
import sys
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from local_steps import Local, Seen, eventually

from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass
from flexcore.runtime.flexcore_far.shim_main import process_stat
from flexcore.runtime.interface import Finished, LogStream, PhaseEntered, Submitted

FUNCTIONS = """
import asyncio, os, subprocess, sys, threading, time
import flexcore

counter = 0
threads, tasks, all_tasks = threading.Barrier(200, timeout=60), 0, asyncio.Event()

@flexcore.task
def echo(**args): return args

@flexcore.task
async def later(seconds, value):
    await asyncio.sleep(seconds)
    return value

@flexcore.task
def block(seconds):
    time.sleep(seconds)
    return "slept"

@flexcore.task
def block_until(path):
    while not os.path.exists(path): time.sleep(0.01)
    return "seen"

@flexcore.task
def meet():
    threads.wait()
    return "met"

@flexcore.task
async def meet_later(value):
    global tasks
    tasks += 1
    if tasks == 200: all_tasks.set()
    await asyncio.wait_for(all_tasks.wait(), 60)
    return value

@flexcore.task
def count():
    global counter
    counter += 1
    return counter

@flexcore.task
def fail(): raise ValueError("bad row")

@flexcore.task
async def fail_later(): raise ValueError("bad row")

@flexcore.task
def say(text):
    print(text)
    print("to stderr", file=sys.stderr)
    os.system("echo past python")
    return len(text)

@flexcore.task
async def say_later(text):
    for _ in range(3):
        print(text)
        await asyncio.sleep(0)

@flexcore.task
def die():
    os.write(2, b"last words\\\\n")
    os._exit(5)

@flexcore.task
def with_child(path):
    subprocess.Popen(["sleep", "1000"])
    open(path, "w").close()
    time.sleep(1000)

@flexcore.task
async def stubborn(path):
    open(path, "w").close()
    while True:
        try:
            await asyncio.sleep(1000)
        except asyncio.CancelledError:
            pass

@flexcore.task
def returns(code): return eval(code)

@flexcore.task
def environment(name): return os.environ.get(name)

@flexcore.task
def quit(): sys.exit(3)

class Mute(Exception):
    def __str__(self): raise RuntimeError

@flexcore.task
def undescribed(): raise Mute

@flexcore.task
async def spin():
    open("pid", "w").write(str(os.getpid()))
    while True: pass

def unmarked(): return 1
"""


@pytest.fixture
def calls(local: Local) -> Local:
    (local.folder / "functions.py").write_text(FUNCTIONS.replace("\\\\n", "\\n"))
    return local


def step(function: str, **args: Any) -> dict[str, Any]:
    return {"name": f"functions:{function}", "args": args}


async def call(local: Local, function: str, **args: Any) -> Seen:
    return await local.run("function", step(function, **args))


def host_pid(local: Local) -> int:
    (host,) = local.runtime._functions._hosts.values()
    return int(host.handle.identity)


def alive(pid: int) -> bool:
    stat = process_stat(pid)
    return stat is not None and stat[0] != "Z"


async def test_a_call_is_submitted_and_finished_and_no_more(calls: Local) -> None:
    seen = await call(calls, "echo", a=1, b=["ü", None, {"c": 2.5}])

    assert [type(event) for event in seen.events] == [Submitted, Finished]
    assert seen.output == {"a": 1, "b": ["ü", None, {"c": 2.5}]}


async def test_the_host_stays_warm(calls: Local) -> None:
    assert [(await call(calls, "count")).output for _ in range(3)] == [1, 2, 3]


@pytest.mark.parametrize("function", ["fail", "fail_later"])
async def test_an_exception_is_the_users_failure_with_the_users_frames(calls: Local, function: str) -> None:
    seen = await call(calls, function)

    assert (seen.failure.name, seen.failure.message, seen.failure.error_class) == (
        "ValueError",
        "bad row",
        ErrorClass.USER,
    )
    trace = seen.log(LogStream.STDERR).decode()
    assert trace.count("File ") == 1
    assert trace.endswith("ValueError: bad row\n")


@pytest.mark.parametrize(
    ("name", "part"),
    [
        ("functions:unmarked", "not marked"),
        ("functions:missing", "no function 'missing'"),
        ("nowhere:x", "nor installed"),
        ("os:system", "not marked"),
    ],
)
async def test_only_marked_functions_can_be_called(calls: Local, name: str, part: str) -> None:
    failure = (await calls.run("function", {"name": name})).failure

    assert failure.error_class is ErrorClass.INPUT
    assert part in failure.message


@pytest.mark.parametrize("code", ["float('nan')", "[None, {'x': float('inf')}]", "object()"])
async def test_a_result_that_is_not_json_fails_alone(calls: Local, code: str) -> None:
    good = [asyncio.create_task(call(calls, "returns", code="[None]")) for _ in range(20)]

    seen = await call(calls, "returns", code=code)

    assert seen.failure.name == "InvalidResult"
    assert [(await each).output for each in good] == [[None]] * 20


async def test_arguments_that_cannot_be_sent_fail_alone(calls: Local) -> None:
    good = [asyncio.create_task(call(calls, "echo", n=n)) for n in range(5)]

    seen = await call(calls, "echo", text="\ud800")

    assert seen.failure.error_class is ErrorClass.INPUT
    assert [(await each).output for each in good] == [{"n": n} for n in range(5)]


async def test_an_exception_that_cannot_describe_itself_is_still_one(calls: Local) -> None:
    assert (await call(calls, "undescribed")).failure.name == "Mute"
    assert (await call(calls, "count")).output == 1


async def test_large_results_and_arguments_pass(calls: Local) -> None:
    assert (await call(calls, "echo", text="ü" * 3_000_000)).output["text"] == "ü" * 3_000_000


async def test_prints_belong_to_their_call_and_harm_nothing(calls: Local) -> None:
    sync, *others = await asyncio.gather(
        call(calls, "say", text="grüße"), *(call(calls, "say_later", text=f"n{n}") for n in range(5))
    )

    assert sync.log() == "grüße\n".encode()
    assert sync.log(LogStream.STDERR) == b"to stderr\n"
    assert sync.output == 5
    assert [seen.log() for seen in others] == [f"n{n}\n".encode() * 3 for n in range(5)]


async def test_calls_run_side_by_side(calls: Local) -> None:
    seen = await asyncio.gather(
        *(call(calls, "meet") for _ in range(200)),
        *(call(calls, "meet_later", value=n) for n in range(200)),
    )

    assert [each.output for each in seen] == ["met"] * 200 + list(range(200))


async def test_a_quick_call_does_not_wait_for_a_slow_one(calls: Local) -> None:
    go = calls.folder / "go"
    slow = asyncio.create_task(call(calls, "block_until", path=str(go)))
    await asyncio.sleep(0)

    assert (await call(calls, "echo")).output == {}
    assert not slow.done()
    go.touch()
    assert (await slow).output == "seen"


async def test_a_crash_of_the_host_loses_its_calls_and_the_next_gets_another(calls: Local) -> None:
    bystander = asyncio.create_task(call(calls, "later", seconds=1000, value=1))
    await asyncio.sleep(0)

    seen = await call(calls, "die")

    assert seen.failure.error_class is ErrorClass.LOST
    assert "last words" in seen.failure.message
    assert (await bystander).failure.error_class is ErrorClass.LOST
    assert (await call(calls, "count")).output == 1


async def test_sys_exit_ends_the_call_not_the_host(calls: Local) -> None:
    await call(calls, "count")

    assert (await call(calls, "quit")).failure.name == "SystemExit"
    assert (await call(calls, "count")).output == 2


async def test_cancel_of_a_synchronous_call_kills_the_host_and_all_it_started(calls: Local) -> None:
    up = calls.folder / "up"
    request = calls.request("function", step("with_child", path=str(up)))
    task = asyncio.create_task(calls.execute(request))
    await eventually(up.exists)
    bystander = asyncio.create_task(call(calls, "later", seconds=1000, value=1))
    await asyncio.sleep(0)
    pid = host_pid(calls)
    children = Path(f"/proc/{pid}/task").glob("*/children")
    child = int("".join(each.read_text() for each in children).split()[0])

    await calls.cancel(request)

    assert (await task).failure.error_class is ErrorClass.CANCELLED
    assert (await bystander).failure.error_class is ErrorClass.LOST
    await eventually(lambda: not alive(pid) and not alive(child))


async def test_cancel_of_an_asynchronous_call_harms_nobody(calls: Local) -> None:
    await call(calls, "later", seconds=0, value=1)
    request = calls.request("function", step("later", seconds=1000, value=1))
    task = asyncio.create_task(calls.execute(request))
    await asyncio.sleep(0)

    await calls.cancel(request)

    assert (await task).failure.error_class is ErrorClass.CANCELLED
    assert (await call(calls, "count")).output == 1
    assert (await call(calls, "count")).output == 2


async def test_an_asynchronous_call_that_will_not_end_is_forced(calls: Local) -> None:
    up = calls.folder / "up"
    request = calls.request("function", step("stubborn", path=str(up)))
    task = asyncio.create_task(calls.execute(request))
    await eventually(up.exists)

    await calls.cancel(request, grace_s=0.1)

    assert (await task).failure.error_class is ErrorClass.CANCELLED


async def test_the_deadline_ends_a_call(calls: Local) -> None:
    deadline = datetime.now(UTC) + timedelta(seconds=0.2)

    seen = await calls.run("function", step("block", seconds=1000), deadline=deadline)

    assert seen.failure.error_class is ErrorClass.TIMEOUT


async def test_closing_detaches_and_the_same_process_finds_the_call(calls: Local) -> None:
    request = calls.request("function", step("later", seconds=0.1, value=9))
    handle = await calls.submit(request)

    seen = await calls.execute(replace(request, handle=handle))

    assert seen.submitted == Submitted(handle, adopted=True)
    assert seen.output == 9


async def test_cancelling_one_reader_leaves_the_other(calls: Local) -> None:
    request = calls.request("function", step("later", seconds=0.2, value=9))
    first = asyncio.create_task(calls.execute(request))
    await asyncio.sleep(0.05)
    second = asyncio.create_task(calls.execute(request))
    await asyncio.sleep(0.05)

    first.cancel()

    assert (await second).output == 9


async def test_a_call_of_an_earlier_process_is_lost(calls: Local) -> None:
    request = calls.request("function", step("count"))
    handle = await calls.submit(request)

    seen = await calls.execute(replace(request, handle=handle), calls.another())

    assert seen.failure.error_class is ErrorClass.LOST


async def test_each_environment_has_a_host_of_its_own(calls: Local) -> None:
    one = await calls.run("function", step("environment", name="WHO"), env={"WHO": "one"})
    two = await calls.run("function", step("environment", name="WHO"))

    assert (one.output, two.output) == ("one", None)


async def test_calls_at_a_time_are_limited_apart_from_slots(tmp_path: Path) -> None:
    local = Local(tmp_path, slots=1, function_limit=1)
    (local.folder / "functions.py").write_text(FUNCTIONS)
    first = asyncio.create_task(call(local, "later", seconds=0.1, value=1))
    await asyncio.sleep(0)

    seen = await call(local, "later", seconds=0, value=2)

    assert isinstance(seen.events[0], PhaseEntered)
    assert seen.events[0].phase is Phase.QUEUE
    assert (seen.output, (await first).output) == (2, 1)
    await local.runtime.close()


async def test_the_host_dies_with_its_server_whatever_runs_in_it(calls: Local, tmp_path: Path) -> None:
    program = """if True:
        import asyncio, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[1])
        from local_steps import Local
        local = Local(Path(sys.argv[2]))
        asyncio.run(local.run("function", {"name": "functions:spin"}))
    """
    here = str(Path(__file__).parent)
    server = subprocess.Popen([sys.executable, "-c", program, here, str(tmp_path)])
    pid_file = calls.folder / "pid"
    await eventually(lambda: pid_file.exists() and pid_file.read_text() != "")
    pid = int(pid_file.read_text())

    server.kill()
    server.wait()

    await eventually(lambda: not alive(pid))
