"""What an object must look like: names, unknown fields, defaults and the rules that fail with 422."""

import copy
import re
from collections.abc import Iterator

from flexcore.testing.kubernetes import fields
from flexcore.testing.kubernetes.refusal import invalid
from flexcore.testing.kubernetes.resources import (
    DEPLOYMENTS,
    EVENTS,
    JOBS,
    NAMESPACES,
    PODS,
    Item,
    Resource,
    generated_name,
    new_uid,
)

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*")
_NAME_RULE = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')"
)
_LABEL_VALUE = re.compile(r"(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?")
_LABEL_RULE = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start "
    "and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation "
    "is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)
_MOST_ANNOTATIONS = 256 * 1024
Cause = tuple[str, str, str]


def unknown_fields(resource: Resource, item: Item) -> list[str]:
    """Name the fields that the API does not know, where the stand-in knows them all."""
    found = list(_strangers(item.get("metadata") or {}, fields.METADATA, "metadata"))
    spec = item.get("spec") or {}
    if resource == JOBS:
        found.extend(_strangers(spec, fields.JOB, "spec"))
        template = spec.get("template") or {}
        found.extend(_strangers(template, frozenset({"metadata", "spec"}), "spec.template"))
        found.extend(_of_pod(template.get("spec") or {}, "spec.template.spec"))
    if resource == PODS:
        found.extend(_of_pod(spec, "spec"))
    if resource == DEPLOYMENTS:
        found.extend(_of_pod((spec.get("template") or {}).get("spec") or {}, "spec.template.spec"))
    return found


def without(item: Item, paths: list[str]) -> Item:
    """Give a copy that has none of the fields."""
    result = copy.deepcopy(item)
    for path in paths:
        *above, last = path.split(".")
        at = result
        for part in above:
            name, _, index = part.partition("[")
            at = at[name][int(index.rstrip("]"))] if index else at[name]
        at.pop(last, None)
    return result


def _strangers(item: Item, known: frozenset[str], path: str) -> Iterator[str]:
    return (f"{path}.{each}" for each in item if each not in known)


def _of_pod(spec: Item, path: str) -> Iterator[str]:
    yield from _strangers(spec, fields.POD, path)
    for group in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(group) or []):
            yield from _strangers(container, fields.CONTAINER, f"{path}.{group}[{index}]")


def validate(resource: Resource, item: Item) -> None:
    """Refuse what the API server refuses with 422."""
    metadata = item["metadata"]
    name = metadata["name"]
    causes = list(_of_metadata(resource, metadata))
    if resource == JOBS:
        causes.extend(_of_job(item))
    if resource == PODS:
        causes.extend(_of_containers(item.get("spec") or {}, "spec"))
    if causes:
        raise invalid(resource, name, causes)


def _of_metadata(resource: Resource, metadata: Item) -> Iterator[Cause]:
    name = metadata["name"]
    if resource != EVENTS and not _NAME.fullmatch(name):
        yield "metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": {_NAME_RULE}'
    if len(name) > 253 or (resource == NAMESPACES and len(name) > 63):
        yield "metadata.name", "FieldValueInvalid", f'Invalid value: "{name}": must be no more than 253 characters'
    yield from _of_labels(metadata.get("labels") or {}, "metadata.labels")
    annotations = metadata.get("annotations") or {}
    if sum(len(str(key)) + len(str(value)) for key, value in annotations.items()) > _MOST_ANNOTATIONS:
        message = f"Too long: may not be more than {_MOST_ANNOTATIONS} bytes"
        yield "metadata.annotations", "FieldValueTooLong", message


def _of_labels(labels: Item, path: str) -> Iterator[Cause]:
    for value in labels.values():
        if not isinstance(value, str) or not _LABEL_VALUE.fullmatch(value):
            yield path, "FieldValueInvalid", f'Invalid value: "{value}": {_LABEL_RULE}'
        elif len(value) > 63:
            yield path, "FieldValueInvalid", f'Invalid value: "{value}": must be no more than 63 bytes'


def _of_job(item: Item) -> Iterator[Cause]:
    spec = item.get("spec") or {}
    template = spec.get("template") or {}
    pod = template.get("spec") or {}
    yield from _of_labels((template.get("metadata") or {}).get("labels") or {}, "spec.template.labels")
    if pod.get("restartPolicy") not in ("OnFailure", "Never"):
        message = 'Required value: valid values: "OnFailure", "Never"'
        yield "spec.template.spec.restartPolicy", "FieldValueRequired", message
    yield from _of_containers(pod, "spec.template.spec")


