"""The two rule tables of cold-start placement, as data: the answer where nothing has been learned yet.

The step table is read first; only when its last row is reached does the pipeline table decide. The tables know types
of runtimes, not instances, and nothing of feasibility. What is unknown is unknown: it makes a condition false and is
never taken for zero.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from flexcore.model.workflow import Complexity, Requirements, StepKind

GB = 10**9

SMALL = 10 * GB
LARGE = 100 * GB

MELTANO = "meltano"
RAY = "ray"
KUBERNETES = "kubernetes"
LOCAL = "local"


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From where on a step counts as resource-intensive when it does not say so: counts, memory in bytes."""

    cpu: float = 8
    memory: int = 32 * GB
    gpu: float = 1


DEFAULT_THRESHOLDS = Thresholds()


class Workload(NamedTuple):
    """The facts that the tables read."""

    kind: StepKind
    data_size: int | None
    complexity: Complexity | None
    resource_intensive: bool | None
    parallelizable: bool | None
    containerized: bool | None
    scalable: bool | None


class Row(NamedTuple):
    """One row: `text` says the condition for people."""

    id: str
    text: str
    holds: Callable[[Workload], bool]
    runtime: str


class RuleChoice(NamedTuple):
    """What the tables say: a type of runtime, and the row that said it."""

    runtime: str
    row: str


def _is_small_and_simple(load: Workload) -> bool:
    return load.data_size is not None and load.data_size < SMALL and load.complexity is Complexity.SIMPLE


def _is_large_or_ml(load: Workload) -> bool:
    return (load.data_size is not None and load.data_size > LARGE) or load.complexity is Complexity.ML


def _is_extract_or_model(load: Workload) -> bool:
    return load.kind is StepKind.SINGER or load.kind is StepKind.DBT


STEP_TABLE = (
    Row("S1", "singer and dbt steps", _is_extract_or_model, MELTANO),
    Row(
        "S2",
        "resource-intensive and parallelizable",
        lambda load: bool(load.resource_intensive and load.parallelizable),
        RAY,
    ),
    Row("S3", "containerized and scalable", lambda load: bool(load.containerized and load.scalable), KUBERNETES),
)
"""The rows before S4; S4 is the way into the pipeline table."""

PIPELINE_TABLE = (
    Row("P1", "less than 10 GB and simple", _is_small_and_simple, MELTANO),
    Row("P2", "more than 100 GB, or machine learning", _is_large_or_ml, RAY),
    Row("P3", "scalable", lambda load: bool(load.scalable), KUBERNETES),
    Row("P4", "nothing else applies", lambda _: True, MELTANO),
)

_ALL = STEP_TABLE + PIPELINE_TABLE

ROWS = {row.id: row for row in _ALL}


def is_resource_intensive(requirements: Requirements, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> bool | None:
    """Take the declared word for it, else compare what is declared with the thresholds; None when nothing is."""
    if requirements.resource_intensive is not None:
        return requirements.resource_intensive
    amounts = (
        (requirements.cpu, thresholds.cpu),
        (requirements.memory, thresholds.memory),
        (requirements.gpu, thresholds.gpu),
    )
    known = [amount >= bound for amount, bound in amounts if amount is not None]
    return any(known) if known else None


def workload(kind: StepKind, requirements: Requirements, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> Workload:
    """Derive the tables' facts from what a step is and declares."""
    return Workload(
        kind=kind,
        data_size=requirements.data_size,
        complexity=requirements.complexity,
        resource_intensive=is_resource_intensive(requirements, thresholds),
        parallelizable=requirements.parallelizable,
        containerized=True if kind is StepKind.CONTAINER else requirements.containerized,
        scalable=requirements.scalable,
    )


def choose(load: Workload) -> RuleChoice:
    """Read the tables: the first row that holds."""
    for row in _ALL:
        if row.holds(load):
            return RuleChoice(row.runtime, row.id)
    raise AssertionError("the last row always holds")


def rule_choice(kind: StepKind, requirements: Requirements, thresholds: Thresholds = DEFAULT_THRESHOLDS) -> RuleChoice:
    """Say which type of runtime the tables name for a step, and by which row."""
    return choose(workload(kind, requirements, thresholds))
