"""What our work is called in the cluster, and how it is known again: names, labels, annotations, the handle.

A name alone never proves that work is ours: installation, attempt and token are compared, and the uid.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

from flexcore.model.execution import Handle
from flexcore.model.ids import AttemptId, ExecutionId, StepPath, external_name
from flexcore.runtime.interface import ExecutionRequest

DOMAIN = "flexcore.io"
INSTALLATION = f"{DOMAIN}/installation"
EXECUTION = f"{DOMAIN}/execution"
PATH = f"{DOMAIN}/path"
NUMBER = f"{DOMAIN}/attempt"
TOKEN = f"{DOMAIN}/token"
KIND = f"{DOMAIN}/kind"
NAME = f"{DOMAIN}/name"
RETAINED = f"{DOMAIN}/retained"
ATTEMPT = f"{DOMAIN}/attempt-id"
DEFINITION = f"{DOMAIN}/definition"

CONTROLLER = "batch.kubernetes.io/controller-uid"

_VERSION = 1
_LEGAL = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")


def label_value(text: str) -> str:
    """Make a legal label value: the text itself where it is one, else a hash of it."""
    if _LEGAL.fullmatch(text):
        return text
    return f"h-{hashlib.sha256(text.encode()).hexdigest()[:32]}" if text else ""


def selector(labels: Mapping[str, str]) -> str:
    """Write labels as a selector."""
    return ",".join(f"{key}={value}" for key, value in labels.items())


def of_installation(installation: str) -> dict[str, str]:
    """The label that everything of a store has."""
    return {INSTALLATION: label_value(installation)}


def of_execution(installation: str, execution: ExecutionId) -> dict[str, str]:
    """The labels that everything of an execution has."""
    return {**of_installation(installation), EXECUTION: label_value(execution)}


def of_name(installation: str, name: str) -> dict[str, str]:
    """The labels that everything of an attempt has."""
    return {**of_installation(installation), NAME: name}


def labels(installation: str, request: ExecutionRequest) -> dict[str, str]:
    """All labels of an attempt's objects. Paths may be long and have brackets: they are hashed."""
    given = {f"{DOMAIN}/label-{key}": label_value(value) for key, value in request.labels.items() if _fits(key)}
    return {
        **given,
        **of_execution(installation, request.id.execution),
        **of_name(installation, external_name(installation, request.id)),
        PATH: f"h-{hashlib.sha256(request.id.path.encode()).hexdigest()[:32]}",
        NUMBER: str(request.id.number),
        TOKEN: str(request.token),
        KIND: label_value(request.kind.value),
    }


def annotations(request: ExecutionRequest) -> dict[str, str]:
    """What does not fit into labels: the attempt in full, for surveys and people."""
    attempt = {"execution": request.id.execution, "path": request.id.path, "number": request.id.number}
    return {ATTEMPT: json.dumps(attempt), f"{DOMAIN}/workflow": request.workflow}


def attempt_of(item: Mapping[str, Any]) -> AttemptId | None:
    """Read the attempt that an object belongs to; None when its annotation is missing or damaged."""
    try:
        found = json.loads(item["metadata"]["annotations"][ATTEMPT])
        return AttemptId(ExecutionId(found["execution"]), StepPath(found["path"]), int(found["number"]))
    except (KeyError, TypeError, ValueError):
        return None


def name_of(item: Mapping[str, Any]) -> str:
    """Read our external name from an object's labels; empty when it is not ours."""
    return str((item["metadata"].get("labels") or {}).get(NAME, ""))


def uid_of(item: Mapping[str, Any]) -> str:
    """Read an object's uid."""
    return str(item["metadata"].get("uid", ""))


def is_ours(item: Mapping[str, Any], installation: str, request: ExecutionRequest) -> bool:
    """Whether an object was made for this very attempt, and not for a namesake."""
    found = item["metadata"].get("labels") or {}
    expected = {**of_installation(installation), TOKEN: str(request.token)}
    return attempt_of(item) == request.id and all(found.get(key) == value for key, value in expected.items())


def handle_of(job: Mapping[str, Any], namespace: str) -> Handle:
    """Make the handle of an attempt's Job: its uid is what makes it that work."""
    found = job["metadata"].get("labels") or {}
    data = {
        "namespace": namespace,
        "token": found.get(TOKEN, ""),
        "definition": (job["metadata"].get("annotations") or {}).get(DEFINITION, ""),
    }
    return Handle(_VERSION, str(job["metadata"]["name"]), uid_of(job), data)


def handle_of_applied(name: str, objects: list[dict[str, Any]]) -> Handle:
    """Make the handle of objects that stay: there is nothing to clean up after the step."""
    return Handle(_VERSION, name, ",".join(uid_of(each) for each in objects), transient=True)


def _fits(key: str) -> bool:
    return len(key) <= 56 and _LEGAL.fullmatch(key) is not None
