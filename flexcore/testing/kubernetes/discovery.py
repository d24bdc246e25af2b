"""What the API server says about itself: version, groups, resources."""

from typing import Any

from flexcore.testing.kubernetes.resources import ALL, Resource

_VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
_VERSION = {"major": "1", "minor": "36", "gitVersion": "v1.36.2", "platform": "linux/amd64"}


def discover(path: str) -> Any | None:
    """Answer a path of discovery, or nothing if it is none."""
    parts = [each for each in path.split("/") if each]
    match parts:
        case ["version"]:
            return _VERSION
        case ["healthz" | "livez" | "readyz", *_]:
            return "ok"
        case ["api"]:
            return {"kind": "APIVersions", "versions": ["v1"]}
        case ["apis"]:
            return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(each) for each in _groups()]}
        case ["api", "v1"]:
            return _resources("v1")
        case ["apis", group, version] if group in _groups():
            return _resources(f"{group}/{version}")
        case ["apis", group] if group in _groups():
            return {"kind": "APIGroup", "apiVersion": "v1", **_group(group)}
        case _:
            return None


def _groups() -> list[str]:
    return sorted({each.group for each in ALL if each.group})


def _group(name: str) -> dict[str, Any]:
    version = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [version], "preferredVersion": version}


def _resources(version: str) -> dict[str, Any]:
    found = [_resource(each) for each in ALL if each.api_version == version]
    return {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": version, "resources": found}


def _resource(each: Resource) -> dict[str, Any]:
    names = {"name": each.plural, "singularName": each.kind.lower(), "kind": each.kind}
    return {**names, "namespaced": each.namespaced, "verbs": _VERBS}
