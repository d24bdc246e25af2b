"""The shim with real processes: what it runs, keeps, ends, and what is found again."""

import asyncio
import os
import py_compile
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from flexcore.runtime import shim
from flexcore.runtime.flexcore_far import shim_main
from flexcore.runtime.interface import LogChunk, LogStream
from flexcore.runtime.shim import Command, Found, Lost, Reason, State, Status
from flexcore.testing.runtime_harness import fresh_name

NO_GRACE = timedelta(0)
PATH = os.environ["PATH"]


def bash(text: str, *, cwd: Path, **options: object) -> Command:
    return Command(argv=("bash", "-c", text), env={"PATH": PATH}, cwd=cwd, **options)  # type: ignore[arg-type]  # a test's short cut


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # A name of its own, as attempts have: what belongs to one is found by it on the whole machine.
    return tmp_path / "attempts" / fresh_name("fx-")


async def collect(folder: Path, offsets: dict[LogStream, int] | None = None) -> tuple[bytes, bytes, Status | Lost]:
    output = {LogStream.STDOUT: b"", LogStream.STDERR: b""}
    async for event in shim.follow(folder, offsets or {}):
        match event:
            case LogChunk(stream=stream, data=data):
                output[stream] += data
            case end:
                return output[LogStream.STDOUT], output[LogStream.STDERR], end
    raise AssertionError("the stream ended without an end")


async def status_of(folder: Path) -> Status:
    _, _, end = await collect(folder)
    assert isinstance(end, Status)
    return end


async def eventually(condition: Callable[[], bool], seconds: float = 10) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "the condition never came true"
        await asyncio.sleep(0.01)


async def started(folder: Path, text: str, **options: object) -> Found:
    found = (await shim.start(folder, bash(text, cwd=folder.parent.parent, **options))).found
    assert found.record is not None
    return found


async def test_exit_code_and_both_streams_are_kept(folder: Path) -> None:
    await started(folder, "echo out; echo err >&2; exit 3")

    stdout, stderr, end = await collect(folder)

    assert (stdout, stderr) == (b"out\n", b"err\n")
    assert isinstance(end, Status)
    assert (end.exit_code, end.signal, end.reason) == (3, None, Reason.BY_ITSELF)
    assert end.finished >= end.started
    assert end.peak_bytes > 0


async def test_a_signal_is_told_from_an_exit(folder: Path) -> None:
    await started(folder, "kill -USR1 $$")

    status = await status_of(folder)

    assert (status.exit_code, status.signal) == (None, signal.SIGUSR1)


async def test_the_command_has_default_signals_its_own_session_and_only_its_environment(folder: Path) -> None:
    await started(folder, "grep -E 'SigIgn|SigBlk' /proc/self/status; env; cut -d' ' -f6 /proc/$$/stat; echo $$")

    stdout, _, _ = await collect(folder)

    lines = stdout.decode().split("\n")
    ordinary = [int(line.split()[1], 16) & 0x7FFFFFFF for line in lines[:2]]  # the C library keeps two above 31
    assert ordinary == [0, 0]
    assert lines[-3] == lines[-2]
    assert not any(line.startswith("HOME=") for line in lines)


async def test_stdin_script_and_environment_reach_the_command_and_no_file(folder: Path) -> None:
    command = Command(
        argv=("bash", "/dev/fd/3"),
        env={"PATH": PATH, "HIDDEN": "secret-in-env"},
        cwd=folder.parent.parent,
        stdin=b"secret-in-stdin" * 20_000,
        script=b"# secret-in-script\nwc -c; echo $HIDDEN | wc -c",
    )

    await shim.start(folder, command)
    stdout, _, _ = await collect(folder)

    assert stdout.split() == [b"300000", b"14"]
    assert not any(b"secret-in" in each.read_bytes() for each in folder.iterdir())


