"""The workflow: one model for every spelling. What does not apply to a kind of step does not exist on it.

Steps run in list order unless a step says `needs`; a list in which any step does is a DAG, where a step without
`needs` still comes after the one before it. Durations are timedeltas, sizes are bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from typing import NewType, TypeAlias

from flexcore.model.failure import ErrorClass
from flexcore.model.template import Expression, Literal, Position, Template
from flexcore.model.values import JSON

StepId = NewType("StepId", str)
VersionHash = NewType("VersionHash", str)


class StepKind(StrEnum):
    """The kinds of work that a runtime does. Control kinds are not among them: the engine does those itself."""

    PYTHON = "python"
    BASH = "bash"
    HTTP = "http"
    SQL = "sql"
    FUNCTION = "function"
    SINGER = "singer"
    DBT = "dbt"
    MELTANO = "meltano"
    RAY = "ray"
    CONTAINER = "container"
    KUBERNETES = "kubernetes"


class Complexity(StrEnum):
    """How demanding a step's computation is, as its author sees it."""

    SIMPLE = "simple"
    MODERATE = "moderate"
    COMPLEX = "complex"
    ML = "ml"


class OnError(StrEnum):
    """What a failure that survived its retries does: end the execution, or become a result `{error: …}`."""

    FAIL = "fail"
    CONTINUE = "continue"


@dataclass(frozen=True, slots=True, kw_only=True)
class Requirements:
    """What a step needs of a place. None means not declared, which is never the same as zero or false.

    `data_size`, `memory` and `disk` are bytes, `cpu` and `gpu` are counts, `max_cost` is in the currency of prices.
    """

    data_size: int | None = None
    complexity: Complexity | None = None
    cpu: float | None = None
    memory: int | None = None
    gpu: float | None = None
    disk: int | None = None
    resource_intensive: bool | None = None
    parallelizable: bool | None = None
    containerized: bool | None = None
    scalable: bool | None = None
    deadline: timedelta | None = None
    max_cost: float | None = None
    tags: tuple[str, ...] = ()
    idempotent: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often and when a failed step is tried again. `attempts` counts the first try; pauses grow by `factor`.

    The pause before try n+1 is min(max_delay, delay · factor^(n-1)), plus or minus `jitter` of itself at random.
    `on` empty means every class but user errors that cannot change (`input`, `cancelled`).
    """

    attempts: int = 1
    delay: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    max_delay: timedelta = timedelta(minutes=5)
    jitter: float = 0.0
    on: tuple[ErrorClass, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class CachePolicy:
    """Reuse an earlier success. Without `key`, the resolved parameters are the key."""

    ttl: timedelta
    key: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Concurrency:
    """At most `limit` at a time: of all, or with `key`, of those for which that has the same value."""

    limit: int
    key: Template | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Work for a runtime. `parameters` is the step's `with`; `file` contents are in the version's bundle."""

    kind: StepKind
    parameters: Template


@dataclass(frozen=True, slots=True)
class Transform:
    """A value computed by the engine."""

    value: Template


@dataclass(frozen=True, slots=True)
class Case:
    """One numbered alternative of a branch."""

    condition: Expression
    steps: "tuple[Step, ...]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Branch:
    """The first case whose condition is true, else the default."""

    cases: tuple[Case, ...]
    default: "tuple[Step, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedBranch:
    """One of the branches that run side by side."""

    id: StepId
    steps: "tuple[Step, ...]"
    on_error: OnError = OnError.FAIL


@dataclass(frozen=True, slots=True)
class Parallel:
    """All branches at once; the result is an object by branch id."""

    branches: tuple[NamedBranch, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class ForEach:
    """The body once per item, at most `parallelism` at a time.

    The step's own `on_error: continue` lets iterations fail one by one: a failed one counts as `{error: …}`.
    """

    items: Template
    steps: "tuple[Step, ...]"
    parallelism: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class While:
    """The body as long as the condition holds, looked at before each round. Over `max_iterations` it fails."""

    condition: Expression
    steps: "tuple[Step, ...]"
    max_iterations: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Try:
    """The body; on failure `catch`, which sees `error`; then `final` in any case."""

    steps: "tuple[Step, ...]"
    catch: "tuple[Step, ...]" = ()
    final: "tuple[Step, ...]" = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class SubWorkflow:
    """An execution of another workflow, linked to this one. With `wait` its output is the result, else its id."""

    name: str
    input: Template = Literal(None)
    wait: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Wait:
    """A pause: `duration` gives text such as `10m` or seconds, `until` an RFC 3339 time. Exactly one is set."""

    duration: Template | None = None
    until: Template | None = None


Action: TypeAlias = Task | Transform | Branch | Parallel | ForEach | While | Try | SubWorkflow | Wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """A node of the workflow."""

    id: StepId
    action: Action
    needs: tuple[StepId, ...] | None = None  # None: after the previous one; (): at once
    when: Expression | None = None
    retry: RetryPolicy = RetryPolicy()
    timeout: timedelta | None = None
    cache: CachePolicy | None = None
    concurrency: Concurrency | None = None
    on_error: OnError = OnError.FAIL
    runtime: str | None = None  # a name pins it; None is `auto`
    requirements: Requirements = Requirements()
    vars: Mapping[str, JSON] = field(default_factory=dict)
    env: Mapping[str, Template] = field(default_factory=dict)
    position: Position = field(default=Position(), compare=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """A definition. Its version is the hash of the definition and of every file that belongs to it."""

    name: str
    steps: tuple[Step, ...]
    version: VersionHash = VersionHash("")
    description: str = ""
    inputs: Mapping[str, JSON] | None = None  # JSON Schema of the input
    output: Template | None = None
    on_failure: tuple[Step, ...] = ()
    requirements: Requirements = Requirements()
    timeout: timedelta | None = None
    concurrency: Concurrency | None = None
    vars: Mapping[str, JSON] = field(default_factory=dict)
    env: Mapping[str, Template] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)


def type_name(step: Step) -> str:
    """Spell a step's kind the way a workflow file does."""
    action = step.action
    match action:
        case Task():
            return action.kind.value
        case ForEach():
            return "foreach"
        case SubWorkflow():
            return "workflow"
        case _:
            return type(action).__name__.lower()
