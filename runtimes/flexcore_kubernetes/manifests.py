"""From an attempt to the objects that run it: a Job, and a Secret and a ConfigMap with what it needs. Pure.

No secret value may stand in a Job or a ConfigMap: those can be read by many. Values go into the Secret, and the Job
refers to them. `$` in what users write is doubled, for Kubernetes expands it.
"""

import base64
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from flexcore.model.ids import external_name
from flexcore.model.values import canonical, digest
from flexcore.model.workflow import Requirements
from flexcore.runtime.interface import ExecutionRequest
from flexcore.runtime.portable.program import ORDER_VARIABLE, WHEELS_VARIABLE
from flexcore_kubernetes import identity
from flexcore_kubernetes.config import ContainerParameters, KubernetesConfig, Mount

MAIN = "main"
RESULT_FILE = "/dev/termination-log"
RESULT_VARIABLE = "FLEXCORE_RESULT"
FILES_FOLDER, ORDER_FOLDER, WORK_FOLDER = "/flexcore/files", "/flexcore/order", "/flexcore/work"
FILES_KEY, ORDER_KEY, LINK_KEY = "files", "order", "link"
LARGEST_BYTES = 1 << 20
"""What fits into one ConfigMap or Secret."""
LONGEST_TEXT_BYTES = 128 << 10
"""What Linux allows for one argument or variable."""

_LAST_RESORT_S = 120

_UNPACK = f"""\
import io, json, os, sys, tarfile, time, urllib.request
link = "{ORDER_FOLDER}/{LINK_KEY}"
def fetched(asked, left):
    try:
        request = urllib.request.Request(asked["url"], headers=asked["headers"])
        return urllib.request.urlopen(request, timeout=60).read()
    except OSError as error:
        if left == 0:
            raise SystemExit("the workflow's files cannot be fetched: %s" % error)
    time.sleep(1)
    return fetched(asked, left - 1)
if os.path.exists(link):
    packed = fetched(json.load(open(link)), 4)
else:
    packed = open("{FILES_FOLDER}/{FILES_KEY}", "rb").read()
files = tarfile.open(fileobj=io.BytesIO(packed))
files.extraction_filter = lambda member, path: member  # ours; without, 3.12 and 3.13 warn into the step's log
files.extractall()
os.execvp(sys.argv[1], sys.argv[1:])
"""


@dataclass(frozen=True, slots=True)
class Work:
    """What is created for an attempt. `secret` and `config_map` have the Job's name; None where not needed."""

    job: dict[str, Any]
    secret: dict[str, Any] | None = None
    config_map: dict[str, Any] | None = None
    dry_pod: dict[str, Any] = field(default_factory=dict)  # what the Job's pod will be, for a dry run


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where and for whom the objects are made. `time_left` is what remains until the request's deadline."""

    config: KubernetesConfig
    installation: str
    request: ExecutionRequest
    time_left: timedelta | None = None

    @property
    def name(self) -> str:
        """The name of all objects of the attempt."""
        return external_name(self.installation, self.request.id)

    def metadata(self) -> dict[str, Any]:
        """Name, labels and annotations, of the objects and of the pods."""
        return {
            "name": self.name,
            "labels": {**self.config.labels, **identity.labels(self.installation, self.request)},
            "annotations": identity.annotations(self.request),
        }


def escaped(text: str) -> str:
    """Keep text as it is written: Kubernetes makes one `$` of two, and would put variables in place of `$(NAME)`.

    >>> escaped("kill -9 $$")
    'kill -9 $$$$'
    """
    return text.replace("$", "$$")


def too_long(texts: Sequence[str]) -> bool:
    """Whether one of the texts is more than Linux takes as an argument or a variable."""
    return any(len(text.encode()) >= LONGEST_TEXT_BYTES for text in texts)


