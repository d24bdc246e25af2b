"""What an entry point in the group `flexcore.runtimes` loads: a kind of runtime, ready to be instantiated."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Protocol

from pydantic import BaseModel, ConfigDict

from flexcore.model.values import Ref
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import INTERFACE_VERSION, Runtime


@dataclass(frozen=True, slots=True)
class Link:
    """Where bytes can be read (GET) or written (PUT) without credentials, for a while.

    `url` is `file:///absolute/path`, or an http(s) URL that carries its own permission: treat it as a secret.
    `headers` have to be sent along.
    """

    url: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Offer:
    """A place for bytes that do not exist yet, and the `uri` they will be referred to by once they do."""

    uri: str
    link: Link


class ArtifactStore(Protocol):
    """Content-addressed bytes, shared by all parts of an installation.

    `store` says what a link needs from whoever follows it, in the words of `Capabilities.data_stores`: `file` (the
    control plane's files) or `s3` (URLs of an object store).
    """

    @property
    def store(self) -> str:
        """Say which kind of store it is: `file` or `s3`."""
        ...

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        """Store bytes durably and name them by their content. Storing the same again is cheap."""
        ...

    async def get(self, ref: Ref) -> bytes:
        """Read bytes back. Raises NotFound, or InternalError when the checksum does not match."""
        ...

    async def link(self, ref: Ref, valid: timedelta) -> Link:
        """Make bytes readable for others. Raises NotFound; InvalidInput for a reference to somewhere else."""
        ...

    async def offer(self, name: str, valid: timedelta) -> Offer:
        """Offer a place to write to. The same name is the same place; one that is never used costs nothing."""
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
