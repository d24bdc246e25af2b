"""What can be said about an instance of the Ray runtime, and about a `ray` step."""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, JsonValue, SecretStr, field_validator, model_validator

from flexcore.model.workflow import StepKind
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters, Scalar, Seconds

DASHBOARD_PORT = 8265
_CLIENT_PORT = 10001  # of Ray Client, which `ray://` addresses name
_OURS = ("working_dir", "py_modules", "config")


class Scaling(StrEnum):
    """What is made of work that is larger than the cluster is now."""

    AUTO = "auto"  # refused, unless the cluster says that it scales itself
    NONE = "none"  # refused


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RayConfig(_Strict):
    """One instance of the runtime: a cluster that is there (`address`), else one that is started here (`cluster`)."""

    address: str | None = Field(None, description="The cluster's dashboard, such as http://head:8265.")
    cluster: str | None = Field(
        None, pattern="^local$", description="`local`, the default without an address: a Ray started here when needed."
    )
    token: SecretStr | None = Field(None, description="For a dashboard with token authentication.")
    token_file: str | None = Field(None, description="A file with that token.")
    scaling: Scaling = Scaling.AUTO
    shares_files: bool | None = Field(
        None, description="Whether the cluster sees the files of the control plane by path."
    )
    object_store: bool = Field(True, description="Whether the cluster's nodes reach the URLs of an object store.")
    python: str = Field("python3", description="Interpreter of the nodes, 3.8 or newer, with which steps begin.")
    start_timeout: Seconds = Field(840.0, description="How long work may wait on the cluster before it begins.")
    packages_timeout: Seconds = Field(1800.0, description="Longest time to build an environment of `packages`.")
    max_result_bytes: int = Field(64 << 20, ge=1, description="Largest result of a step.")
    installer: dict[str, str] = Field(default_factory=dict, description="Variables for pip and uv on the nodes.")
    request_timeout: Seconds = Field(10.0, description="How long the dashboard may take for an answer.")

    # of a local cluster alone
    cpus: int | None = Field(None, ge=1, description="What a local cluster offers. Default: the cores of the machine.")
    idle_timeout: Seconds = Field(
        600.0, description="How long a local cluster stays without work before it ends itself."
    )
    cluster_start_timeout: Seconds = Field(90.0, description="How long a local cluster may take to start.")
    interpreter: str | None = Field(
        None, description="A Python with Ray, for a local cluster. Default: FlexCore's own."
    )
    boxed: bool = Field(False, description="Give a local cluster a network of its own, without a way out.")

    @field_validator("address")
    @classmethod
    def _is_a_dashboard(cls, value: str | None) -> str | None:
        return dashboard_of(value) if value is not None else None

    @model_validator(mode="before")
    @classmethod
    def _local_if_nowhere(cls, given: Any) -> Any:
        if isinstance(given, dict) and given.get("address") is None and given.get("cluster") is None:
            return {**given, "cluster": "local"}
        return given

    @model_validator(mode="after")
    def _one_place(self) -> Self:
        if self.address is not None and self.cluster is not None:
            raise ValueError("give `address` (a cluster's dashboard, such as http://head:8265) or `cluster: local`")
        if self.token is not None and self.token_file is not None:
            raise ValueError("give `token` or `token_file`, not both")
        if self.cluster is not None and (self.token is not None or self.token_file is not None):
            raise ValueError("a local cluster makes its own token: leave `token` and `token_file` out")
        return self

    @property
    def sees_files(self) -> bool:
        """Whether work sees the control plane's files; if nothing is said, where the cluster is on this machine."""
        return self.cluster is not None if self.shares_files is None else self.shares_files


class RayParameters(_Strict):
    """A `ray` step: a command that the user's own Ray program begins with, in a folder with what `files` names."""

    model_config = ConfigDict(defer_build=True)  # most commands see no such step

    entrypoint: str = Field(min_length=1, description="A shell command, such as `python train.py --epochs 3`.")
    runtime_env: dict[str, JsonValue] = Field(default_factory=dict, description="Ray's own: pip, env_vars, …")
    env: dict[str, Scalar] = Field(
        default_factory=dict, description="Variables; unlike env_vars, nobody is shown them."
    )
    files: list[str] = Field(default_factory=list, description="Files or folders beside the workflow that it needs.")
    resources: dict[str, float] = Field(default_factory=dict, description="Custom resources of the cluster to reserve.")

    @model_validator(mode="after")
    def _leaves_room(self) -> Self:
        for key in _OURS:
            if key in self.runtime_env:
                raise ValueError(f"`runtime_env.{key}` is FlexCore's own: the program gets what `files` names")
        variables = self.runtime_env.get("env_vars", {})
        if not isinstance(variables, dict) or not all(isinstance(each, str) for each in variables.values()):
            raise ValueError("`runtime_env.env_vars` is a mapping from names to texts")
        return self


PARAMETERS: Mapping[StepKind, type[BaseModel]] = {
    StepKind.PYTHON: PythonParameters,
    StepKind.BASH: BashParameters,
    StepKind.RAY: RayParameters,
}


def data_stores(config: RayConfig) -> frozenset[str]:
    """Say which kinds of artifact store the nodes can reach."""
    return frozenset({"file"} if config.sees_files else ()) | frozenset({"s3"} if config.object_store else ())


def dashboard_of(address: Any) -> str:
    """Make a dashboard's URL of what people write, or say with ValueError what is wrong with it.

    `ray://head:10001` is an address of Ray Client, with which this runtime has nothing to do; the dashboard of the
    same cluster is `http://head:8265` wherever nobody changed the ports.

    >>> dashboard_of("ray://head:10001")
    'http://head:8265'
    """
    hint = "write the dashboard's address, such as http://head:8265"
    if not isinstance(address, str):
        raise ValueError(hint)
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{address!r} is no address: {hint}") from error
    if parts.hostname is None or parts.scheme not in ("http", "https", "ray") or parts.username is not None:
        raise ValueError(f"{address!r} is no address of a dashboard: {hint}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if parts.scheme != "ray":
        default = f":{DASHBOARD_PORT}" if port is None and parts.scheme == "http" else f":{port}" if port else ""
        return f"{parts.scheme}://{host}{default}{parts.path.rstrip('/')}"
    if port not in (None, _CLIENT_PORT):
        raise ValueError(f"{address!r} is an address of Ray Client with a port of its own: {hint}")
    return f"http://{host}:{DASHBOARD_PORT}"
