"""Measures the engine on SQLite FULL, with the raw floor in the same run: `python benchmarks/run.py [--quick]`.

Prints a table, and writes JSON to `--json FILE`. Figures are medians; ratios are to the floor measured in this run,
because the machine underneath may be any.
"""

import argparse
import asyncio
import gc
import json
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).parent))

import floor
import workloads

from flexcore.bootstrap import opened
from flexcore.settings import load


@dataclass(frozen=True, slots=True)
class Figure:
    """One measurement and its floor; `ratio` is how many times the floor it costs."""

    name: str
    what: str
    value: float
    unit: str
    floor: float | None
    ratio: float | None


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much to run."""

    latencies: int
    executions: int
    fan: int
    colds: int


FULL = Sizes(latencies=300, executions=1000, fan=1000, colds=7)
QUICK = Sizes(latencies=30, executions=100, fan=200, colds=2)
AT_A_TIME = 100


async def engine_figures(folder: Path, sizes: Sizes) -> list[Figure]:
    """Measure A to D and F on one open installation."""
    settings = load(folder, environ={"FLEXCORE_LOGS__LEVEL": "error"}).settings
    database = folder / ".flexcore" / "flexcore.db"
    async with opened(settings) as installation:
        one = await workloads.deploy(installation, workloads.chain(1))
        ten = await workloads.deploy(installation, workloads.chain(10))
        wide = await workloads.deploy(installation, workloads.fan(sizes.fan))
        await workloads.latencies(installation, ten, 20)  # warm up: the function host, the caches
        idle = workloads.memory_bytes()
        a = statistics.median(await workloads.latencies(installation, one, sizes.latencies))
        b = statistics.median(await workloads.latencies(installation, ten, sizes.latencies // 2))
        d = statistics.median([await workloads.fan_out(installation, wide, sizes.fan) for _ in range(3)])
        before = len(floor.change_sets(database, ten))
        c = await workloads.throughput(installation, ten, sizes.executions, AT_A_TIME)
        peak = workloads.memory_bytes()
    chains = floor.change_sets(database, ten)[before:]
    singles = floor.change_sets(database, one)
    fans = floor.change_sets(database, wide)
    floor_a = floor.floor_seconds(database, [[each] for run in singles for each in run]) / len(singles)
    floor_b = floor.floor_seconds(database, [[each] for run in chains[:100] for each in run]) / len(chains[:100])
    floor_c = floor.floor_seconds(database, floor.interleaved(chains, AT_A_TIME))
    floor_d = floor.floor_seconds(database, [[each] for run in fans for each in run]) / len(fans)
    steps = sizes.executions * 10
    many = f"{sizes.executions} x 10 steps, {AT_A_TIME} at a time"
    return [
        Figure("A", "one step, start call to result", a * 1e3, "ms", floor_a * 1e3, a / floor_a),
        Figure("B", "ten steps in sequence", b * 1e3, "ms", floor_b * 1e3, b / floor_b),
        Figure("C", many, steps / c, "steps/s", steps / floor_c, c / floor_c),
        Figure("D", f"{sizes.fan} parallel steps and a join", d, "s", floor_d, d / floor_d),
        Figure("F", "memory, idle with a host", idle / 1e6, "MB", None, None),
        Figure("F", "memory, peak of all of this", peak / 1e6, "MB", None, None),
    ]


def cold_figure(folder: Path, sizes: Sizes) -> Figure:
    """Measure E: the command from the shell, each time a new process; its floor is Python starting."""
    (folder / "tasks.py").write_bytes((workloads.HERE / "tasks.py").read_bytes())
    (folder / "one.yaml").write_text(workloads.chain(1))
    command = [sys.executable, "-m", "flexcore.cli.app", "workflow", "execute", "one.yaml"]
    script = Path(sys.executable).with_name("flexcore")
    if script.exists():
        command[:3] = [str(script)]
    seconds = [_timed(command, folder) for _ in range(sizes.colds + 1)][1:]
    bare = [_timed([sys.executable, "-c", "pass"], folder) for _ in range(sizes.colds)]
    value, floor_value = statistics.median(seconds), statistics.median(bare)
    return Figure("E", "workflow execute of one step, cold", value, "s", floor_value, value / floor_value)


def _timed(command: list[str], folder: Path) -> float:
    begun = time.perf_counter()
    # As for a user, whose Python keeps the bytecode it has compiled.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    subprocess.run(command, cwd=folder, check=True, capture_output=True, env=environment)
    return time.perf_counter() - begun


def table(figures: list[Figure]) -> str:
    """Draw the figures."""
    lines = [f"{'':3}{'what':48}{'value':>12} {'unit':8}{'floor':>12}{'x floor':>9}"]
    for each in figures:
        bottom = "" if each.floor is None else f"{each.floor:,.3g}" if each.floor < 100 else f"{each.floor:,.0f}"
        value = f"{each.value:,.3g}" if each.value < 100 else f"{each.value:,.0f}"
        ratio = "" if each.ratio is None else f"{each.ratio:.1f}"
        lines.append(f"{each.name:3}{each.what:48}{value:>12} {each.unit:8}{bottom:>12}{ratio:>9}")
    return "\n".join(lines)


def main() -> None:
    """Run everything, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the work: to see that it runs")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    arguments = parser.parse_args()
    gc.set_threshold(20_000)  # as the console script does, which starts every server
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    sizes = QUICK if arguments.quick else FULL
    with tempfile.TemporaryDirectory(prefix="flexcore-benchmark-") as folder:
        figures = asyncio.run(engine_figures(Path(folder), sizes))
        figures.insert(4, cold_figure(Path(folder), sizes))
    print(table(figures))
    if arguments.json:
        machine = {"python": platform.python_version(), "system": platform.system(), "cpus": os.cpu_count()}
        document = {"machine": machine, "durability": "WAL, synchronous=FULL", "figures": [asdict(f) for f in figures]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
