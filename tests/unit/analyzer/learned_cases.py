"""What the tests of learned placement share: runtimes, observations, random questions, a restatement of the tables."""

import json
import math
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import msgspec

from flexcore.analyzer.place import StepView, place
from flexcore.analyzer.policy import Policy, PolicyName
from flexcore.analyzer.predict import Model
from flexcore.analyzer.rules import GB
from flexcore.analyzer.snapshot import Candidate, Load, Snapshot
from flexcore.analyzer.view import Measured, Source, Stored
from flexcore.model.execution import Phase
from flexcore.model.observation import Observation
from flexcore.model.placement import Placement
from flexcore.model.workflow import Complexity, Requirements, StepKind
from flexcore.runtime.interface import Capabilities, Health, HealthStatus, Resources

NAMES = ("local", "meltano", "ray", "kubernetes")
AT = datetime(2026, 1, 1, tzinfo=UTC)
SIZES = (None, 0, 1, 10 * GB - 1, 10 * GB, 10 * GB + 1, 50 * GB, 100 * GB - 1, 100 * GB, 100 * GB + 1, 10**15)
FLAGS = (None, False, True)
STEP = StepView(kind=StepKind.PYTHON, signature="w/s")


def restated(kind: StepKind, needs: Requirements) -> tuple[str, str]:
    """The two tables once more, in plain words that share no code with the rows."""
    intensive = needs.resource_intensive
    if intensive is None:
        intensive = (needs.cpu or 0) >= 8 or (needs.memory or 0) >= 32_000_000_000 or (needs.gpu or 0) >= 1
    if kind.value == "singer" or kind.value == "dbt":
        return "meltano", "S1"
    if intensive is True and needs.parallelizable is True:
        return "ray", "S2"
    if (kind.value == "container" or needs.containerized is True) and needs.scalable is True:
        return "kubernetes", "S3"
    if needs.data_size is not None and needs.data_size < 10_000_000_000 and needs.complexity == "simple":
        return "meltano", "P1"
    if (needs.data_size is not None and needs.data_size > 100_000_000_000) or needs.complexity == "ml":
        return "ray", "P2"
    return ("kubernetes", "P3") if needs.scalable is True else ("meltano", "P4")


def candidate(name: str, state: Health = Health.UP, priority: int | None = None, **limits: float) -> Candidate:
    return Candidate(
        name=name,
        kind=name.partition("-")[0],
        priority=NAMES.index(name) if priority is None else priority,
        capabilities=Capabilities(
            step_kinds=frozenset(StepKind),
            limits=Resources(**limits),  # type: ignore[arg-type]  # a test's shorthand
            data_stores=frozenset({"file", "s3"}),
        ),
        health=HealthStatus(state=state, reason="answers", checked_at=AT),
    )


def able(model: Model | None = None, names: Iterable[str] = NAMES) -> Snapshot:
    """Runtimes that can all run everything."""
    return Snapshot(tuple(candidate(name) for name in names), model=model or Model())


def seen(
    runtime: str,
    run: float,
    size: int | None = None,
    *,
    signature: str = "w/s",
    outcome: str = "succeeded",
    start: float | None = 0.1,
    after: float = 0.0,
    **other: object,
) -> Observation:
    seconds = {Phase.RUN: run} | ({} if start is None else {Phase.START: start})
    return Observation(
        signature=signature,
        family="python",
        runtime=runtime,
        runtime_kind=runtime,
        outcome=outcome,
        at=AT + timedelta(seconds=after),
        input_bytes=size,
        seconds=seconds,
        **other,  # type: ignore[arg-type]  # a test's shorthand
    )


def line(size: int, intercept: float, slope: float) -> float:
    """Seconds by the law that predictions are made with."""
    return math.exp(intercept + slope * math.log((size + 1e6) / 1e8))


def random_requirements(draw: random.Random) -> Requirements:
    return Requirements(
        data_size=draw.choice([*SIZES, draw.randrange(10**13)]),
        complexity=draw.choice([None, *Complexity]),
        cpu=draw.choice([None, 0.5, 7.99, 8.0, 16.0]),
        memory=draw.choice([None, 1, 32 * GB - 1, 32 * GB, 10**12]),
        gpu=draw.choice([None, 0.0, 0.5, 1.0]),
        resource_intensive=draw.choice(FLAGS),
        parallelizable=draw.choice(FLAGS),
        containerized=draw.choice(FLAGS),
        scalable=draw.choice(FLAGS),
    )


def random_model(draw: random.Random, signatures: int = 12) -> Model:
    """Steps of all ages, on some of the runtimes, that succeed, fail and run out of time."""

    def runs() -> Iterator[Observation]:
        for number in range(signatures):
            for _ in range(draw.choice([0, 1, 2, 3, 4, 10, 30])):
                size = draw.choice([None, int(10 ** draw.uniform(5, 12))])
                yield seen(
                    draw.choice(NAMES),
                    draw.lognormvariate(2, 1.5),
                    size,
                    signature=f"w/{number}",
                    outcome=draw.choice(["succeeded"] * 8 + ["user", "lost", "timeout"]),
                    start=draw.choice([None, draw.uniform(0, 5)]),
                    after=draw.uniform(0, 10_000),
                    score=draw.choice([None, draw.uniform(0, 100)]),
                    rule_score=draw.choice([None, draw.uniform(0, 100)]),
                )

    return Model().observed(runs())


def random_snapshot(draw: random.Random) -> Snapshot:
    states = (Health.UP, Health.UP, Health.UP, Health.DEGRADED, Health.DOWN)
    candidates = tuple(candidate(name, draw.choice(states), slots=draw.choice([2, 8])) for name in NAMES)
    loads = {name: Load(queued=draw.randrange(9), running=draw.randrange(9)) for name in draw.sample(NAMES, 3)}
    prices = {name: draw.choice([0.0, 0.5, 3.0]) for name in draw.sample(NAMES, 2)}
    return Snapshot(candidates, loads=loads, prices=prices, model=random_model(draw))


def random_step(draw: random.Random) -> StepView:
    needs = replace(random_requirements(draw), gpu=None)
    size = draw.choice([None, int(10 ** draw.uniform(5, 12))])
    return StepView(
        kind=draw.choice([StepKind.PYTHON, StepKind.BASH, StepKind.SINGER]),
        requirements=needs,
        signature=f"w/{draw.randrange(14)}",
        family="python",
        data=Measured(size, Source.MEASURED) if size is not None else Measured(),
        inputs=(Stored("s3", size),) if size is not None and draw.random() < 0.5 else (),
        deadline=draw.choice([None, None, timedelta(seconds=draw.uniform(0, 200))]),
    )


def random_policy(draw: random.Random) -> Policy:
    return Policy(name=draw.choice(list(PolicyName)))


def random_answers(seed: int, snapshots: int, steps: int) -> Iterator[tuple[StepView, Snapshot, Policy, Placement]]:
    draw = random.Random(seed)
    for _ in range(snapshots):
        snapshot = random_snapshot(draw)
        for _ in range(steps):
            step, policy = random_step(draw), random_policy(draw)
            yield step, snapshot, policy, place(step, snapshot, policy)


def as_text(placements: Sequence[Placement]) -> str:
    """Everything that a placement says, to the last digit."""
    return json.dumps([msgspec.to_builtins(each) for each in placements])