def container_work(place: Place, parameters: ContainerParameters) -> Work:
    """Make the objects of a `container` step. Its variables, and arguments with secrets in them, are in the Secret."""
    values = {**place.request.env, **_texts(parameters.env)}
    command, hidden = _without_secrets(parameters.command, place.request.secrets, "FLEXCORE_COMMAND")
    arguments, more = _without_secrets([_text(each) for each in parameters.args], place.request.secrets, "FLEXCORE_ARG")
    secret, variables = _variables(place, {**values, **hidden, **more})
    mounts, volumes = _mounts(parameters.mounts)
    container: dict[str, Any] = {
        "name": MAIN,
        "image": parameters.image,
        "env": [*variables, {"name": RESULT_VARIABLE, "value": RESULT_FILE}],
        "terminationMessagePolicy": "FallbackToLogsOnError",
        **({"command": command} if command else {}),
        **({"args": arguments} if arguments else {}),
        **({"workingDir": parameters.workdir} if parameters.workdir else {}),
        **({"volumeMounts": mounts} if mounts else {}),
        **_pull(parameters.pull or place.config.image_pull_policy),
    }
    user = {} if parameters.user is None else {"runAsUser": parameters.user}
    pod = _pod(place, container, volumes, user)
    return _work(place, pod, secret)


def portable_work(place: Place, files: bytes | None, secrets: Mapping[str, bytes], command: Sequence[str]) -> Work:
    """Make the objects of a `python` or `bash` step: packed files, the order, and a command that runs among the files.

    Without `files`, the Secret says under LINK_KEY where they are fetched from.
    """
    metadata, config = place.metadata(), place.config
    # Its group may read it when restricted; else the image says who its user is, and nobody else is in the pod.
    mode = 0o400 if config.security == "restricted" else 0o444
    volumes: list[dict[str, Any]] = [
        {"name": "flexcore-order", "secret": {"secretName": place.name, "defaultMode": mode}},
        {"name": "flexcore-work", "emptyDir": {}},
    ]
    mounts: list[dict[str, Any]] = [
        {"name": "flexcore-order", "mountPath": ORDER_FOLDER, "readOnly": True},
        {"name": "flexcore-work", "mountPath": WORK_FOLDER},
    ]
    if files is not None:
        volumes.append({"name": "flexcore-files", "configMap": {"name": place.name}})
        mounts.append({"name": "flexcore-files", "mountPath": FILES_FOLDER, "readOnly": True})
    variables = {ORDER_VARIABLE: f"{ORDER_FOLDER}/{ORDER_KEY}", "HOME": WORK_FOLDER}
    if config.wheels:
        variables[WHEELS_VARIABLE] = config.wheels
    container: dict[str, Any] = {
        "name": MAIN,
        "image": config.image,
        "command": ["python3", "-c", escaped(_UNPACK), *map(escaped, command)],
        "workingDir": WORK_FOLDER,
        "env": [{"name": name, "value": escaped(value)} for name, value in variables.items()],
        "volumeMounts": mounts,
        **_pull(config.image_pull_policy),
    }
    user = {}
    if config.security == "restricted":
        user = {"runAsNonRoot": True, "runAsUser": config.run_as_user, "fsGroup": config.run_as_user}
    encoded = {key: base64.b64encode(value).decode() for key, value in secrets.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "Opaque", "data": encoded}
    packed = None if files is None else {FILES_KEY: base64.b64encode(files).decode()}
    config_map = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "binaryData": packed}
    return _work(place, _pod(place, container, volumes, user), secret, config_map if packed else None)


