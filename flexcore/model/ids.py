"""Names of things: typed, sortable ids, and the path that addresses a step inside an execution.

Path grammar (no slashes): `load`, `fan[3].score` (iteration), `choose[1].build` (case), `choose.default.build`,
`sync.crm.update` (named branch), `risky.try.fetch`, `risky.catch.tell`, `risky.finally.close`, `on_failure.tell`.
A *scope* is the same without the last step: one running instance of a list of steps; the whole workflow is `""`.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import NewType

ExecutionId = NewType("ExecutionId", str)
StepPath = NewType("StepPath", str)
Scope = NewType("Scope", str)

ROOT = Scope("")
ON_FAILURE = Scope("on_failure")

STEP_ID = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,62}")
_INDEX = re.compile(r"\[\d+\]")
WORKFLOW_NAME = re.compile(r"[a-z][a-z0-9_-]{0,62}")
BENCHMARK_SUFFIX = "-benchmark"
RESERVED_STEP_IDS = frozenset({"on_failure", "preprocess"})

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32: keeps the order of the number it spells


@dataclass(frozen=True, slots=True)
class AttemptId:
    """One try of a step: the identity that every runtime derives its external name from. Numbers start at 1."""

    execution: ExecutionId
    path: StepPath
    number: int

    def __str__(self) -> str:
        return f"{self.execution}/{self.path}#{self.number}"


def new_id(prefix: str, unix_ms: int, entropy: bytes) -> str:
    """Make a typed, time-ordered id such as `exe_01k…`: 48 bits of milliseconds, 80 of entropy, as UUIDv7 and ULID do.

    `entropy` has at least 10 bytes. Pure, so that a test or a simulation gets the same ids again.
    """
    number = (unix_ms & (2**48 - 1)) << 80 | int.from_bytes(entropy[:10], "big")
    return f"{prefix}_" + "".join(_ALPHABET[(number >> shift) & 31] for shift in range(125, -1, -5))


def external_name(installation: str, attempt: AttemptId) -> str:
    """Name an attempt outside: `fx-` and a hash, legal as a folder, a Ray submission id and a Kubernetes name."""
    raw = hashlib.sha256(f"{installation}\n{attempt}".encode()).digest()[:20]
    return "fx-" + base64.b32encode(raw).decode().lower()


def benchmark_name(workflow: str) -> str:
    """Name the workflow that stands in for one step of another while that is measured."""
    return workflow[: 63 - len(BENCHMARK_SUFFIX)] + BENCHMARK_SUFFIX


def signature_of(workflow: str, path: StepPath) -> str:
    """Name what is the same step in all executions, all versions, and all iterations of a loop.

    What a benchmark measures is known of the step itself, where it stands in no list inside another step.

    >>> signature_of("etl", StepPath("fan[3].score"))
    'etl/fan.score'
    """
    return f"{workflow.removesuffix(BENCHMARK_SUFFIX)}/{_INDEX.sub('', path) if '[' in path else path}"


def step_path(scope: Scope, step: str) -> StepPath:
    """Address a step inside a scope."""
    return StepPath(f"{scope}.{step}" if scope else step)


def indexed(path: StepPath, index: int) -> Scope:
    """Name the scope of an iteration of a loop, or of a numbered case of a branch."""
    return Scope(f"{path}[{index}]")


def named(path: StepPath, name: str) -> Scope:
    """Name the scope of a branch with a name: a parallel branch, `try`, `catch`, `finally`, `default`."""
    return Scope(f"{path}.{name}")
