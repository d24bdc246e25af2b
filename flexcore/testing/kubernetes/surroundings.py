"""What a container finds around itself: its command, environment and volumes, made from the pod and its namespace."""

import base64
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flexcore.testing.kubernetes.containers import Mount
from flexcore.testing.kubernetes.resources import CONFIG_MAPS, SECRETS, Item, Resource, quantity
from flexcore.testing.kubernetes.store import Store

_IMAGE = re.compile(r"([a-z0-9.-]+(:[0-9]+)?/)?[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?(@.*)?")
_ABSENT = ("none", "nope", "missing")
_REFERENCE = re.compile(r"\$\$|\$\(([^()$]+)\)")
_PATH = f"{sys.base_prefix}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Unconfigured(Exception):
    """Something that the pod names is not there; the message says what."""


def is_image_name(image: str) -> bool:
    """Say whether a container runtime could parse the name."""
    return _IMAGE.fullmatch(image) is not None


def is_present(image: str) -> bool:
    """Say whether there is such an image: all but those called none, nope or missing, or on port 1."""
    return _last_name(image) not in _ABSENT and ":1/" not in image


def is_pulled_slowly(image: str) -> bool:
    """Say whether an image is on no node yet, and takes its time: those called slow."""
    return _last_name(image) == "slow"


def _last_name(image: str) -> str:
    repository = image.partition("@")[0]
    return repository.rpartition("/")[2].partition(":")[0]


def expanded(text: str, variables: Mapping[str, str]) -> str:
    """Do what Kubernetes does to `$$` and `$(NAME)`."""
    return _REFERENCE.sub(lambda found: "$" if found[1] is None else variables.get(found[1], found[0]), text)


def command_of(container: Item, variables: Mapping[str, str]) -> tuple[str, ...]:
    """Give command and arguments, expanded; an image of ours without a command runs a shell."""
    words = [*(container.get("command") or ["sh"]), *(container.get("args") or [])]
    return tuple(expanded(each, variables) for each in words)