async def test_what_is_written_is_private(folder: Path) -> None:
    await started(folder, "true")
    await status_of(folder)

    assert folder.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o077 for each in folder.iterdir()} == {0}


async def test_a_command_that_cannot_start_says_why(folder: Path, tmp_path: Path) -> None:
    await shim.start(folder, Command(argv=("no-such-command",), env={"PATH": PATH}, cwd=tmp_path))
    status = await status_of(folder)

    other = folder.with_name("fx-other")
    await shim.start(other, Command(argv=("true",), env={"PATH": PATH}, cwd=tmp_path / "missing"))
    other_status = await status_of(other)

    assert (status.problem, status.errno) == ("command", 2)
    assert (other_status.problem, other_status.errno) == ("folder", 2)


async def test_starting_at_the_same_time_runs_once(folder: Path) -> None:
    command = bash("echo x >> count; sleep 0.2", cwd=folder.parent.parent)

    outcomes = await asyncio.gather(*(shim.start(folder, command) for _ in range(5)))
    await status_of(folder)
    again = await shim.start(folder, command)

    assert [each.adopted for each in outcomes].count(False) == 1
    assert len({each.found.record.pid for each in outcomes if each.found.record}) == 1
    assert again.adopted
    assert again.found.state is State.ENDED
    assert (folder.parent.parent / "count").read_text() == "x\n"


async def test_closing_detaches_and_offsets_continue(folder: Path) -> None:
    await started(folder, "echo one; while [ ! -e go ]; do sleep 0.01; done; echo two")
    events = shim.follow(folder, {})
    first = await anext(events)
    await events.aclose()
    assert isinstance(first, LogChunk)

    (folder.parent.parent / "go").touch()
    stdout, _, end = await collect(folder, {LogStream.STDOUT: len(first.data)})

    assert first.data + stdout == b"one\ntwo\n"
    assert isinstance(end, Status)
    assert end.exit_code == 0


async def test_a_flood_keeps_head_and_tail(folder: Path) -> None:
    await started(folder, "echo first; head -c 300000 /dev/zero | tr '\\0' x; echo last", max_output_bytes=1000)

    stdout, _, end = await collect(folder)

    assert isinstance(end, Status)
    assert stdout.startswith(b"first\nxxx")
    assert stdout.endswith(b"xxxlast\n")
    assert len(stdout) < 70_000
    assert end.dropped["stdout"] == 300_011 - 1000 - (1 << 16)
    assert f"{end.dropped['stdout']} bytes of output left out".encode() in stdout


async def test_cancel_tells_the_tree_first(folder: Path) -> None:
    found = await started(folder, "trap 'echo told; exit 5' TERM; echo up; while :; do sleep 0.02; done")
    await eventually(lambda: (folder / "stdout").read_bytes() == b"up\n")

    ended = await shim.cancel(folder, timedelta(seconds=5))

    assert found.state is State.RUNNING
    assert ended.status is not None
    assert (ended.status.exit_code, ended.status.reason) == (5, Reason.CANCELLED)
    assert (folder / "stdout").read_bytes() == b"up\ntold\n"


async def test_cancel_kills_what_ignores_it_and_a_daemon(folder: Path) -> None:
    daemon = "(setsid bash -c 'trap \"\" TERM; echo daemon; while :; do sleep 0.1; done' & ) ; "
    await started(folder, f"trap '' TERM; {daemon} while :; do sleep 0.1; done")
    await eventually(lambda: (folder / "stdout").read_bytes() == b"daemon\n")
    assert len(shim.owned_processes(folder.name)) >= 2

    ended = await shim.cancel(folder, timedelta(seconds=0.2))

    assert ended.status is not None
    assert ended.status.signal == signal.SIGKILL
    assert shim.owned_processes(folder.name) == set()


