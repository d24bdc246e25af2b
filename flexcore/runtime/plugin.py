"""What an entry point in the group `flexcore.runtimes` loads: a kind of runtime, ready to be instantiated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from flexcore.model.values import Ref
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import INTERFACE_VERSION, Runtime


class ArtifactStore(Protocol):
    """Content-addressed bytes, shared by all parts of an installation."""

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        """Store bytes durably and name them by their content. Storing the same again is cheap."""
        ...

    async def get(self, ref: Ref) -> bytes:
        """Read bytes back. Raises NotFound, or InternalError when the checksum does not match."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimeContext:
    """What an instance gets from its surroundings; it keeps its files below `state_folder` and nowhere else."""

    installation: str
    state_folder: Path
    artifacts: ArtifactStore
    now: Callable[[], datetime]


class NoConfig(BaseModel):
    """The configuration of a runtime that has none."""

    model_config = ConfigDict(extra="forbid")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuntimePlugin:
    """A kind of runtime. Everything but `kind` and `create` has a default.

    `parameters` has the schema of `with` per step kind. They are pydantic models with `extra="forbid"`; the core never
    knows the keys. `certify` is where the conformance kit finds the harness for this kind: `module:factory`, a function
    of a `flexcore.testing.runtime_processes.Subject`; without, the one for runtimes that run `bash` steps.
    """

    kind: str
    create: Callable[[str, Any, RuntimeContext], Runtime]  # instance name, validated config (a `config`), context
    interface: int = INTERFACE_VERSION
    config: type[BaseModel] = NoConfig
    parameters: Mapping[StepKind, type[BaseModel]] = field(default_factory=dict)
    certify: str | None = None