def own_work(place: Place, manifest: Mapping[str, Any], env: Mapping[str, Any]) -> Work:
    """Merge a user's Job with what we need to know it again. Theirs is kept but for names, labels and what ends it."""
    metadata = place.metadata()
    spec: dict[str, Any] = {"backoffLimit": 0, "podReplacementPolicy": "Failed", **manifest.get("spec", {})}
    spec.pop("ttlSecondsAfterFinished", None)  # 0 would take pods and logs away before they are read
    template = dict(spec.get("template") or {})
    pod = {"restartPolicy": "Never", **(template.get("spec") or {})}
    secret, variables = _variables(place, {**place.request.env, **_texts(env)})
    pod["containers"] = _with_variables(pod.get("containers") or [], variables)
    pod.setdefault("terminationGracePeriodSeconds", whole_seconds(place.request.grace))
    theirs = template.get("metadata") or {}
    ours = {
        "labels": {**(theirs.get("labels") or {}), **metadata["labels"]},
        "annotations": {**(theirs.get("annotations") or {}), **metadata["annotations"]},
    }
    work = _work(place, pod, secret)
    given = manifest.get("metadata") or {}
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": place.name,
            "labels": {**(given.get("labels") or {}), **work.job["metadata"]["labels"]},
            "annotations": {**(given.get("annotations") or {}), **work.job["metadata"]["annotations"]},
        },
        "spec": {
            **spec,
            "ttlSecondsAfterFinished": work.job["spec"]["ttlSecondsAfterFinished"],
            **_last_resort(place),
            "template": {"metadata": {**theirs, **ours}, "spec": pod},
        },
    }
    return Work(job, secret, None, work.dry_pod)


def main_container(job: Mapping[str, Any]) -> str:
    """Name the container whose end is the step's: ours, or the first one of a user's Job."""
    template = (job.get("spec") or {}).get("template") or {}
    containers = (template.get("spec") or {}).get("containers") or [{}]
    names = [str(each.get("name", MAIN)) for each in containers]
    return MAIN if MAIN in names else names[0]


def whole_seconds(span: timedelta, least: int = 1) -> int:
    """Round a span up to whole seconds, which is all that Kubernetes knows. Zero would kill by force, unconfirmed."""
    return max(least, math.ceil(span.total_seconds()))


