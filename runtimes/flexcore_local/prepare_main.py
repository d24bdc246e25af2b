"""The first process of an attempt with `packages`: get the environment, say so, become the step's own program.

All of it happens here and not in the control plane, so that a control plane that dies at any moment leaves nothing
half done: whoever adopts the attempt just goes on reading. Its order is the first line of standard input, the rest is
the step's. What it and the installer say goes to the attempt's file `system`. It runs on the standard library alone,
and must never leave the installer's credentials to the step's program.
"""

import fcntl
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from flexcore_local.environments import BEGUN, Environments, describe, digest
from flexcore_local.far import installer_outcomes, runner

SYSTEM = "system"
_OWN_DESCRIPTORS = 64  # above what a shell uses for itself
_IDENTITY = (
    "import os, sys, sysconfig; "
    "print(os.path.realpath(sys.executable), sys.version.split()[0], sysconfig.get_platform(), sep='\\n')"
)


class Unprepared(Exception):
    """There will be no environment, or no program in it: what the attempt failed with."""

    def __init__(self, message: str, *, name: str, error_class: str, hint: str = "") -> None:
        super().__init__(message)
        self.name, self.error_class, self.hint = name, error_class, hint


class Preparation:
    """One attempt's way from its order to its program."""

    def __init__(self, order: dict[str, Any]) -> None:
        self.order = order
        self.folder = Path(order["folder"])
        self.environments = Environments(Path(order["root"]))
        self.log = os.open(self.folder / SYSTEM, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o600)

    def run(self) -> NoReturn:
        """Do everything in order. Raises Unprepared."""
        interpreter = self._interpreter()
        name = digest(self.order["requirements"], interpreter, self.order["variables"])
        lock, built = self.environments.acquire(
            name, lambda folder, held: self._build(interpreter[0], folder, held), self._waiting
        )
        if built:
            self._sweep()
        kept = fcntl.fcntl(
            lock, fcntl.F_DUPFD, _OWN_DESCRIPTORS
        )  # stays open in the program: the environment is in use
        os.close(lock)
        os.set_inheritable(kept, True)
        self._begin(name)
        self._become(self.environments.folder(name))

    def _interpreter(self) -> list[str]:
        python = self.order["python"]
        try:
            told = subprocess.run(
                [python, "-I", "-S", "-c", _IDENTITY],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=True,
            )
        except (OSError, subprocess.CalledProcessError) as error:
            raise Unprepared(
                f"the interpreter {python!r} does not run: {error}", name="NoInterpreter", error_class="dependency"
            ) from error
        return told.stdout.splitlines()

    def _waiting(self) -> None:
        self._say("waiting for another step that builds the same environment")

    def _build(self, python: str, folder: Path, lock: int) -> None:
        wanted = self.order["requirements"]
        self._say(f"building an environment with {', '.join(wanted)}")
        began = time.monotonic()
        uv = self.order["uv"]
        self._install([uv, "venv", "--quiet", "--relocatable", "--python", python, str(folder)], lock)
        self._install([uv, "pip", "install", "--python", str(folder / "bin" / "python"), "--", *wanted], lock)
        describe(folder, wanted)
        self._say(f"built in {time.monotonic() - began:.1f} s")

    def _install(self, command: Sequence[str], lock: int) -> None:
        said = os.lseek(self.log, 0, os.SEEK_END)
        code = subprocess.call(
            command,
            cwd="/",  # not where the settings of somebody's project would be found
            env=self.order["variables"],
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=self.log,
            pass_fds=(lock,),
            preexec_fn=die_with_us,
        )
        if code:
            text = os.pread(self.log, 1 << 20, said).decode(errors="replace")
            told = installer_outcomes.judged(text, code)
            raise Unprepared(told.message, name=told.name, error_class=told.error_class, hint=told.hint)

    def _sweep(self) -> None:
        kept = self.order["keep_s"], self.order["max_bytes"]
        for name in self.environments.sweep(keep_s=kept[0], max_bytes=kept[1], now=time.time()):
            self._say(f"removed the environment {name}, unused")

    def _begin(self, name: str) -> None:
        """Tell the shim that the step's own time runs now, then whoever follows: the file is there before the line."""
        new = self.folder / f"{BEGUN}.new"
        new.write_text(f"{time.time():.6f}")
        new.rename(self.folder / BEGUN)
        os.kill(os.getppid(), signal.SIGUSR1)
        self._say(f"running in the environment {name}")
        os.close(self.log)

    def _become(self, environment: Path) -> NoReturn:
        programs = environment / "bin"
        argv = self.order["argv"]
        if self.order["is_python"]:
            argv = [str(programs / "python"), *argv[1:]]
        search = f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"
        environ = {**os.environ, "PATH": search, "VIRTUAL_ENV": str(environment)}
        environ.pop("PYTHONHOME", None)
        try:
            os.execvpe(argv[0], argv, environ)  # noqa: S606 (running a command is the purpose)
        except OSError as error:
            raise Unprepared(
                f"the command cannot be started: {error.strerror}", name="NoCommand", error_class="input"
            ) from error

    def _say(self, text: str) -> None:
        os.write(self.log, f"flexcore: {text}\n".encode())


def die_with_us() -> None:
    """In a child before it becomes the installer: end when this process does."""
    import ctypes  # here, because only a child needs its 3 ms

    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


def take_order() -> dict[str, Any]:
    """Read our line of standard input, and leave a file with nothing but the step's part in its place."""
    line, _, rest = sys.stdin.buffer.read().partition(b"\n")
    own = os.memfd_create("flexcore")
    with open(own, "wb", closefd=False) as file:
        file.write(rest)
    os.lseek(own, 0, os.SEEK_SET)
    os.dup2(own, 0)
    os.close(own)
    order: dict[str, Any] = json.loads(line)
    return order


def main() -> int:
    """Become the step's program; the exit code is for when that cannot be."""
    order, failure = take_order(), os.environ[runner.FAILURE]
    try:
        Preparation(order).run()
    except Unprepared as error:
        return runner.fail(failure, str(error), name=error.name, error_class=error.error_class, hint=error.hint)
    except OSError as error:
        message = f"the environment cannot be kept on the disk: {error}"
        return runner.fail(failure, message, name="NoEnvironment", error_class="dependency")
