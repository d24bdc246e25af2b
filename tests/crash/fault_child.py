"""Forks a process per request, so that each crashes alone: `python fault_child.py`, one JSON request per line.

A request names a folder, what to do there (`execute`, `resume`, `verify`), and at which visit of which fault point to
die. The hook is put into the engine here; nothing that is installed can be told to do this.
"""

import asyncio
import json
import os
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from flexcore.bootstrap import Installation, opened, verify
from flexcore.engine.faultpoints import FaultPoint
from flexcore.model.requests import Bundle, StartRequest
from flexcore.settings import load

DIED = 77


def crash_at(point: FaultPoint | None, visit: int) -> Callable[[FaultPoint], None]:
    left = visit

    def reached(here: FaultPoint) -> None:
        nonlocal left
        left -= here is point
        if here is point and left == 0:
            os._exit(DIED)

    return reached


async def play(folder: Path, act: str, reached: Callable[[FaultPoint], None]) -> int:
    settings = load(folder, environ={}).settings
    if act == "verify":
        faults = await verify(settings)
        print(faults, flush=True)
        return len(faults)
    async with opened(settings) as installation:
        installation.engine.parts = replace(installation.engine.parts, reached=reached)
        await (resume(installation) if act == "resume" else execute(installation, folder))
    return 0


async def execute(installation: Installation, folder: Path) -> None:
    files = {"tasks.py": (folder / "tasks.py").read_bytes()}
    bundle = Bundle(text=(folder / "w.yaml").read_text(), file_name="w.yaml", files=files, origin=str(folder))
    deployed = await installation.control_plane.deploy(bundle)
    started = await installation.control_plane.start(
        StartRequest(workflow=str(deployed["name"]), input={"effects": str(folder / "effects")})
    )
    await installation.engine.wait(started.id)


async def resume(installation: Installation) -> None:
    for id in await installation.control_plane.resume():
        await installation.engine.wait(id)


def main() -> None:
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            folder = Path(asked["folder"])
            os.chdir(folder)
            log = os.open(folder / "log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(log, 1)
            os.dup2(log, 2)
            point = FaultPoint(asked["point"]) if asked.get("point") else None
            os._exit(asyncio.run(play(folder, asked["act"], crash_at(point, asked.get("visit", 1)))))
        _, status = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main()
