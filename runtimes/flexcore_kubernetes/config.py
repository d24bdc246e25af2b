"""What can be said about an instance of the Kubernetes runtime, and about the steps that only it runs."""

from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, JsonValue, WithJsonSchema, model_validator

from flexcore.model.units import parse_size
from flexcore.runtime.portable.parameters import Scalar, Seconds, Strict

_LABEL_VALUE = r"^([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?$"
_NAME = r"^[a-z0-9]([-a-z0-9.]{0,61}[a-z0-9])?$"
_PORTABLE_IMAGE = "python:3.12-slim"


def _size(value: str | int) -> int:
    return parse_size(value)


Size = Annotated[str | int, AfterValidator(_size), WithJsonSchema({"type": ["string", "integer"]})]
"""Bytes, or text such as `512MiB`."""

LabelValue = Annotated[str, Field(pattern=_LABEL_VALUE)]
Name = Annotated[str, Field(pattern=_NAME)]


class DefaultResources(Strict):
    """What a step gets that declares nothing itself. Requests and limits are the same for memory."""

    cpu: float | None = Field(None, gt=0, description="Requested cores.")
    memory: Size | None = Field(None, description="Requested memory, and the limit.")


class KubernetesConfig(Strict):
    """One cluster and namespace. Several may stand under different names."""

    kubeconfig: str | None = Field(None, description="Path of the kubeconfig. Default: KUBECONFIG or ~/.kube/config.")
    context: str | None = Field(None, description="A context of the kubeconfig. Default: its current one.")
    in_cluster: bool = Field(False, description="Use the service account of the pod that FlexCore runs in.")
    namespace: Name = Field("default", description="Where all work goes; it has to exist.")
    image: str = Field(
        _PORTABLE_IMAGE, min_length=1, description="Image of `python` and `bash` steps, with Python 3.8+."
    )
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] | None = None
    pull_secrets: list[Name] = Field(default_factory=list, description="Secrets with credentials of registries.")
    service_account: Name | None = Field(None, description="Account that the work has in the cluster.")
    labels: dict[str, LabelValue] = Field(default_factory=dict, description="Added to all Jobs and pods.")
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: list[dict[str, JsonValue]] = Field(default_factory=list)
    resources: DefaultResources = Field(default_factory=lambda: DefaultResources(cpu=None, memory=None))
    gpu_resource: str = Field("nvidia.com/gpu", description="What `requirements.gpu` counts.")
    security: Literal["restricted", "baseline", "none"] = Field(
        "restricted", description="How little pods may do: restricted also runs python and bash steps without root."
    )
    run_as_user: int = Field(65532, ge=1, description="User id of `python` and `bash` steps when restricted.")
    start_timeout: Seconds = Field(300.0, description="Longest time until the work runs: place, image, volumes.")
    ttl: Seconds = Field(86400.0, description="How long the cluster keeps a finished Job that nobody cleans up.")
    packages_timeout: Seconds = Field(1800.0, description="Longest time to install `packages` in the pod.")
    environment: dict[str, str] = Field(
        default_factory=dict, description="Variables for the installer of `packages`, such as UV_INDEX_URL."
    )
    wheels: str | None = Field(None, description="Folder of the image with wheels that `packages` come from.")
    shares_files: bool = Field(False, description="Pods see the control plane's files under the same paths.")
    preflight: bool = Field(True, description="Ask the cluster whether it would take the work before it is created.")
    resync: Seconds = Field(20.0, description="How often everything is listed anew, in case a watch went deaf.")
    patience: Seconds = Field(10.0, description="How long a silent cluster is waited for before a step is put off.")

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if self.in_cluster and (self.kubeconfig or self.context):
            raise ValueError("`in_cluster` takes neither `kubeconfig` nor `context`")
        return self


class Mount(Strict):
    """Something of the cluster that the container sees as a folder. Exactly one source."""

    path: str = Field(pattern=r"^/", description="Where in the container.")
    claim: Name | None = Field(None, description="A persistent volume claim.")
    config_map: Name | None = None
    secret: Name | None = None
    empty: bool = Field(False, description="An empty folder that goes with the pod.")
    sub_path: str | None = None
    read_only: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if sum((self.claim is not None, self.config_map is not None, self.secret is not None, self.empty)) != 1:
            raise ValueError("a mount has exactly one of `claim`, `config_map`, `secret` and `empty`")
        return self


class ContainerParameters(Strict):
    """A `container` step: one container that runs to its end.

    What it writes to the file named by the variable FLEXCORE_RESULT (4096 bytes at most) is the result: the JSON
    value if it is one, else `{exit_code, message}`.
    """

    image: str = Field(min_length=1)
    command: list[str] = Field(default_factory=list, description="Instead of the image's entry point.")
    args: list[Scalar] = Field(default_factory=list)
    env: dict[str, Scalar] = Field(default_factory=dict)
    mounts: list[Mount] = Field(default_factory=list)
    workdir: str | None = Field(None, pattern=r"^/")
    user: int | None = Field(None, ge=0, description="User id. Default: what the image says.")
    pull: Literal["Always", "IfNotPresent", "Never"] | None = None


class KubernetesParameters(Strict):
    """A `kubernetes` step: a Job of your own (`job`), or objects that are to stay (`apply`)."""

    job: dict[str, Any] | None = Field(None, description="A manifest of kind Job; its `spec` is what is needed.")
    env: dict[str, Scalar] = Field(default_factory=dict, description="Added to the first container of the Job.")
    apply: dict[str, Any] | list[dict[str, Any]] | None = Field(
        None, description="Manifests, applied on the server's side. They outlive the execution."
    )
    wait: Literal["ready", "none"] = Field(
        "ready", description="Whether the step waits until what it applied is ready."
    )

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.job is None) == (self.apply is None):
            raise ValueError("give exactly one of `job` and `apply`")
        if self.apply is not None and not self.manifests:
            raise ValueError("`apply` is empty")
        if self.apply is not None and self.env:
            raise ValueError("`env` goes with `job`")
        return self

    @property
    def manifests(self) -> list[dict[str, Any]]:
        """The objects to apply, in order."""
        match self.apply:
            case None:
                return []
            case list():
                return self.apply
            case _:
                return [self.apply]