async def test_a_second_cancel_shortens_the_grace(folder: Path) -> None:
    await started(folder, "trap '' TERM; echo up; while :; do sleep 0.05; done")
    await eventually(lambda: (folder / "stdout").read_bytes() == b"up\n")
    patient = asyncio.create_task(shim.cancel(folder, timedelta(seconds=60)))
    await eventually((folder / "cancel").exists)

    began = time.monotonic()
    await shim.cancel(folder, NO_GRACE)

    assert time.monotonic() - began < 30
    assert (await patient).state is State.ENDED


async def test_leftovers_end_with_the_command(folder: Path) -> None:
    await started(folder, "sleep 1000 & (setsid sleep 1000 &) ; exit 0")

    status = await status_of(folder)

    assert status.exit_code == 0
    assert shim.owned_processes(folder.name) == set()


async def test_the_time_limit_is_kept(folder: Path) -> None:
    await started(folder, "sleep 1000", time_limit=timedelta(seconds=0.1), grace=timedelta(seconds=1))

    status = await status_of(folder)

    assert status.reason is Reason.TIMEOUT


async def test_too_much_memory_in_the_tree_ends_it(folder: Path) -> None:
    await started(folder, "head -c 200000000 /dev/zero | tail; sleep 100", memory_limit_bytes=100 << 20)

    status = await status_of(folder)

    assert status.reason is Reason.OOM
    assert status.peak_bytes > 100 << 20


async def test_a_killed_shim_is_lost_work_without_leftovers(folder: Path) -> None:
    found = await started(folder, "(setsid sleep 1000 &); echo up; sleep 1000")
    await eventually(lambda: (folder / "stdout").read_bytes() == b"up\n")
    assert found.record is not None

    os.kill(found.record.pid, signal.SIGKILL)
    _, _, end = await collect(folder)

    assert end == Lost(ended_by_us=False, detail="it left no word")
    assert shim.find(folder).state is State.LOST
    assert shim.owned_processes(folder.name) == set()


async def test_a_reused_pid_is_not_ours(folder: Path) -> None:
    await started(folder, "true")
    await status_of(folder)
    (folder / "status").unlink()
    record = (folder / "record").read_text()
    (folder / "record").write_text(record.replace('"pid": ', f'"pid": {os.getpid()}, "was": '))

    assert shim.find(folder).state is State.LOST


async def test_only_what_has_ended_is_removed(folder: Path) -> None:
    await started(folder, "sleep 1000", notes={"step": "one"})
    surveyed = shim.survey(folder.parent)

    while_running = await shim.remove(folder)
    await shim.cancel(folder, NO_GRACE)
    after = await shim.remove(folder)

    assert surveyed[folder.name].record is not None
    assert surveyed[folder.name].record.notes == {"step": "one"}
    assert (while_running, after) == (False, True)
    assert shim.survey(folder.parent) == {}
    assert await shim.remove(folder)


async def test_any_number_may_remove_the_same_at_once(folder: Path) -> None:
    for _ in range(20):
        await started(folder, "true")
        await status_of(folder)

        found = await asyncio.gather(*(shim.remove(folder) for _ in range(6)))

        assert all(found)
        assert shim.survey(folder.parent) == {}


async def test_a_removal_cut_short_is_finished_by_the_next_survey(folder: Path) -> None:
    half_gone = folder.with_name(f"{folder.name}.removed")
    half_gone.mkdir(parents=True)
    (half_gone / "stdout").write_text("large")

    found = shim.survey(folder.parent)

    assert found == {}
    assert not half_gone.exists()


async def test_a_command_that_prepares_is_timed_from_its_signal_on(folder: Path) -> None:
    text = "sleep 0.4; kill -USR1 $PPID; sleep 0.4; kill -USR1 $PPID; sleep 60"
    limit = timedelta(seconds=0.6)

    await started(folder, text, prepares=True, time_limit=limit, grace=NO_GRACE)

    status = await status_of(folder)
    assert status.reason is Reason.TIMEOUT
    assert 0.9 < status.finished - status.started < 50


