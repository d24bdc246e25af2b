"""What it takes to submit work to each runtime, beside its own floor: `python benchmarks/submission.py [RUNTIME…]`.

Two spans per step, by the clock of this machine: from the durable dispatch to the work's first instruction, and from
its last to the durable result. The floor is the runtime used by hand, without FlexCore: the same script started and
waited for with the runtime's own means, in the same run, turn by turn. Medians; `--json FILE` writes them.
"""

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parent))

from submission_floors import FLOORS, Floor, Span

from flexcore.bootstrap import Installation, opened
from flexcore.model.requests import Bundle, StartRequest
from flexcore.settings import load

SCRIPT = 'begun=$(date +%s.%N); echo "{\\"begun\\": $begun, \\"ended\\": $(date +%s.%N)}"'


@dataclass(frozen=True, slots=True)
class Figure:
    """Medians in seconds, and how many times the floor's they are."""

    runtime: str
    times: int
    start_s: float
    start_floor_s: float
    start_ratio: float
    end_s: float
    end_floor_s: float
    end_ratio: float


async def measured(installation: Installation, workflow: str) -> Span:
    """Run one step and read from its history when it was dispatched and when its result was durable."""
    started = await installation.control_plane.start(StartRequest(workflow=workflow))
    await installation.engine.wait(started.id)
    document = await installation.control_plane.execution(started.id)
    result = document["output"]
    if document["status"] != "succeeded" or not isinstance(result, dict):
        raise SystemExit(f"the step did not succeed: {json.dumps(document['error'])}")
    page = await installation.control_plane.history(started.id)
    at = {each["type"]: datetime.fromisoformat(each["at"]).timestamp() for each in page.items}
    return Span(result["begun"] - at["StepDispatched"], at["StepSucceeded"] - result["ended"])


async def figure(floor: Floor, folder: Path, times: int) -> Figure:
    """Measure a runtime and its floor in turns, after a first of each that counts for nothing."""
    async with floor.opened(folder) as runtimes, plane(folder, runtimes) as installation:
        step = {"id": "work", "type": floor.kind, "runtime": floor.name, "with": floor.parameters(SCRIPT)}
        text = json.dumps({"name": "submits", "steps": [step], "output": "${{ results.work }}"})
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in floor.files(folder)}
        deployed = await installation.control_plane.deploy(Bundle(text=text, files=files, origin=str(folder)))
        ours, raw = [], []
        for number in range(times + 1):
            span, bottom = await measured(installation, str(deployed["name"])), await floor.measured(SCRIPT)
            if number:
                ours.append(span)
                raw.append(bottom)
    start, end = (statistics.median(each) for each in zip(*ours, strict=True))
    start_floor, end_floor = (statistics.median(each) for each in zip(*raw, strict=True))
    return Figure(
        runtime=floor.title,
        times=times,
        start_s=start,
        start_floor_s=start_floor,
        start_ratio=start / start_floor,
        end_s=end,
        end_floor_s=end_floor,
        end_ratio=end / end_floor,
    )


@asynccontextmanager
async def plane(folder: Path, runtimes: Mapping[str, object]) -> AsyncIterator[Installation]:
    """Open an installation in a folder with these runtimes."""
    file = folder / "config" / "flexcore.yaml"
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({"runtimes": runtimes, "logs": {"level": "error"}}))
    async with AsyncExitStack() as closing:
        yield await closing.enter_async_context(opened(load(folder, environ={}).settings))


def table(figures: list[Figure]) -> str:
    """Draw the figures, in milliseconds."""
    lines = [f"{'runtime':36}{'to running':>12}{'floor':>10}{'x':>7}{'to recorded':>14}{'floor':>10}{'x':>7}"]
    for each in figures:
        start = f"{each.start_s * 1e3:>9.1f} ms{each.start_floor_s * 1e3:>10.1f}{each.start_ratio:>7.1f}"
        end = f"{each.end_s * 1e3:>11.1f} ms{each.end_floor_s * 1e3:>10.1f}{each.end_ratio:>7.1f}"
        lines.append(f"{each.runtime:36}{start}{end}")
    return "\n".join(lines)


async def run(chosen: list[Callable[[], Floor]], times: int) -> list[Figure]:
    """Measure one runtime after the other, each in a folder of its own."""
    figures = []
    for make in chosen:
        floor = make()
        with tempfile.TemporaryDirectory(prefix="fx-") as folder:
            figures.append(await figure(floor, Path(folder), min(times, floor.most)))
    return figures


def main() -> None:
    """Run what was asked for, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runtimes", nargs="*", metavar="RUNTIME", help=f"of {', '.join(FLOORS)}; default: all")
    parser.add_argument("--times", type=int, default=30, help="steps per runtime; fewer where one takes seconds")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.runtimes) - set(FLOORS))
    if unknown:
        parser.error(f"unknown: {', '.join(unknown)}; known: {', '.join(FLOORS)}")
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    figures = asyncio.run(run([FLOORS[each] for each in arguments.runtimes or FLOORS], arguments.times))
    print(table(figures))
    if arguments.json:
        machine = {"python": platform.python_version(), "system": platform.system(), "cpus": os.cpu_count()}
        document = {"at": datetime.now(UTC).isoformat(), "machine": machine, "figures": [asdict(f) for f in figures]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