def _of_containers(pod: Item, path: str) -> Iterator[Cause]:
    if not pod.get("containers"):
        yield f"{path}.containers", "FieldValueRequired", "Required value"
    volumes = {each["name"] for each in pod.get("volumes") or []}
    for group in ("initContainers", "containers"):
        for index, container in enumerate(pod.get(group) or []):
            at = f"{path}.{group}[{index}]"
            if not container.get("image"):
                yield f"{at}.image", "FieldValueRequired", "Required value"
            for number, mount in enumerate(container.get("volumeMounts") or []):
                if mount["name"] not in volumes:
                    yield f"{at}.volumeMounts[{number}].name", "FieldValueNotFound", f'Not found: "{mount["name"]}"'


def with_defaults(resource: Resource, item: Item, namespace: str) -> Item:
    """Fill in what the API server fills in, on a copy."""
    result = copy.deepcopy(item)
    metadata = result.setdefault("metadata", {})
    if resource.namespaced:
        metadata["namespace"] = namespace
    if "name" not in metadata and "generateName" in metadata:
        metadata["name"] = generated_name(metadata["generateName"])
    if resource == JOBS:
        _default_job(result)
    if resource == PODS:
        _default_pod(result.setdefault("spec", {}))
        result["status"] = {"phase": "Pending", "qosClass": _quality(result["spec"])}
    if resource == DEPLOYMENTS:
        result.setdefault("spec", {}).setdefault("replicas", 1)
        _default_pod(result["spec"].setdefault("template", {}).setdefault("spec", {}))
    if resource.kind == "Secret":
        result.setdefault("type", "Opaque")
    if resource == NAMESPACES:
        result["status"] = {"phase": "Active"}
    return result


def _default_job(item: Item) -> None:
    spec = item.setdefault("spec", {})
    # Only here is the identity known before the object is kept: the template carries it.
    identity = item["metadata"].setdefault("uid", new_uid())
    name = item["metadata"].get("name", "")
    spec.setdefault("parallelism", 1)
    spec.setdefault("completions", 1)
    spec.setdefault("backoffLimit", 6)
    spec["selector"] = {"matchLabels": {"batch.kubernetes.io/controller-uid": identity}}
    spec.setdefault("manualSelector", False)
    template = spec.setdefault("template", {})
    labels = template.setdefault("metadata", {}).setdefault("labels", {})
    labels |= {f"{prefix}controller-uid": identity for prefix in ("batch.kubernetes.io/", "")}
    labels |= {f"{prefix}job-name": name for prefix in ("batch.kubernetes.io/", "")}
    _default_containers(template.setdefault("spec", {}))
    spec.setdefault("completionMode", "NonIndexed")
    spec.setdefault("suspend", False)
    has_policy = "podFailurePolicy" in spec
    spec.setdefault("podReplacementPolicy", "Failed" if has_policy else "TerminatingOrFailed")
    item["status"] = {}


def _default_pod(spec: Item) -> None:
    _default_containers(spec)
    spec.setdefault("restartPolicy", "Always")
    account = spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"
    spec["serviceAccountName"] = spec["serviceAccount"] = account
    spec.setdefault("priority", 0)
    spec.setdefault("schedulerName", "default-scheduler")


def _default_containers(spec: Item) -> None:
    spec.setdefault("terminationGracePeriodSeconds", 30)
    for container in [*spec.get("initContainers", []), *spec.get("containers", [])]:
        container.setdefault("resources", {})
        container.setdefault("terminationMessagePath", "/dev/termination-log")
        container.setdefault("terminationMessagePolicy", "File")
        is_latest = ":" not in container.get("image", "").rpartition("/")[2] or container["image"].endswith(":latest")
        container.setdefault("imagePullPolicy", "Always" if is_latest else "IfNotPresent")
        for kind, value in container["resources"].get("limits", {}).items():
            container["resources"].setdefault("requests", {}).setdefault(kind, value)


def _quality(spec: Item) -> str:
    resources = [each["resources"] for each in spec.get("containers", [])]
    if not any(each.get("requests") or each.get("limits") for each in resources):
        return "BestEffort"
    is_fixed = all(each.get("requests") == each.get("limits") and len(each.get("limits", {})) > 1 for each in resources)
    return "Guaranteed" if is_fixed else "Burstable"