async def test_a_command_that_only_prepares_is_ended_by_that_limit(folder: Path) -> None:
    await started(folder, "sleep 60", prepares=True, prepare_limit=timedelta(seconds=0.2), grace=NO_GRACE)

    assert (await status_of(folder)).reason is Reason.TIMEOUT


async def test_what_a_command_says_of_its_preparation_is_followed(folder: Path) -> None:
    await started(folder, f"echo ready > {folder}/system")

    chunks = [event async for event in shim.follow(folder, {})]

    assert LogChunk(LogStream.SYSTEM, 0, b"ready\n") in chunks


def test_a_compiled_shim_that_is_older_than_its_source_is_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = tmp_path / "shim_main.py"
    source.write_text("first = 1\n")
    compiled = py_compile.compile(str(source))
    monkeypatch.setattr(shim_main, "__file__", str(source))

    fresh = shim._program()
    source.write_text("second = 22\n")

    assert fresh == compiled
    assert shim._program() == str(source)


async def test_an_order_cut_short_starts_nothing(folder: Path) -> None:
    order = shim._order(folder, bash("touch ran", cwd=folder.parent.parent))

    await asyncio.to_thread(shim._launch, folder, order[:-10])

    assert shim.find(folder).state is State.ABSENT
    assert (await shim.start(folder, bash("touch ran", cwd=folder.parent.parent))).adopted is False
    await status_of(folder)
    assert (folder.parent.parent / "ran").exists()


CONTROL_PLANE = """if True:
    import asyncio, os, sys
    from datetime import timedelta
    from pathlib import Path
    from flexcore.runtime import shim
    from flexcore.runtime.flexcore_far import shim_main
    folder = Path(sys.argv[1])
    script = "sleep 0.3; echo x >> count"
    command = shim.Command(argv=("bash", "-c", script), env={"PATH": os.environ["PATH"]}, cwd=folder.parent.parent)

    async def main():
        print("go", flush=True)
        await shim.start(folder, command)
        async for event in shim.follow(folder, {}):
            pass

    asyncio.run(main())
"""


@pytest.mark.parametrize("delay_ms", [0, 4, 8, 12, 16, 20, 25, 40, 100])
async def test_a_process_group_killed_at_any_moment_leaves_one_run(folder: Path, delay_ms: int) -> None:
    arguments = [sys.executable, "-c", CONTROL_PLANE, str(folder)]
    with subprocess.Popen(arguments, start_new_session=True, stdout=subprocess.PIPE) as control_plane:
        assert control_plane.stdout is not None
        control_plane.stdout.readline()
        await asyncio.sleep(delay_ms / 1000)  # the moment of the crash is what varies here
        os.killpg(control_plane.pid, signal.SIGKILL)

    await shim.start(folder, bash("sleep 0.3; echo x >> count", cwd=folder.parent.parent))
    status = await status_of(folder)

    assert status.exit_code == 0
    assert (folder.parent.parent / "count").read_text() == "x\n"


@pytest.mark.parametrize("delay_ms", [0, 3, 6, 9, 11, 13, 15, 18, 25])
async def test_a_shim_killed_at_any_moment_leaves_nothing(folder: Path, delay_ms: int) -> None:
    order = shim._order(folder, bash("sleep 1000 & sleep 1000", cwd=folder.parent.parent))
    before = shim_main.processes()
    launch = asyncio.create_task(asyncio.to_thread(shim._launch, folder, order))
    await asyncio.sleep(delay_ms / 1000)  # as above
    for pid, stat in shim_main.processes().items():
        if stat[1] == os.getpid() and pid not in before:
            os.kill(pid, signal.SIGKILL)
    await launch

    found = await shim.cancel(folder, NO_GRACE)

    assert found.state is not State.RUNNING
    assert shim.owned_processes(folder.name) == set()
    assert await shim.remove(folder)