def _work(
    place: Place, pod: dict[str, Any], secret: dict[str, Any] | None, config_map: dict[str, Any] | None = None
) -> Work:
    metadata = place.metadata()
    definition = digest(canonical({"pod": pod}))
    deadline = _pod_deadline(place)
    template = {
        "metadata": {"labels": metadata["labels"], "annotations": metadata["annotations"]},
        "spec": {**pod, **deadline},
    }
    job = {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {**metadata, "annotations": {**metadata["annotations"], identity.DEFINITION: definition}},
        "spec": {
            "backoffLimit": 0,
            "completions": 1,
            "parallelism": 1,
            "podReplacementPolicy": "Failed",  # never a second copy beside one on a node that is away
            "ttlSecondsAfterFinished": int(place.config.ttl),
            **_last_resort(place),
            "template": template,
        },
    }
    dry_pod = {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"]}
    return Work(job, secret, config_map, dry_pod)


def _pod_deadline(place: Place) -> dict[str, int]:
    """End the pod some time after the deadline. On the pod and not on the Job: so its logs stay.

    A node counts from when it takes the pod, and the step's time from when its work runs.
    """
    if place.time_left is None:
        return {}
    return {"activeDeadlineSeconds": whole_seconds(place.time_left + _until_it_runs(place))}


def _until_it_runs(place: Place) -> timedelta:
    return timedelta(seconds=place.config.start_timeout)


def _last_resort(place: Place) -> dict[str, int]:
    """End the Job too, much later than a pod that got its node late: one that never got any has no deadline."""
    if place.time_left is None:
        return {}
    rest = place.time_left + 2 * _until_it_runs(place) + place.request.grace + timedelta(seconds=_LAST_RESORT_S)
    return {"activeDeadlineSeconds": whole_seconds(rest)}


def _pod(
    place: Place, container: dict[str, Any], volumes: list[dict[str, Any]], user: Mapping[str, Any]
) -> dict[str, Any]:
    config = place.config
    context = dict(user)
    if config.security != "none":
        context["seccompProfile"] = {"type": "RuntimeDefault"}
        container["securityContext"] = {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    container["resources"] = _resources(config, place.request.requirements)
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": whole_seconds(place.request.grace),
        "automountServiceAccountToken": config.service_account is not None,
        "enableServiceLinks": False,
        "containers": [container],
        **({"securityContext": context} if context else {}),
        **({"volumes": volumes} if volumes else {}),
        **({"serviceAccountName": config.service_account} if config.service_account else {}),
        **({"imagePullSecrets": [{"name": each} for each in config.pull_secrets]} if config.pull_secrets else {}),
        **({"nodeSelector": config.node_selector} if config.node_selector else {}),
        **({"tolerations": config.tolerations} if config.tolerations else {}),
    }


def _resources(config: KubernetesConfig, needs: Requirements) -> dict[str, Any]:
    cpu, memory = needs.cpu or config.resources.cpu, needs.memory or config.resources.memory
    requests: dict[str, Any] = {}
    limits: dict[str, Any] = {}
    if cpu is not None:
        requests["cpu"] = f"{math.ceil(cpu * 1000)}m"
    if memory is not None:
        requests["memory"] = limits["memory"] = str(memory)
    if needs.disk is not None:
        requests["ephemeral-storage"] = limits["ephemeral-storage"] = str(needs.disk)
    if needs.gpu:
        limits[config.gpu_resource] = str(math.ceil(needs.gpu))
    return {**({"requests": requests} if requests else {}), **({"limits": limits} if limits else {})}


def _variables(place: Place, values: Mapping[str, str]) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Put values into a Secret, and give the variables that refer to it. A Secret's keys are plainer than names."""
    if not values:
        return None, []
    keys = {name: f"v{number}" for number, name in enumerate(values)}
    encoded = {keys[name]: base64.b64encode(value.encode()).decode() for name, value in values.items()}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": place.metadata(), "type": "Opaque", "data": encoded}
    refs = [
        {"name": name, "valueFrom": {"secretKeyRef": {"name": place.name, "key": key}}} for name, key in keys.items()
    ]
    return secret, refs


def _with_variables(containers: Sequence[Mapping[str, Any]], variables: Sequence[Mapping[str, Any]]) -> list[Any]:
    """Add our variables to the first container; its own come later and win."""
    if not containers or not isinstance(containers[0], Mapping):
        return list(containers)
    first, *others = containers
    known = {each.get("name") for each in first.get("env") or [] if isinstance(each, Mapping)}
    result = [{"name": RESULT_VARIABLE, "value": first.get("terminationMessagePath", RESULT_FILE)}]
    ours = [each for each in (*variables, *result) if each["name"] not in known]
    return [{**first, "env": [*ours, *(first.get("env") or [])]}, *others]


def _without_secrets(texts: Sequence[str], secrets: Sequence[str], prefix: str) -> tuple[list[str], dict[str, str]]:
    """Let Kubernetes put texts that hold secrets in place itself, from variables that come from the Secret."""
    shown: list[str] = []
    hidden: dict[str, str] = {}
    for number, text in enumerate(texts):
        if any(secret and secret in text for secret in secrets):
            hidden[f"{prefix}_{number}"] = text
            shown.append(f"$({prefix}_{number})")
        else:
            shown.append(escaped(text))
    return shown, hidden


def _mounts(mounts: Sequence[Mount]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    seen: list[dict[str, Any]] = []
    volumes: list[dict[str, Any]] = []
    for number, mount in enumerate(mounts):
        name = f"mount-{number}"
        volumes.append({"name": name, **_source(mount)})
        more = {} if mount.sub_path is None else {"subPath": mount.sub_path}
        read_only = {"readOnly": True} if mount.read_only else {}
        seen.append({"name": name, "mountPath": mount.path, **more, **read_only})
    return seen, volumes


def _source(mount: Mount) -> dict[str, Any]:
    if mount.claim is not None:
        return {"persistentVolumeClaim": {"claimName": mount.claim}}
    if mount.config_map is not None:
        return {"configMap": {"name": mount.config_map}}
    if mount.secret is not None:
        return {"secret": {"secretName": mount.secret}}
    return {"emptyDir": {}}


def _pull(policy: str | None) -> dict[str, str]:
    return {} if policy is None else {"imagePullPolicy": policy}


def _texts(values: Mapping[str, Any]) -> dict[str, str]:
    return {name: _text(value) for name, value in values.items()}


def _text(value: Any) -> str:
    """Spell a value as local steps do: text as it is, null empty, everything else as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else canonical(value).decode()
