"""How long a placement takes: four runtimes, a warm model, the explanation included; without the memo, without flips.

    python benchmarks/place.py [--calls 20000] [--profile]

Every call asks about another size, so that none is answered from the memo of the snapshot. The goal is a median of 40
microseconds and a 99th percentile of 200.
"""

import argparse
import cProfile
import gc
import math
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime

from flexcore.analyzer.place import StepView, place
from flexcore.analyzer.predict import Model
from flexcore.analyzer.snapshot import Candidate, Load, Snapshot
from flexcore.analyzer.view import Measured, Source, Stored
from flexcore.model.execution import Phase
from flexcore.model.observation import Observation
from flexcore.model.workflow import Requirements, StepKind
from flexcore.runtime.interface import Capabilities, Health, HealthStatus, Resources

NAMES = ("local", "meltano", "ray", "kubernetes")
AT = datetime(2026, 1, 1, tzinfo=UTC)


def observations(signatures: int, each: int) -> Iterator[Observation]:
    """Make up runs of a number of steps on all runtimes."""
    draw = random.Random(1)
    for number in range(signatures * each):
        name = NAMES[number % 4]
        size = int(10 ** draw.uniform(6, 11))
        run = math.exp(draw.gauss(1 + 0.4 * NAMES.index(name), 0.3)) * (size / 1e8) ** 0.5
        yield Observation(
            signature=f"w/step{number % signatures}",
            family="python",
            runtime=name,
            runtime_kind=name,
            outcome="succeeded",
            at=AT,
            input_bytes=size,
            seconds={Phase.START: draw.uniform(0.1, 2), Phase.RUN: run},
        )


def snapshot(model: Model) -> Snapshot:
    """Four runtimes that can all run the step."""
    capabilities = Capabilities(
        step_kinds=frozenset(StepKind),
        limits=Resources(cpu=64, memory=10**12, slots=8),
        data_stores=frozenset({"file", "s3"}),
    )
    status = HealthStatus(state=Health.UP, reason="answers", checked_at=AT)
    return Snapshot(
        tuple(
            Candidate(name=name, kind=name, priority=priority, capabilities=capabilities, health=status)
            for priority, name in enumerate(NAMES)
        ),
        loads={name: Load(queued=3, running=8) for name in NAMES},
        prices={"ray": 1.5, "kubernetes": 2.0},
        model=model,
    )


def main() -> None:
    """Measure, and print one line for each quantile."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000)
    parser.add_argument("--profile", action="store_true")
    options = parser.parse_args()
    gc.set_threshold(20_000)  # as the console script does, which starts every server
    began = time.perf_counter()
    count = 5_000
    model = Model().observed(observations(100, count // 100))
    print(f"fold: {(time.perf_counter() - began) / count * 1e6:.1f} us per observation")
    view = snapshot(model)
    needs = Requirements(cpu=2, memory=10**9)
    stored = (Stored("s3", 10**8),)
    first = StepView(kind=StepKind.PYTHON, requirements=needs, signature="w/step1", inputs=stored)
    steps = [replace(first, data=Measured(10**6 + number, Source.MEASURED)) for number in range(options.calls)]
    place(first, view)
    gc.collect()
    if options.profile:
        with cProfile.Profile() as profile:
            for step in steps:
                place(step, view)
        profile.print_stats("tottime")
        return
    taken = []
    for step in steps:
        start = time.perf_counter_ns()
        place(step, view)
        taken.append(time.perf_counter_ns() - start)
    taken.sort()
    for name, share in (("p50", 0.5), ("p90", 0.9), ("p99", 0.99)):
        print(f"place {name}: {taken[int(share * len(taken))] / 1000:.1f} us")
    print(f"source: {place(first, view).source}")


if __name__ == "__main__":
    main()
