"""The four verbs of a runtime, and the data that crosses the seam.

An adapter never retries user work, never sleeps for back-off, never touches the store and has no metrics code.
It raises only `RuntimeUnavailable` (the outcome is unknown; `execute` will be called again for the same attempt) and
`InternalError`; whatever the *work* did is an `ExecutionResult`.
"""

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Protocol, TypeAlias

from flexcore.model.execution import Handle, Phase, Usage
from flexcore.model.failure import Failure
from flexcore.model.ids import AttemptId, ExecutionId
from flexcore.model.values import JSON, Ref
from flexcore.model.workflow import Requirements, StepKind

INTERFACE_VERSION = 1


class LogStream(StrEnum):
    """Where a line of output came from. `SYSTEM` is what the runtime itself has to say."""

    STDOUT = "stdout"
    STDERR = "stderr"
    SYSTEM = "system"


class Health(StrEnum):
    """Up, usable with a penalty, or not usable."""

    UP = "up"
    DEGRADED = "degraded"
    DOWN = "down"


class Feature(StrEnum):
    """What an adapter may not support. An absent entry in `Capabilities.unsupported` means: supported."""

    ADOPTION = "adoption"  # work is found again after a restart of the control plane
    CANCEL_GRACE = "cancel_grace"  # work is told before it is killed
    LOGS = "logs"
    LOG_OFFSETS = "log_offsets"  # logs resume at an offset without loss or repeat
    LOG_STREAMS = "log_streams"  # stdout and stderr are told apart; without, everything comes as stdout
    RESOURCE_LIMITS = "resource_limits"
    SURVEY = "survey"
    USAGE = "usage"


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionRequest:
    """One attempt: everything an adapter needs to start the work, or to find it again.

    `parameters` is the step's `with`, resolved, secrets filled in, and validated by the plug-in's model for the kind.
    `folder` holds the files of the workflow's version (`file:` and `project:` are relative to it). Nothing in
    `secrets` (the plain values) may reach a log, an error, a process list or a file that outlives the attempt.
    """

    id: AttemptId
    token: int  # fencing token, strictly increasing per step
    kind: StepKind
    parameters: Mapping[str, JSON]
    requirements: Requirements = Requirements()
    workflow: str = ""
    workspace: str = "default"
    folder: Path = Path()
    files: frozenset[str] | None = None  # in `folder`, those of the version; None: all. The rest is the author's own
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: tuple[str, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    deadline: datetime | None = None  # the runtime's backstop; the engine's own durable timer decides
    grace: timedelta = timedelta(seconds=30)
    handle: Handle | None = None  # given after a restart: adopt exactly this
    fresh: bool = False  # nobody has asked for this attempt before: there is nothing of it to be found anywhere
    log_offsets: Mapping[LogStream, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Submitted:
    """The work exists outside. Comes once and first; only `PhaseEntered` may come before it.

    With `prepares`, the user's work has not begun: `PhaseEntered(RUN)` will say when it does, and the step's time
    limit runs from there. Without, it runs from here.
    """

    handle: Handle
    adopted: bool = False
    prepares: bool = False


@dataclass(frozen=True, slots=True)
class LogChunk:
    """Bytes of one stream, `offset` counted from the stream's first byte."""

    stream: LogStream
    offset: int
    data: bytes


@dataclass(frozen=True, slots=True)
class MetricSample:
    """A figure of the running work, such as rows per stream: name, value, unit."""

    name: str
    value: float
    unit: str


@dataclass(frozen=True, slots=True)
class PhaseEntered:
    """The attempt went from one phase to the next."""

    phase: Phase
    at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the work is, 0 to 1 or unknown, and a short note for people."""

    fraction: float | None
    note: str


@dataclass(frozen=True, slots=True)
class Succeeded:
    """The work's result; null is a legal one."""

    output: JSON = None


@dataclass(frozen=True, slots=True)
class Failed:
    """The work failed, and how."""

    failure: Failure


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionResult:
    """What the work came to."""

    outcome: Succeeded | Failed
    artifacts: tuple[Ref, ...] = ()
    usage: Usage = Usage()
    phases: Mapping[Phase, timedelta] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Finished:
    """The end. Comes once and last; without `Submitted` before it when nothing was started (validation)."""

    result: ExecutionResult


ExecutionEvent: TypeAlias = Submitted | LogChunk | MetricSample | PhaseEntered | Progress | Finished


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthStatus:
    """How a runtime is; `reason` is one sentence for a person, also when it is up."""

    state: Health
    reason: str
    checked_at: datetime
    start_latency: timedelta | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Resources:
    """The largest step that fits: cpu and gpu counts, bytes; None is unlimited or unknown."""

    cpu: float | None = None
    memory: int | None = None
    gpu: float | None = None
    disk: int | None = None
    slots: int | None = None  # attempts at a time


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What a runtime can do, as data. `unsupported` maps a feature to the reason why it is missing."""

    step_kinds: frozenset[StepKind]
    limits: Resources = Resources()
    unsupported: Mapping[Feature, str] = field(default_factory=dict)
    tags: frozenset[str] = frozenset()
    data_stores: frozenset[str] = frozenset({"file"})
    versions: Mapping[str, str] = field(default_factory=dict)
    price_per_hour: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptScope:
    """End one attempt: `grace` to finish, then force. `handle` is the stored one, if any."""

    id: AttemptId
    handle: Handle | None = None
    grace: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionScope:
    """End and remove everything of one execution."""

    execution: ExecutionId
    grace: timedelta = timedelta(seconds=30)


@dataclass(frozen=True, slots=True)
class Survey:
    """List, without ending anything, what carries this installation's labels."""

    installation: str


CleanupScope: TypeAlias = AttemptScope | ExecutionScope | Survey


@dataclass(frozen=True, slots=True, kw_only=True)
class CleanupReport:
    """External names: what is gone for certain, what is being ended, and what we cannot tell (name → why).

    A survey lists what is there under `pending`, and in `attempts` which attempt each name belongs to, where known.
    In `executions` it names those of which something is kept from one attempt to the next. `retained` names what a
    survey saw that is meant to outlive its execution: it is shown, and never ended.
    """

    gone: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()
    unknown: Mapping[str, str] = field(default_factory=dict)
    attempts: Mapping[str, AttemptId] = field(default_factory=dict)
    executions: frozenset[ExecutionId] = frozenset()
    retained: frozenset[str] = frozenset()


class Runtime(Protocol):
    """Runs work somewhere. Stateless apart from its client; all that is durable is in the request or outside."""

    def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Start the work, or adopt it if it exists, and report until it ends. Closing the iterator detaches.

        Raises `RuntimeUnavailable` when the outcome is unknown because the runtime cannot be reached.
        """
        ...

    async def health(self) -> HealthStatus:
        """Say how the runtime is, within seconds, without side effects."""
        ...

    async def capabilities(self) -> Capabilities:
        """Say what the runtime can do."""
        ...

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End work and remove what it left. Idempotent."""
        ...
