"""Counts what one step of a chain costs: `python benchmarks/cost.py`. Counts, not times: the same on any machine.

Statements and transactions are what SQLite's own trace says, bytes what the kernel says was written, and the rest is
counted by the profiler. One execution at a time pays for its transactions alone; of a hundred, each pays a part.
"""

import asyncio
import cProfile
import logging
import pstats
import sqlite3
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import structlog

sys.path.insert(0, str(Path(__file__).parent))

import workloads  # beside this file

from flexcore.bootstrap import Installation, opened
from flexcore.settings import load

EXECUTIONS, STEPS = 200, 10
COUNTED = {
    "JSON encoded": "<method 'encode' of 'msgspec.json.Encoder' objects>",
    "JSON decoded": "<method 'decode' of 'msgspec.json.Decoder' objects>",
    "turns of callbacks": "_run",
    "looks at the selector": "_run_once",
    "tasks": "create_task",
    "decisions": "decide",
    "states rebuilt": "rebuilt",
}


async def costs(installation: Installation, name: str, at_a_time: int) -> dict[str, float]:
    """Run the executions and give each count per step."""
    statements: Counter[str] = Counter()

    def trace(statement: str) -> None:
        statements[statement.split(None, 1)[0].upper()] += 1

    def watch(connection: sqlite3.Connection) -> None:
        connection.set_trace_callback(trace)

    def changed(connection: sqlite3.Connection) -> int:
        return connection.total_changes

    # Rows by SQLite's own count: its trace tells of a statement again for each trigger that it sets off.
    await installation.store.writing.run(watch)
    before, rows = written_bytes(), await installation.store.writing.run(changed)
    profile = cProfile.Profile()
    profile.enable()
    await workloads.throughput(installation, name, EXECUTIONS, at_a_time)
    profile.disable()
    steps = EXECUTIONS * STEPS
    rows = await installation.store.writing.run(changed) - rows
    transactions = statements.pop("COMMIT", 0)
    begins = statements.pop("BEGIN", 0)
    found = {
        "transactions": transactions / steps,
        "rows written": rows / steps,
        "other statements": (statements.total() - statements["INSERT"] - statements["UPDATE"] + begins) / steps,
        "bytes written": (written_bytes() - before) / steps,
    }
    return {**found, **{label: calls(profile, function) / steps for label, function in COUNTED.items()}}


def calls(profile: cProfile.Profile, function: str) -> int:
    """Give how often a function was called."""
    found: dict[Any, Any] = pstats.Stats(profile).stats  # type: ignore[attr-defined]  # typeshed leaves it out
    return sum(entry[1] for (_, _, name), entry in found.items() if name == function)


def written_bytes() -> int:
    """Give what this process has had written to disks."""
    fields = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(fields["write_bytes"])


async def main() -> None:
    """Print a table."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    with tempfile.TemporaryDirectory(prefix="flexcore-cost-") as folder:
        settings = load(Path(folder), environ={"FLEXCORE_LOGS__LEVEL": "error"}).settings
        async with opened(settings) as installation:
            name = await workloads.deploy(installation, workloads.chain(STEPS))
            await workloads.latencies(installation, name, 5)
            alone, together = await costs(installation, name, 1), await costs(installation, name, 100)
    print(f"{'per step of a chain of ten':28}{'1 at a time':>14}{'100 at a time':>16}")
    for label, count in alone.items():
        print(f"{label:28}{count:>14,.2f}{together[label]:>16,.2f}")


if __name__ == "__main__":
    asyncio.run(main())
