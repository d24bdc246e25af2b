"""Whether an object that stays is ready, and where it can be reached. Pure."""

from collections.abc import Mapping
from typing import Any

Object = Mapping[str, Any]


def waits_for(item: Object) -> str:
    """Say what an object waits for; empty when it is ready."""
    status, spec = item.get("status") or {}, item.get("spec") or {}
    generation = item["metadata"].get("generation", 0)
    if status.get("observedGeneration", generation) < generation:
        return "the change is not seen yet"
    match item["kind"]:
        case "Deployment":
            if "observedGeneration" not in status:
                return "its controller has not looked at it yet"
            wanted = spec.get("replicas", 1)
            return _of(wanted, min(status.get("updatedReplicas", 0), status.get("availableReplicas", 0)), status)
        case "StatefulSet":
            return _of(spec.get("replicas", 1), status.get("readyReplicas", 0), status)
        case "DaemonSet":
            return _of(status.get("desiredNumberScheduled", 1), status.get("numberReady", 0), status)
        case "Service" if spec.get("type") == "LoadBalancer":
            return "" if _ingress(item) else "an address of the load balancer"
        case "PersistentVolumeClaim":
            return "" if status.get("phase") == "Bound" else f"its volume ({status.get('phase', 'Pending')})"
        case "Job":
            return "" if "Complete" in _true(status) else "its end"
        case _:
            return _condition(status)


def endpoint_of(item: Object, namespace: str) -> str:
    """Give the URL of a Service, in the cluster or, with a load balancer, from outside; empty for what has none."""
    if item["kind"] != "Service":
        return ""
    spec = item.get("spec") or {}
    ports = spec.get("ports") or [{}]
    first = ports[0]
    scheme = "https" if first.get("port") == 443 or first.get("name") == "https" else "http"
    host = _ingress(item) or f"{item['metadata']['name']}.{namespace}.svc"
    return f"{scheme}://{host}:{first.get('port', 80)}"


def _of(wanted: int, ready: int, status: Object) -> str:
    if ready >= wanted:
        return ""
    failing = [each.get("message") or each.get("reason", "") for each in status.get("conditions") or [] if _bad(each)]
    return f"{ready} of {wanted} ready" + (f" ({failing[0]})" if failing else "")


def _bad(condition: Object) -> bool:
    kind, value = condition.get("type"), condition.get("status")
    return (kind == "ReplicaFailure" and value == "True") or (kind == "Progressing" and value == "False")


def _condition(status: Object) -> str:
    """Other kinds: ready when they have no such condition, or it is true."""
    for each in status.get("conditions") or []:
        if each.get("type") == "Ready" and each.get("status") != "True":
            return str(each.get("message") or each.get("reason") or "its condition Ready")
    return ""


def _true(status: Object) -> set[str]:
    return {each["type"] for each in status.get("conditions") or [] if each.get("status") == "True"}


def _ingress(item: Object) -> str:
    found = ((item.get("status") or {}).get("loadBalancer") or {}).get("ingress") or [{}]
    return str(found[0].get("hostname") or found[0].get("ip") or "")
