"""The command as a process of its own: what it loads, what Ctrl-C does, how it behaves in a pipe."""

import json
import os
import pty
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

HEAVY = {
    "grpc",
    "fastapi",
    "httpx",
    "pydantic",
    "rich",
    "sqlite3",
    "tree_sitter",
    "meltano",
    "asyncio",
    "yaml",
    "msgspec",
}

SCRIPT = textwrap.dedent("""
    import sys
    sys.path.insert(0, {folder!r})
    from fake_control_plane import EVENTS, FakeControlPlane
    from flexcore.cli.app import run
    fake = FakeControlPlane(hangs={hangs}, is_stubborn={stubborn}, events=EVENTS[:{events}])
    sys.exit(run(sys.argv[1:], fake.connect))
""")


def command(*arguments: str, hangs: bool = False, stubborn: bool = False, events: int = 5) -> list[str]:
    script = SCRIPT.format(folder=str(Path(__file__).parent), hangs=hangs, stubborn=stubborn, events=events)
    return [sys.executable, "-c", script, *arguments]


def lines_until(process: "subprocess.Popen[str]", words: str) -> Iterator[str]:
    assert process.stderr is not None
    for line in process.stderr:
        yield line
        if words in line:
            return
    raise AssertionError(f"{words!r} never came")


@pytest.mark.parametrize("arguments", [["--help"], ["version"]])
def test_help_and_version_load_nothing_heavy(arguments: list[str]) -> None:
    script = (
        "import sys\nfrom flexcore.cli.app import run\nrun(sys.argv[1:])\n"
        "print(sorted({each.partition('.')[0] for each in sys.modules}), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=True)

    allowed = {"msgspec"} if arguments == ["version"] else set()
    assert HEAVY.intersection(eval(done.stderr)) <= allowed


@pytest.mark.parametrize(("given", "left"), [({}, "NONE"), ({"GRPC_VERBOSITY": "DEBUG"}, "DEBUG")])
def test_grpc_is_told_to_keep_its_own_lines_to_itself_unless_they_are_wanted(given: dict[str, str], left: str) -> None:
    script = (
        "import atexit, os, sys\nfrom flexcore.cli.app import main\n"
        "atexit.register(lambda: print(os.environ['GRPC_VERBOSITY'], 'grpc' in sys.modules, file=sys.stderr))\nmain()"
    )
    around = {name: value for name, value in os.environ.items() if name != "GRPC_VERBOSITY"} | given

    done = subprocess.run([sys.executable, "-c", script, "version"], capture_output=True, text=True, env=around)

    assert done.stderr == f"{left} False\n"


def test_a_step_on_this_machine_loads_nothing_of_other_runtimes(tmp_path: Path) -> None:
    (tmp_path / "tasks.py").write_text("import flexcore\n\n@flexcore.task\ndef one():\n    return 1\n")
    (tmp_path / "one.yaml").write_text("name: one\nsteps:\n  - {id: s, type: function, with: {name: 'tasks:one'}}\n")
    script = (
        "import sys\nfrom flexcore.cli.app import run\nrun(['workflow', 'execute', 'one.yaml'])\n"
        "print(sorted(sys.modules), file=sys.stderr)"
    )

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, cwd=tmp_path)

    loaded = set(eval(done.stderr.splitlines()[-1]))
    unneeded = {
        "http.client",
        "urllib.request",
        "grpc",
        "ray",
        "kubernetes",
        "s3fs",
        "fastapi",
        "flexcore_ray.attempts",
    }
    assert "flexcore_local" in loaded
    assert not loaded & unneeded
    assert not {"flexcore.analyzer.flips", "flexcore.runtime.wire.events", "flexcore.cli.benchmarking"} & loaded


def test_one_interrupt_detaches_and_says_how_to_go_on() -> None:
    process = subprocess.Popen(
        command("workflow", "wait", "exe_1", hangs=True, events=2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    list(lines_until(process, "started on local"))

    process.send_signal(signal.SIGINT)

    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "flexcore workflow resume" in err
    assert "flexcore workflow cancel exe_1" in err
    assert "Traceback" not in err
    assert out == ""


def test_a_second_interrupt_leaves_at_once() -> None:
    process = subprocess.Popen(
        command("workflow", "wait", "exe_1", hangs=True, stubborn=True, events=2),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    list(lines_until(process, "started on local"))

    deadline = time.monotonic() + 30
    while process.poll() is None and time.monotonic() < deadline:
        # Signals that come in one instant count as one: more are sent until the process has left.
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)

    assert process.wait(timeout=1) == 130


def test_a_reader_who_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        command("execution", "show", "exe_1"), stdout=write, stderr=subprocess.PIPE, text=True, check=False
    )
    os.close(write)

    assert "Traceback" not in done.stderr
    assert "Exception" not in done.stderr


def test_json_is_alone_on_stdout() -> None:
    done = subprocess.run(
        command("workflow", "wait", "exe_1", "--output", "json"), capture_output=True, text=True, check=True
    )

    assert json.loads(done.stdout)["id"] == "exe_1"


def test_a_terminal_gets_a_tree_that_is_drawn_again() -> None:
    main, terminal = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    environment.pop("NO_COLOR", None)
    process = subprocess.Popen(
        command("workflow", "wait", "exe_1", "--output", "json"),
        stdout=subprocess.PIPE,
        stderr=terminal,
        env=environment,
    )
    os.close(terminal)

    shown = _everything(main)

    assert process.wait(timeout=30) == 0
    assert "✓ " in shown
    assert "27,004 rows" in shown


def test_no_color_means_plain_lines_on_a_terminal() -> None:
    main, terminal = pty.openpty()
    process = subprocess.Popen(
        command("workflow", "wait", "exe_1"), stdout=terminal, stderr=terminal, env={**os.environ, "NO_COLOR": "1"}
    )
    os.close(terminal)

    shown = _everything(main)

    process.wait(timeout=30)
    assert "\x1b" not in shown
    assert "started on local" in shown


def _everything(descriptor: int) -> str:
    collected = b""
    give_up = time.monotonic() + 30
    while time.monotonic() < give_up:
        try:
            piece = os.read(descriptor, 65536)
        except OSError:  # how a terminal ends on Linux
            break
        if not piece:
            break
        collected += piece
    os.close(descriptor)
    return collected.decode()
