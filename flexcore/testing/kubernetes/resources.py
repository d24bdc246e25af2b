"""The kinds of objects that the stand-in knows, and what all objects have in common."""

import copy
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, TypeAlias

Item: TypeAlias = dict[str, Any]  # an object as it is on the wire

NODE = "vm"
JOB_TRACKING = "batch.kubernetes.io/job-tracking"
_SUFFIX_LETTERS = "bcdfghjklmnpqrstvwxz2456789"


@dataclass(frozen=True, slots=True)
class Resource:
    """A kind of object: where it lives in the API."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """Group and version as objects carry them."""
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def qualified(self) -> str:
        """Plural and group as messages carry them."""
        return f"{self.plural}.{self.group}" if self.group else self.plural


JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
CONFIG_MAPS = Resource("", "v1", "configmaps", "ConfigMap")
SECRETS = Resource("", "v1", "secrets", "Secret")
SERVICE_ACCOUNTS = Resource("", "v1", "serviceaccounts", "ServiceAccount")
QUOTAS = Resource("", "v1", "resourcequotas", "ResourceQuota")
SERVICES = Resource("", "v1", "services", "Service")
CLAIMS = Resource("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
STATEFUL_SETS = Resource("apps", "v1", "statefulsets", "StatefulSet")
ROLES = Resource("rbac.authorization.k8s.io", "v1", "roles", "Role")
ROLE_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding")
INGRESSES = Resource("networking.k8s.io", "v1", "ingresses", "Ingress")

ALL = (
    *(JOBS, PODS, EVENTS, NAMESPACES, NODES, CONFIG_MAPS, SECRETS, SERVICE_ACCOUNTS, QUOTAS, SERVICES, CLAIMS),
    *(DEPLOYMENTS, STATEFUL_SETS, ROLES, ROLE_BINDINGS, INGRESSES),
)


def find(group: str, plural: str) -> Resource | None:
    """Look a kind up by its place in the API."""
    return next((each for each in ALL if each.group == group and each.plural == plural), None)


def now() -> datetime:
    """Tell the time of this machine."""
    return datetime.now(UTC)


def stamp(moment: datetime) -> str:
    """Write a time as objects carry it: whole seconds."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


def moment(text: str) -> datetime:
    """Read a time of an object."""
    return datetime.fromisoformat(text.replace("Z", "+00:00"))


def after(seconds: float) -> str:
    """Write the time that many seconds from now."""
    return stamp(now() + timedelta(seconds=seconds))


def new_uid() -> str:
    """Make an identity."""
    return str(uuid.uuid4())


def generated_name(prefix: str) -> str:
    """Make a name as the server does: 58 characters of the prefix, and five of its own."""
    return prefix[:58] + "".join(secrets.choice(_SUFFIX_LETTERS) for _ in range(5))


def uid(item: Item) -> str:
    """Give the identity of an object."""
    return str(item["metadata"]["uid"])


def owner_uids(item: Item) -> list[str]:
    """Name the owners of an object."""
    return [each["uid"] for each in item["metadata"].get("ownerReferences", [])]


def is_going(item: Item) -> bool:
    """Say whether an object is on its way out."""
    return "deletionTimestamp" in item["metadata"]


def finalizers(item: Item) -> list[str]:
    """Give what keeps an object from going."""
    return list(item["metadata"].get("finalizers", []))


def drop_finalizer(item: Item, finalizer: str) -> None:
    """Take one away, and the empty list with it."""
    left = [each for each in finalizers(item) if each != finalizer]
    if left:
        item["metadata"]["finalizers"] = left
    else:
        item["metadata"].pop("finalizers", None)


def merged(target: Any, patch: Any) -> Any:
    """Apply a JSON merge patch to a copy."""
    if not isinstance(patch, Mapping):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


def quantity(text: Any) -> float:
    """Read a Kubernetes quantity: `500m`, `32Mi`, `2`."""
    value = str(text)
    for suffix, factor in _FACTORS.items():
        if value.endswith(suffix):
            return float(value.removesuffix(suffix)) * factor
    return float(value)


_FACTORS = {
    "Ki": 2.0**10,
    "Mi": 2.0**20,
    "Gi": 2.0**30,
    "Ti": 2.0**40,
    "m": 1e-3,
    "k": 1e3,
    "M": 1e6,
    "G": 1e9,
    "T": 1e12,
}
