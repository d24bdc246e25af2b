"""What is uploaded for a job: equal for equal files, and unreadable where it may hold secrets."""

import io
import json
import os
import subprocess
import sys
import zipfile
from datetime import timedelta
from pathlib import Path

import pytest
from flexcore_ray import start_main
from flexcore_ray.package import Bundle, bundle, entrypoint, runtime_env
from hypothesis import given
from hypothesis import strategies as st

from flexcore.runtime.portable.program import Program
from flexcore.testing.command import until

PROGRAM = Program(files={"far/main.py": b"print(1)", "a.txt": b"a"}, order=b'{"s": "s3cr3t"}', command=("cat",))
FOR_EVER = 1e12


def packed(program: Program = PROGRAM, not_after: float = FOR_EVER) -> Bundle:
    return bundle(program, begins="begins", not_after=not_after)


def unpacked(content: bytes, folder: Path) -> Path:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        archive.extractall(folder)
    return folder


def laid_out(made: Bundle, folder: Path) -> tuple[Path, dict[str, str]]:
    """Unpack a job as Ray does; give the folder that it runs in, and its environment with the order on the path."""
    files = unpacked(made.program.content, folder / "working_dir_files" / "program")
    order = unpacked(made.order.content, folder / "py_modules_files" / "order")
    environment = {
        "PATH": os.environ["PATH"],
        "PYTHONPATH": f"{order}{os.pathsep}{files}",
        start_main.KEY: made.key.hex(),
    }
    return files, environment


def started(made: Bundle, folder: Path) -> "subprocess.CompletedProcess[bytes]":
    """Run a job's first process to its end."""
    files, environment = laid_out(made, folder)
    return subprocess.run(
        ["sh", "-c", entrypoint(sys.executable)], cwd=files, env=environment, capture_output=True, check=False
    )


@given(st.binary(max_size=3000), st.binary(min_size=32, max_size=32), st.binary(min_size=16, max_size=16))
def test_what_is_sealed_can_be_opened_with_the_key(plain: bytes, key: bytes, nonce: bytes) -> None:
    assert start_main.unseal(start_main.seal(plain, key, nonce), key) == plain


@given(st.binary(max_size=200), st.integers(min_value=0))
def test_a_changed_order_is_not_opened(plain: bytes, place: int) -> None:
    key = bytes(32)
    sealed = bytearray(start_main.seal(plain, key, bytes(16)))
    sealed[place % len(sealed)] ^= 1

    with pytest.raises(ValueError, match="changed"):
        start_main.unseal(bytes(sealed), key)


def test_equal_files_are_one_package_and_every_order_is_its_own() -> None:
    one, other = packed(), packed()

    assert one.program == other.program
    assert one.order.name != other.order.name
    assert one.key != other.key


def test_nothing_of_the_order_is_in_the_program_or_in_what_ray_shows() -> None:
    made = packed()

    shown = json.dumps([runtime_env(made, {}, timedelta(seconds=3)), entrypoint("python3")])

    assert "s3cr3t" not in shown
    for package in (made.program, made.order):
        archive = zipfile.ZipFile(io.BytesIO(package.content))
        assert not any(b"s3cr3t" in archive.read(name) for name in archive.namelist())


def test_the_variables_of_the_user_are_kept_beside_ours() -> None:
    made = runtime_env(packed(), {"pip": ["x"], "env_vars": {"A": "b"}}, timedelta(seconds=2.5))

    assert made["pip"] == ["x"]
    assert isinstance(made["env_vars"], dict)
    assert made["env_vars"]["A"] == "b"
    assert made["env_vars"]["RAY_JOB_STOP_WAIT_TIME_S"] == "5"


def test_a_job_opens_its_order_says_that_it_begins_and_becomes_its_program(tmp_path: Path) -> None:
    done = started(packed(), tmp_path)

    assert (done.returncode, done.stdout) == (0, b'begins\n{"s": "s3cr3t"}')
    assert not [each for each in tmp_path.rglob("*") if each.is_file() and b"s3cr3t" in each.read_bytes()]


def test_what_ray_lets_go_of_late_comes_before_the_first_line_of_a_job(tmp_path: Path) -> None:
    files, environment = laid_out(packed(), tmp_path)
    log = tmp_path / "job-driver.log"
    log.write_bytes(b"what was set up\n")

    with log.open("a") as kept:  # as Ray does: written, and not yet let go of
        kept.write("Running entrypoint for job fx-1: exec python3\n")
        command = ["sh", "-c", entrypoint(sys.executable)]
        process = subprocess.Popen(command, cwd=files, env=environment, stdout=kept, stderr=subprocess.STDOUT)
        until(lambda: len(opened(process.pid, log)) == 3, "the job reads its log")
    process.wait(30)

    said = log.read_bytes()
    assert said == b'what was set up\nRunning entrypoint for job fx-1: exec python3\nbegins\n{"s": "s3cr3t"}'


def opened(pid: int, path: Path) -> list[str]:
    """Name the descriptors by which a process has a file open."""
    return [each.name for each in Path(f"/proc/{pid}/fd").iterdir() if os.path.realpath(each) == str(path)]


def test_a_job_runs_once(tmp_path: Path) -> None:
    made = packed()
    started(made, tmp_path)
    for sealed in tmp_path.rglob(start_main.SEALED):
        sealed.unlink()

    files = tmp_path / "working_dir_files" / "program"
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(files), start_main.KEY: made.key.hex()}
    again = subprocess.run(
        ["sh", "-c", entrypoint(sys.executable)], cwd=files, env=environment, capture_output=True, check=False
    )

    assert again.returncode != 0
    assert b"begins" not in again.stdout


def test_a_job_that_comes_too_late_does_not_begin(tmp_path: Path) -> None:
    done = started(packed(not_after=1.0), tmp_path)

    assert (done.returncode, done.stdout) == (start_main.TOO_LATE, b"")


def test_the_program_does_not_see_what_brought_it_there(tmp_path: Path) -> None:
    tells = Program(files={}, order=b"{}", command=("env",))

    said = started(packed(tells), tmp_path).stdout.decode()

    assert start_main.KEY not in said
    assert "PYTHONPATH" not in said
