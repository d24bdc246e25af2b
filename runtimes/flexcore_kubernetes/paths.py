"""Where things are in the API, by kind and namespace. Pure."""

from collections.abc import Mapping
from typing import Any

_PLURALS = {
    ("v1", "ConfigMap"): "configmaps",
    ("v1", "PersistentVolumeClaim"): "persistentvolumeclaims",
    ("v1", "Pod"): "pods",
    ("v1", "Secret"): "secrets",
    ("v1", "Service"): "services",
    ("v1", "ServiceAccount"): "serviceaccounts",
    ("apps/v1", "DaemonSet"): "daemonsets",
    ("apps/v1", "Deployment"): "deployments",
    ("apps/v1", "StatefulSet"): "statefulsets",
    ("autoscaling/v2", "HorizontalPodAutoscaler"): "horizontalpodautoscalers",
    ("batch/v1", "CronJob"): "cronjobs",
    ("batch/v1", "Job"): "jobs",
    ("networking.k8s.io/v1", "Ingress"): "ingresses",
    ("networking.k8s.io/v1", "NetworkPolicy"): "networkpolicies",
    ("policy/v1", "PodDisruptionBudget"): "poddisruptionbudgets",
}

SURVEYED = (
    ("apps/v1", "Deployment"),
    ("apps/v1", "StatefulSet"),
    ("apps/v1", "DaemonSet"),
    ("v1", "Service"),
    ("batch/v1", "CronJob"),
)
"""Kinds that a survey looks for among what is to stay."""


def jobs(namespace: str) -> str:
    """All Jobs."""
    return f"/apis/batch/v1/namespaces/{namespace}/jobs"


def pods(namespace: str) -> str:
    """All pods."""
    return f"/api/v1/namespaces/{namespace}/pods"


def events(namespace: str) -> str:
    """All events."""
    return f"/api/v1/namespaces/{namespace}/events"


def secrets(namespace: str) -> str:
    """All Secrets."""
    return f"/api/v1/namespaces/{namespace}/secrets"


def config_maps(namespace: str) -> str:
    """All ConfigMaps."""
    return f"/api/v1/namespaces/{namespace}/configmaps"


def group(version: str) -> str:
    """Where an `apiVersion` begins."""
    return f"/apis/{version}" if "/" in version else f"/api/{version}"


def plural(version: str, kind: str) -> str | None:
    """The path's word for a kind that is known here; others are asked of the cluster."""
    return _PLURALS.get((version, kind))


def collection(version: str, word: str, namespace: str) -> str:
    """All objects of a kind in a namespace."""
    return f"{group(version)}/namespaces/{namespace}/{word}"


def title(item: Mapping[str, Any]) -> str:
    """Name an object for people: `Deployment/web`."""
    return f"{item.get('kind', 'object')}/{(item.get('metadata') or {}).get('name', '?')}"
