"""A control plane that kills itself at a named moment of one attempt: `python crashing_child.py`, a JSON request a line.

A request names a folder with a workflow file, what to do there (`execute`, `resume`), the moment, and the kind of the
step that counts. The death is a SIGKILL: nothing is flushed, nobody is told. What it takes to die is put around the
runtime's events here; nothing that is installed can be told to do this.
"""

import asyncio
import json
import os
import random
import signal
import sys
from collections.abc import AsyncGenerator, Callable
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from flexcore.bootstrap import Installation, opened
from flexcore.cli.bundle import collect
from flexcore.engine.faultpoints import FaultPoint
from flexcore.model.requests import StartRequest
from flexcore.runtime.interface import ExecutionEvent, ExecutionRequest, Finished, Submitted
from flexcore.runtime.supervised import SupervisedRuntime
from flexcore.settings import load

_WITHIN_S = 600


class Moment(StrEnum):
    """Where in the life of an attempt the control plane dies."""

    BEFORE_SUBMIT = "before submit"
    AFTER_SUBMIT = "after submit, before record"
    AFTER_RECORD = "after record"
    MID_RUN = "mid-run"
    AFTER_FINISH = "after finish, before commit"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def crashing(moment: Moment | None, kind: str, delay_s: float) -> Callable[[Any], Any]:
    """Wrap `execute` so that the process dies at the moment, in attempts of steps of a kind."""

    def wrapped(execute: Any) -> Any:
        async def events(self: SupervisedRuntime, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
            counts = request.kind.value == kind
            if counts and moment is Moment.BEFORE_SUBMIT:
                die()
            if counts and moment is Moment.AFTER_SUBMIT and delay_s:
                asyncio.get_running_loop().call_later(delay_s, die)  # also in the middle of submitting
            async for event in execute(self, request):
                if counts and isinstance(event, Submitted):
                    if moment is Moment.AFTER_SUBMIT:
                        die()
                    if moment is Moment.MID_RUN:
                        asyncio.get_running_loop().call_later(delay_s, die)
                if counts and isinstance(event, Finished) and moment is Moment.AFTER_FINISH:
                    die()
                yield event

        return events

    return wrapped


async def play(asked: dict[str, Any]) -> None:
    folder, kind = Path(asked["folder"]), asked["kind"]
    moment = Moment(asked["moment"]) if asked.get("moment") else None
    SupervisedRuntime.execute = crashing(moment, kind, asked["delay_s"])(SupervisedRuntime.execute)  # type: ignore[method-assign]
    settings = load(folder, environ={}).settings
    async with opened(settings) as installation, asyncio.timeout(_WITHIN_S):
        if moment is Moment.AFTER_RECORD:
            installation.engine.parts = replace(installation.engine.parts, reached=when_recorded(installation, kind))
        await (resume(installation) if asked["act"] == "resume" else execute(installation, folder, asked["workflow"]))


def when_recorded(installation: Installation, kind: str) -> Callable[[FaultPoint], None]:
    def reached(here: FaultPoint) -> None:
        for live in installation.engine.live.values():
            if any(step.kind == kind and step.handle is not None for step in live.state.steps.values()):
                die()

    return reached


async def execute(installation: Installation, folder: Path, workflow: str) -> None:
    deployed = await installation.control_plane.deploy(collect(Path(workflow), 50_000_000))
    started = await installation.control_plane.start(StartRequest(workflow=str(deployed["name"])))
    await installation.engine.wait(started.id)


async def resume(installation: Installation) -> None:
    for id in await installation.control_plane.resume():
        await installation.engine.wait(id)


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            os.chdir(asked["folder"])
            log = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            random.seed()
            asyncio.run(play(asked))
            os._exit(0)
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
