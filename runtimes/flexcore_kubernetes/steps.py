"""From a request to what is to be created for it: parameters checked, the program packed, objects made.

Blocking, for it reads the workflow's folder; it starts nothing.
"""

import gzip
import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta

from pydantic import BaseModel, ValidationError

from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.values import canonical
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import ExecutionRequest
from flexcore.runtime.plugin import Link
from flexcore.runtime.portable.data import DataLinks
from flexcore.runtime.portable.delivery import mark_of, to_termination_message
from flexcore.runtime.portable.parameters import BashParameters, PythonParameters
from flexcore.runtime.portable.program import Limits, Program, program
from flexcore_kubernetes import manifests
from flexcore_kubernetes.config import ContainerParameters, KubernetesParameters
from flexcore_kubernetes.manifests import LARGEST_BYTES, LINK_KEY, ORDER_KEY, RESULT_FILE, Place, Work

PARAMETERS: Mapping[StepKind, type[BaseModel]] = {
    StepKind.PYTHON: PythonParameters,
    StepKind.BASH: BashParameters,
    StepKind.CONTAINER: ContainerParameters,
    StepKind.KUBERNETES: KubernetesParameters,
}

_BACKSTOP = timedelta(seconds=30)
"""How much later than the far program's own time limit the pod is ended."""


@dataclass(frozen=True, slots=True)
class Packed:
    """A program ready to be brought there: `files` is a compressed archive."""

    program: Program
    files: bytes


def parameters_of(request: ExecutionRequest) -> BaseModel | Failure:
    """Check the step's `with`."""
    model = PARAMETERS.get(request.kind)
    if model is None:
        message = f"a Kubernetes runtime does not run steps of type {request.kind.value}"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="ForeignKind")
    try:
        return model.model_validate(request.parameters)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        message = ": ".join(each for each in (request.kind.value, where, first["msg"]) if each)
        return Failure(message=message, error_class=ErrorClass.INPUT, name="InvalidParameters")


def packed(place: Place, parameters: PythonParameters | BashParameters, data: DataLinks) -> Packed | Failure:
    """Make the portable program of a step and pack its files, the same bytes for the same files."""
    request = place.request
    mark = mark_of(place.installation, request.id, request.token)
    made = program(
        request,
        parameters,
        data=data,
        delivery=to_termination_message(RESULT_FILE, mark=mark),
        installer=place.config.environment,
        limits=Limits(time=place.time_left, packages=timedelta(seconds=place.config.packages_timeout)),
    )
    if isinstance(made, Failure):
        return made
    if len(made.order) > LARGEST_BYTES - (64 << 10):
        message = f"the step's arguments and variables have {len(made.order)} bytes, more than a Secret takes"
        hint = "pass large values as data (`inputs`), not as arguments"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="TooLarge", hint=hint)
    return Packed(made, _archive(made.files))


def portable_work(place: Place, packed: Packed, link: Link | None) -> Work:
    """Make the objects of a portable step; with a link, the files are fetched from there."""
    secrets = {ORDER_KEY: packed.program.order}
    if link is not None:
        secrets[LINK_KEY] = json.dumps({"url": link.url, "headers": dict(link.headers)}).encode()
    left = None if place.time_left is None else place.time_left + place.request.grace + _BACKSTOP
    files = packed.files if link is None else None
    return manifests.portable_work(replace(place, time_left=left), files, secrets, packed.program.command)


def container_work(place: Place, parameters: ContainerParameters) -> Work | Failure:
    """Make the objects of a `container` step."""
    texts = [*parameters.command, *map(str, parameters.args), *map(str, parameters.env.values())]
    if manifests.too_long(texts):
        message = "an argument or variable of the container is longer than 128 KiB, which Linux does not take"
        hint = "pass it by a mounted ConfigMap or Secret, or by an artifact"
        return Failure(message=message, error_class=ErrorClass.INPUT, name="TooLarge", hint=hint)
    shown = canonical([parameters.image, parameters.workdir, [each.path for each in parameters.mounts]]).decode()
    if (failure := _with_secret(place.request, shown)) is not None:
        return failure
    return manifests.container_work(place, parameters)


def own_work(place: Place, parameters: KubernetesParameters) -> Work | Failure:
    """Merge a user's Job with ours, and say what in it we cannot follow."""
    manifest = parameters.job or {}
    wrong = _wrong(manifest, place.config.namespace)
    if wrong:
        return Failure(message=f"kubernetes: job: {wrong}", error_class=ErrorClass.INPUT, name="InvalidManifest")
    if (failure := _with_secret(place.request, canonical(manifest).decode())) is not None:
        return failure
    return manifests.own_work(place, manifest, parameters.env)


def _wrong(manifest: Mapping[str, object], namespace: str) -> str:
    """Say what cannot be right before the cluster is asked, which checks the rest."""
    spec = manifest.get("spec")
    metadata = manifest.get("metadata") or {}
    if manifest.get("kind", "Job") != "Job" or manifest.get("apiVersion", "batch/v1") != "batch/v1":
        return "only a Job of batch/v1 runs to an end; use `apply` for what is to stay"
    if not isinstance(spec, Mapping) or not isinstance(metadata, Mapping):
        return "it needs a `spec` with a pod's `template`"
    if metadata.get("namespace", namespace) != namespace:
        return f"its namespace is not the runtime's, '{namespace}': leave it out, or use another runtime"
    template = spec.get("template")
    pod = template.get("spec") if isinstance(template, Mapping) else None
    containers = pod.get("containers") if isinstance(pod, Mapping) else None
    if not isinstance(containers, list) or not containers:
        return "spec.template.spec.containers is missing"
    refused = [key for key in ("selector", "manualSelector", "suspend") if spec.get(key)]
    return f"`{refused[0]}` is not possible here: the Job has to run, and be found again" if refused else ""


def _with_secret(request: ExecutionRequest, text: str) -> Failure | None:
    """Refuse secrets where everybody who may look at Jobs would read them."""
    if not any(secret and secret in text for secret in request.secrets):
        return None
    return Failure(
        message=f"{request.kind.value}: a secret stands where everybody who may look at Jobs can read it",
        error_class=ErrorClass.INPUT,
        name="SecretShown",
        hint="pass it in `env`, or make a Secret of the cluster and mount it",
    )


def _archive(files: Mapping[str, bytes]) -> bytes:
    """Pack files reproducibly: no times, no owners."""
    raw = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as compressed,
        tarfile.open(fileobj=compressed, mode="w") as tar,
    ):
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(files[name]), 0o644
            tar.addfile(entry, io.BytesIO(files[name]))
    return raw.getvalue()