class Surroundings:
    """The environment and the volumes of one pod."""

    def __init__(self, store: Store, pod: Item, folder: Path) -> None:
        self._store = store
        self._pod = pod
        self._folder = folder
        self._namespace = pod["metadata"]["namespace"]

    def environment(self, container: Item) -> dict[str, str]:
        """Give all variables. Raises Unconfigured."""
        user = self.security(container).get("runAsUser")
        home = "/root" if user in (None, 0) else "/"
        variables = {"PATH": _PATH, "HOSTNAME": self._pod["metadata"]["name"], "HOME": home}
        for source in container.get("envFrom") or []:
            variables.update(self._all_of(source))
        declared: dict[str, str] = {}
        for entry in container.get("env") or []:
            if "valueFrom" in entry:
                value = self._value(entry["valueFrom"], container)
                if value is None:
                    continue
            else:
                value = expanded(entry.get("value") or "", {**variables, **declared})
            declared[entry["name"]] = value
        return {**variables, **declared}

    def security(self, container: Item) -> Item:
        """Give the security context that holds for a container. Raises Unconfigured."""
        found = {**(self._pod["spec"].get("securityContext") or {}), **(container.get("securityContext") or {})}
        if found.get("runAsNonRoot") and found.get("runAsUser") in (None, 0):
            where = f"{self._pod['metadata']['name']}_{self._namespace}({self._pod['metadata']['uid']})"
            what = "image will run as root" if found.get("runAsUser") is None else "has runAsUser set to root"
            about = f'(pod: "{where}", container: {container["name"]})'
            raise Unconfigured(f"container has runAsNonRoot and {what} {about}")
        return found

    def groups(self) -> tuple[int, ...]:
        """Give the groups that all processes of the pod are in."""
        context = self._pod["spec"].get("securityContext") or {}
        found = [*(context.get("supplementalGroups") or []), context.get("fsGroup")]
        return tuple(each for each in found if each is not None)

    def make_volumes(self) -> None:
        """Write the volumes into folders. Raises Unconfigured with what a missing one is told of."""
        for volume in self._pod["spec"].get("volumes") or []:
            try:
                self._make(volume)
            except Unconfigured as error:
                message = f'MountVolume.SetUp failed for volume "{volume["name"]}" : {error}'
                raise Unconfigured(message) from error
            self._give(self._place(volume["name"]))

    def _give(self, place: Path) -> None:
        """Let the group of the pod's files read them, as the kubelet does."""
        group = (self._pod["spec"].get("securityContext") or {}).get("fsGroup")
        if group is None or os.geteuid() != 0:
            return
        for each in (place, *place.rglob("*")):
            os.chown(each, -1, group)
            each.chmod(each.stat().st_mode | (0o550 if each.is_dir() else 0o440))

    def mounts(self, container: Item, termination: Path) -> Iterator[Mount]:
        """Give what the container sees where."""
        volumes = {each["name"]: each for each in self._pod["spec"].get("volumes") or []}
        for mount in sorted(container.get("volumeMounts") or [], key=lambda each: len(each["mountPath"])):
            volume = volumes[mount["name"]]
            source = Path(volume["hostPath"]["path"]) if "hostPath" in volume else self._place(volume["name"])
            if mount.get("subPath"):
                source = source / mount["subPath"]
                if "emptyDir" in volume:
                    source.mkdir(parents=True, exist_ok=True)
                    source.chmod(0o777)
            is_fixed = any(each in volume for each in ("configMap", "secret", "projected"))
            yield Mount(str(source), mount["mountPath"], bool(mount.get("readOnly")) or is_fixed)
        yield Mount(str(termination), container["terminationMessagePath"])

    def _place(self, volume: str) -> Path:
        return self._folder / "volumes" / volume

    def _make(self, volume: Item) -> None:
        place = self._place(volume["name"])
        place.mkdir(parents=True, exist_ok=True)
        place.chmod(0o777)
        if "configMap" in volume:
            self._write(place, self._content(CONFIG_MAPS, volume["configMap"]), volume["configMap"])
        if "secret" in volume:
            source = {**volume["secret"], "name": volume["secret"]["secretName"]}
            self._write(place, self._content(SECRETS, source), source)
        for source in (volume.get("projected") or {}).get("sources") or []:
            for key, kind in (("configMap", CONFIG_MAPS), ("secret", SECRETS)):
                if key in source:
                    self._write(place, self._content(kind, source[key]), source[key])
        for entry in (volume.get("downwardAPI") or {}).get("items") or []:
            (place / entry["path"]).write_text(self._field(entry["fieldRef"]["fieldPath"]))

    def _write(self, place: Path, content: Mapping[str, bytes], source: Item) -> None:
        items = source.get("items") or [{"key": each, "path": each} for each in content]
        for item in items:
            if item["key"] not in content:
                raise Unconfigured(f"references non-existent config key: {item['key']}")
            target = place / item["path"]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content[item["key"]])
            target.chmod(item.get("mode") or source.get("defaultMode") or 0o644)

    def _content(self, kind: Resource, source: Item) -> Mapping[str, bytes]:
        found = self._store.find(kind, self._namespace, source["name"])
        if found is None:
            if source.get("optional"):
                return {}
            raise Unconfigured(f'{kind.kind.lower()} "{source["name"]}" not found')
        decoded = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
        for key, value in (found.get("data") or {}).items():
            decoded[key] = base64.b64decode(value) if kind == SECRETS else value.encode()
        return decoded

    def _all_of(self, source: Item) -> Iterator[tuple[str, str]]:
        for key, kind in (("configMapRef", CONFIG_MAPS), ("secretRef", SECRETS)):
            if key in source:
                for name, value in self._content(kind, source[key]).items():
                    yield source.get("prefix", "") + name, value.decode()

    def _value(self, source: Item, container: Item) -> str | None:
        for key, kind in (("configMapKeyRef", CONFIG_MAPS), ("secretKeyRef", SECRETS)):
            if key in source:
                return self._key(kind, source[key])
        if "fieldRef" in source:
            return self._field(source["fieldRef"]["fieldPath"])
        amount = _resource(container, source["resourceFieldRef"]["resource"])
        return str(round(amount / quantity(source["resourceFieldRef"].get("divisor") or 1)))

    def _key(self, kind: Resource, source: Item) -> str | None:
        content = self._content(kind, source)
        if source["key"] in content:
            return content[source["key"]].decode()
        if source.get("optional"):
            return None
        raise Unconfigured(f"couldn't find key {source['key']} in {kind.kind} {self._namespace}/{source['name']}")

    def _field(self, path: str) -> str:
        metadata, spec = self._pod["metadata"], self._pod["spec"]
        if found := re.fullmatch(r"metadata\.(labels|annotations)\['([^']*)'\]", path):
            return str((metadata.get(found[1]) or {}).get(found[2], ""))
        known: dict[str, Callable[[], Any]] = {
            "metadata.name": lambda: metadata["name"],
            "metadata.namespace": lambda: metadata["namespace"],
            "metadata.uid": lambda: metadata["uid"],
            "spec.nodeName": lambda: spec["nodeName"],
            "spec.serviceAccountName": lambda: spec["serviceAccountName"],
            "status.podIP": lambda: self._pod["status"]["podIP"],
            "status.hostIP": lambda: "127.0.0.1",
        }
        return str(known[path]()) if path in known else ""


def _resource(container: Item, name: str) -> float:
    group, _, kind = name.partition(".")
    return quantity((container["resources"].get(group) or {}).get(kind, 0))
