"""Objects that are to stay: applied on the server's side, waited for, and left there when the step is over.

They are labelled as ours and as retained: surveys show them, sweeps and clean-ups never end them. But nothing may be
applied any more once the attempt is ended.
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from typing import Any

from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import external_name
from flexcore.model.values import JSON, canonical
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    PhaseEntered,
    Progress,
    Submitted,
    Succeeded,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.underway import EndedBefore, Underway
from flexcore_kubernetes import identity, outcomes, paths, refusals
from flexcore_kubernetes.cluster import Call, Cluster, Object, Refused
from flexcore_kubernetes.config import KubernetesConfig, KubernetesParameters
from flexcore_kubernetes.readiness import endpoint_of, waits_for

_FIELD_OWNER = "flexcore"
_FIRST_LOOK_S, _LONGEST_LOOK_S = 0.1, 2.0


class Applying:
    """Steps that apply."""

    def __init__(self, config: KubernetesConfig, context: RuntimeContext, cluster: Cluster, underway: Underway) -> None:
        self._config = config
        self._installation = context.installation
        self._cluster = cluster
        self._now = context.now
        self._underway = underway

    async def execute(
        self, request: ExecutionRequest, parameters: KubernetesParameters
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Apply, wait, and give `{objects, endpoint}`. To apply the same again changes nothing."""
        name = external_name(self._installation, request.id)
        with self._underway.read(name, request.id.execution):
            made = await self._applied(name, request, parameters.manifests)
            if isinstance(made, Failure):
                yield _finished(Failed(made))
                return
            yield Submitted(identity.handle_of_applied(name, made), adopted=request.handle is not None)
            yield PhaseEntered(Phase.RUN, self._now())
            async with aclosing(self._ready(name, made, parameters.wait == "ready")) as events:
                async for event in events:
                    yield event

    async def _ready(self, name: str, made: list[Object], waits: bool) -> AsyncGenerator[ExecutionEvent, None]:
        """Wait until all is ready, and say how it ended."""
        waiting = self._waiting(made) if waits else []
        until = asyncio.get_running_loop().time() + self._config.start_timeout
        pause, noted = _FIRST_LOOK_S, ""
        while waiting:
            if self._underway.was_ended(name):
                yield _finished(outcomes.cancelled())
                return
            if asyncio.get_running_loop().time() > until:
                yield _finished(Failed(self._too_late(waiting)))
                return
            if "; ".join(waiting) != noted:
                noted = "; ".join(waiting)
                yield Progress(None, f"waiting for {noted}")
            await asyncio.sleep(pause)
            pause = min(_LONGEST_LOOK_S, pause * 2)
            made = [await self._read(each) for each in made]
            waiting = self._waiting(made)
        yield _finished(Succeeded(self._result(made)))

    async def _applied(
        self, name: str, request: ExecutionRequest, manifests: Sequence[Mapping[str, Any]]
    ) -> list[Object] | Failure:
        """Check all of them, then apply all of them."""
        text = canonical(list(manifests)).decode()
        if any(secret and secret in text for secret in request.secrets):
            return _wrong("a secret stands in a manifest", "make a Secret of the cluster beforehand and refer to it")
        labelled: list[dict[str, Any]] = []
        for manifest in manifests:
            each = self._labelled(request, manifest)
            if isinstance(each, Failure):
                return each
            labelled.append(each)
        try:
            for each in labelled:
                await self._apply(each, dry_run=True)
            return await self._applied_in_turn(name, labelled)
        except Refused as refused:
            return refusals.failure_of(refused, ", ".join(map(paths.title, labelled)))

    async def _applied_in_turn(self, name: str, manifests: Sequence[Mapping[str, Any]]) -> list[Object] | Failure:
        """Apply one after the other. The engine goes on reading what it ends: so it is looked at before each one."""
        try:
            return [await self._underway.made(name, partial(self._apply, each, dry_run=False)) for each in manifests]
        except EndedBefore:
            return outcomes.cancelled().failure

    def _labelled(self, request: ExecutionRequest, manifest: Mapping[str, Any]) -> dict[str, Any] | Failure:
        metadata = manifest.get("metadata")
        if not all(isinstance(manifest.get(key), str) for key in ("apiVersion", "kind")):
            return _wrong("a manifest needs `apiVersion` and `kind`", "")
        if not isinstance(metadata, Mapping) or not metadata.get("name"):
            return _wrong(f"{manifest['kind']}: a manifest needs metadata.name", "what stays has a name of its own")
        if metadata.get("namespace", self._config.namespace) != self._config.namespace:
            return _wrong(f"{paths.title(manifest)} is for another namespace", "use a runtime with that namespace")
        ours = {
            **identity.labels(self._installation, request),
            identity.RETAINED: "true",
        }
        labels = {**self._config.labels, **(metadata.get("labels") or {}), **ours}
        notes = {**(metadata.get("annotations") or {}), **identity.annotations(request)}
        return {
            **manifest,
            "metadata": {
                **metadata,
                "namespace": self._config.namespace,
                "labels": labels,
                "annotations": notes,
            },
        }

    async def _apply(self, manifest: Mapping[str, Any], *, dry_run: bool) -> Object:
        path = await self._path(manifest)
        query = {"fieldManager": _FIELD_OWNER, "force": "true", "fieldValidation": "Strict"}
        call = Call(
            method="PATCH",
            path=path,
            query={**query, **({"dryRun": "All"} if dry_run else {})},
            body=json.dumps(manifest),
            content_type="application/apply-patch+yaml",
        )
        return {"apiVersion": manifest["apiVersion"], "kind": manifest["kind"], **await self._cluster.send(call)}

    async def _read(self, item: Object) -> Object:
        return {
            "apiVersion": item["apiVersion"],
            "kind": item["kind"],
            **await self._cluster.get(await self._path(item)),
        }

    async def _path(self, item: Mapping[str, Any]) -> str:
        """Say where an object is; kinds that are not known here are asked of the cluster."""
        version, kind = item["apiVersion"], item["kind"]
        word = paths.plural(version, kind)
        if word is None:
            listed = (await self._cluster.get(paths.group(version))).get("resources") or []
            found = [each for each in listed if each.get("kind") == kind and "/" not in each["name"]]
            if not found:
                raise Refused(404, "NotFound", f"there is no kind {kind} in {version}", {})
            if not found[0].get("namespaced", True):
                raise Refused(400, "Invalid", f"{paths.title(item)} belongs to no namespace: make it beforehand", {})
            word = found[0]["name"]
        return f"{paths.collection(version, word, self._config.namespace)}/{item['metadata']['name']}"

    def _waiting(self, objects: Sequence[Object]) -> list[str]:
        return [f"{paths.title(each)}: {why}" for each in objects if (why := waits_for(each))]

    def _result(self, objects: Sequence[Object]) -> JSON:
        shown: list[JSON] = [
            {
                "apiVersion": each["apiVersion"],
                "kind": each["kind"],
                "name": each["metadata"]["name"],
                "namespace": self._config.namespace,
                "uid": identity.uid_of(each),
            }
            for each in objects
        ]
        found = [endpoint for each in objects if (endpoint := endpoint_of(each, self._config.namespace))]
        return {"objects": shown, "endpoint": found[0] if found else None}

    def _too_late(self, waiting: Sequence[str]) -> Failure:
        seconds = timedelta(seconds=self._config.start_timeout).total_seconds()
        return Failure(
            message=f"not ready within {seconds:g} s: {'; '.join(waiting)}",
            error_class=ErrorClass.DEPENDENCY,
            name="NotReady",
            hint="what was applied stays; look at it, and raise start_timeout if it is only slow",
        )


def _finished(outcome: Succeeded | Failed) -> Finished:
    return Finished(ExecutionResult(outcome=outcome))


def _wrong(message: str, hint: str) -> Failure:
    return Failure(
        message=f"kubernetes: apply: {message}", error_class=ErrorClass.INPUT, name="InvalidManifest", hint=hint
    )
