"""The program of a step far away: from its order to its ending.

It takes the order (and removes it: it may hold secrets), copies the step's files into a fresh working folder, builds
its environment, fetches its inputs, runs it, stores its outputs, and delivers how it ended. All that it makes is below
one private folder, which is gone at the end. It tells what happened; what that means is judged by who reads it. Linux
only: the step's processes are found in /proc.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from . import environment, installer_outcomes, results, runner, shim_main, supervision
from .delivery import deliver
from .folder import private_folder
from .results import Unprepared

ORDER = "FLEXCORE_ORDER"
_HIDDEN = (ORDER, environment.WHEELS)
_HERE = Path(__file__).parent
_OURS = "flexcore: "


class ToldToEnd(Exception):
    """Whoever runs us wants the end."""


class Step:
    """One step, and what there is to tell about it."""

    def __init__(self, order: Mapping[str, Any], private: Path, wake: int) -> None:
        self.order = order
        self.private = private
        self.work = private / "work"
        self.wake = wake
        self.in_log = bool(order["delivery"]["mark"])
        self.python = sys.executable
        self.environ = {name: value for name, value in os.environ.items() if name not in _HIDDEN}
        self.environ.update(order["env"])
        self.result = b""
        self.told: dict[str, Any] = {"version": 1, "kind": order["kind"], "phases": {}, "stored": {}}
        self.told["result_limit"] = order["result_bytes"]

    def run(self) -> int:
        """Do everything in order, and say the exit code. What there is to tell is in `told` and `result` then."""
        try:
            self._prepare()
            status = self._run()
            if status["exit_code"] == 0 and not status["reason"]:
                self._take_result()
                self._store()
        except Unprepared as error:
            self._failed(error)
            return 1
        except OSError as error:
            message = f"the place where the step runs does not work: {error.strerror or error}"
            self._failed(Unprepared(message, name="NoPlace"))
            return 1
        except ToldToEnd:
            self.told["is_told_to_end"] = True
            return 143
        except Exception as error:  # noqa: BLE001, RUF100 (the outermost shell)
            where = traceback.extract_tb(error.__traceback__)[-1]  # and no more: the text may hold a secret
            message = (
                f"the program of the step has a fault, {type(error).__name__} in line {where.lineno} of {where.name}"
            )
            self._failed(Unprepared(message, name=type(error).__name__, error_class="internal"))
            return 1
        return _exit_code(status)

    def ending(self) -> bytes:
        """Write down all there is to tell."""
        return json.dumps(self.told).encode() + b"\n" + self.result

    def _prepare(self) -> None:
        with self._phase("start"):
            self._lay_out_files()
            if self.order["packages"]:
                self._build()
        self._fetch()

    @contextlib.contextmanager
    def _phase(self, name: str) -> Iterator[None]:
        self._check()
        began = time.monotonic()
        try:
            yield
        finally:
            self.told["phases"][name] = time.monotonic() - began

    def _check(self) -> None:
        if supervision.is_told_to_end(self.wake):
            raise ToldToEnd

    def _failed(self, error: Unprepared) -> None:
        words = {"message": str(error), "name": error.name, "error_class": error.error_class, "hint": error.hint}
        self.told["failure"] = words

    def _lay_out_files(self) -> None:
        """Copy them: the shipped ones may be read-only, or be there for other steps too."""
        self.work.mkdir()
        base = Path(self.order["folder"] or _HERE.parent / "workflow")
        for name, executable in self.order["files"]:
            place = self.work / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(base / name), str(place))
            place.chmod(0o755 if executable else 0o644)

    def _build(self) -> None:
        place = self.private / "environment"
        given = environment.steering(os.environ, self.order["installer"], self.order["env"])
        packages = self.order["packages"]
        self._say(f"building an environment with {', '.join(packages)}")
        limit = time.monotonic() + self.order["packages_limit"]

        def call(command: Sequence[str], variables: Mapping[str, str]) -> bool:
            return self._installs(command, variables, limit - time.monotonic())

        try:
            environment.install(place, packages, given, call)
        except environment.NoInstaller:
            raise Unprepared(
                "steps with `packages` need uv or pip where they run, and there is none",
                name="NoInstaller",
                hint="use an image or a cluster that has uv, or Python with pip",
            ) from None
        self._say("the environment is there")
        self.python = str(place / "bin" / "python")
        self.environ = environment.variables_in(place, self.environ)

    def _installs(self, command: Sequence[str], variables: Mapping[str, str], seconds: float) -> bool:
        outputs = self._outputs()
        status = supervision.run(
            command, env=variables, cwd="/", outputs=outputs, wake=self.wake, grace=2.0, time_limit=max(seconds, 0.0)
        )
        if status["reason"] == "cancelled":
            raise ToldToEnd
        if status["reason"] == "timeout":
            raise Unprepared("building the environment of the step took too long", name="EnvironmentTimeout")
        if status["exit_code"] != 0:
            text = b"".join(each.tail for each in outputs).decode(errors="replace")
            code = status["exit_code"] if status["exit_code"] is not None else -status["signal"]
            told = installer_outcomes.judged(text, code)
            raise Unprepared(told.message, name=told.name, error_class=told.error_class, hint=told.hint)
        return True

    def _fetch(self) -> None:
        if not self.order["inputs"]:
            return
        from . import transfer  # here, because only steps with data need its 20 ms

        with self._phase("transfer_in"):
            (self.private / "inputs").mkdir()
            self.told["bytes_in"] = sum(
                transfer.fetch(name, each["link"], each["checksum"], self._input(name), self._check)
                for name, each in self.order["inputs"].items()
            )

    def _input(self, name: str) -> Path:
        form: str = self.order["inputs"][name]["format"]
        return self.private / "inputs" / f"{name}.{form.replace('/', '_')}"

    def _output(self, name: str) -> Path:
        path: str = self.order["outputs"][name]["path"]
        return self.work / path

    def _run(self) -> dict[str, Any]:
        self._check()
        for name in self.order["outputs"]:
            self._output(name).parent.mkdir(parents=True, exist_ok=True)
        argv, stdin, script = self._python() if self.order["kind"] == "python" else self._bash()
        outputs = self._outputs()
        status = supervision.run(
            argv,
            env=self._variables(),
            cwd=str(self.work),
            outputs=outputs,
            wake=self.wake,
            grace=self.order["grace"],
            stdin=stdin,
            script=script,
            time_limit=self.order["time_limit"],
            memory_limit=self.order["memory_limit"],
        )
        self.told["phases"]["run"] = status["finished"] - status["started"]
        self.told["status"] = status
        self.told["stderr"] = results.last_line(outputs[1].tail)
        self.stdout = outputs[0].tail
        with contextlib.suppress(FileNotFoundError):
            self.told["failed"] = (self.private / "failure").read_bytes().decode(errors="replace")
        return status

    def _outputs(self) -> tuple[supervision.Passed, supervision.Passed]:
        """In one log for both, all is written by one hand: nothing of the step can come after the ending."""
        return supervision.Passed(1), supervision.Passed(1 if self.in_log else 2)

    def _variables(self) -> dict[str, str]:
        return {
            **self.environ,
            runner.RESULT: str(self.private / "result"),
            runner.FAILURE: str(self.private / "failure"),
            **{f"INPUT_{name.upper()}": str(self._input(name)) for name in self.order["inputs"]},
            **{f"OUTPUT_{name.upper()}": str(self._output(name)) for name in self.order["outputs"]},
        }

    def _python(self) -> tuple[list[str], bytes, bytes]:
        file = self.order["file"]
        order = {
            "name": str(self.work / file) if file else "<script>",
            "is_file": bool(file),
            "code": (self.work / file).read_text(encoding="utf-8-sig") if file else self.order["script"],
            "args": {**self.order["args"], **{name: str(self._input(name)) for name in self.order["inputs"]}},
            "offered": {name: str(self._output(name)) for name in self.order["outputs"]},
        }
        return [self.python, str(_HERE / "start.py"), "flexcore_far.run_python"], json.dumps(order).encode(), b""

    def _bash(self) -> tuple[list[str], bytes, bytes]:
        file = str(self.work / self.order["file"]) if self.order["file"] else ""
        return list(results.BASH), b"", results.bash_script(self.order["args"], self.order["script"], file)

    def _take_result(self) -> None:
        path = self.private / "result"
        size = path.stat().st_size if path.exists() else 0
        self.told["result_bytes"] = size
        if 0 < size <= self.order["result_bytes"]:
            self.result = path.read_bytes()
            self.told["result_bytes"] = len(self.result)
        elif not size and self.order["kind"] == "bash":
            self.result = json.dumps(results.of_bash(self.stdout)).encode()
            self.told["result_bytes"] = len(self.result)

    def _store(self) -> None:
        if not self.order["outputs"]:
            return
        from . import transfer  # as above

        with self._phase("transfer_out"):
            for name, each in self.order["outputs"].items():
                path = self._output(name)
                if not path.is_file():
                    raise Unprepared(
                        f"the step left no file {each['path']!r} for its output {name!r}",
                        name="OutputMissing",
                        error_class="user",
                    )
                link, form = each["link"], each["format"]
                self.told["stored"][name] = transfer.store(name, path, link, form, self._check)
        self.told["bytes_out"] = sum(each["bytes"] for each in self.told["stored"].values())

    def _say(self, text: str) -> None:
        supervision.pass_on(1 if self.in_log else 2, f"{_OURS}{text}\n".encode())


def take_order() -> dict[str, Any]:
    """Read the order and remove it, where that can be."""
    path = os.environ.get(ORDER, "-")
    if path == "-":
        order: dict[str, Any] = json.loads(sys.stdin.buffer.read())
        return order
    order = json.loads(Path(path).read_bytes())
    with contextlib.suppress(OSError):  # a mounted secret cannot be removed, and goes with its owner
        Path(path).unlink()
    return order


def main() -> int:
    """Run the step of an order. The exit code is the step's."""
    wake = shim_main.own_signals()
    order = take_order()
    shim_main.become_reaper()
    way = {**order["delivery"], "path": order["delivery"]["path"] and str(Path(order["delivery"]["path"]).absolute())}
    with private_folder(order["private"]) as private:
        os.chdir(str(private))
        step = Step(order, private, wake)
        code = step.run()
        deliver(way, step.ending())
    return code


def _exit_code(status: Mapping[str, Any]) -> int:
    """Say how the step ended as an exit code: as a shell does for signals, 124 over the time limit."""
    if status["reason"] in ("timeout", "cancelled"):
        return 124 if status["reason"] == "timeout" else 143
    if status["signal"] is not None:
        return 128 + int(status["signal"])
    return int(status["exit_code"])
