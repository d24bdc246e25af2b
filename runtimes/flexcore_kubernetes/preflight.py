"""Asks the cluster beforehand whether it would take the work: permissions, then a dry run of the pod and the Job.

What the answer to a Job's creation does not tell (quota, service account, rules for pods) would otherwise show only
in events, of a Job that waits for ever.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flexcore.model.failure import ErrorClass, Failure
from flexcore_kubernetes import paths, refusals
from flexcore_kubernetes.cluster import Call, Cluster, Refused

_KNOWN_S = 300.0
_REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


@dataclass(frozen=True, slots=True)
class Right:
    """Something that has to be allowed. `resource` may have a subresource: `pods/log`."""

    verb: str
    resource: str
    group: str = ""

    def __str__(self) -> str:
        return f"{self.verb} {self.resource}{'.' if self.group else ''}{self.group}"


JOBS = tuple(Right(verb, "jobs", "batch") for verb in ("create", "get", "list", "watch", "delete"))
PODS = (*(Right(verb, "pods") for verb in ("list", "watch", "delete")), Right("get", "pods/log"))
SECRETS = (Right("create", "secrets"), Right("delete", "secrets"))
CONFIG_MAPS = (Right("create", "configmaps"), Right("delete", "configmaps"))
DRY_PODS = Right("create", "pods")


class Preflight:
    """Remembers for a while what is allowed."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._allowed: dict[Right, tuple[bool, float]] = {}

    async def permission(self, rights: tuple[Right, ...]) -> Failure | None:
        """Say which of the rights are missing; None when all are there."""
        allowed = await asyncio.gather(*map(self.may, rights))
        missing = [str(right) for right, each in zip(rights, allowed, strict=True) if not each]
        if not missing:
            return None
        return Failure(
            message=f"the account may not {', '.join(missing)} in namespace '{self._cluster.namespace}'",
            error_class=ErrorClass.INPUT,
            name="Forbidden",
            hint="give it a Role with these verbs (docs/kubernetes.md has one), or another account",
        )

    async def may(self, right: Right) -> bool:
        """Ask whether something is allowed, where the last answer is too old."""
        now = asyncio.get_running_loop().time()
        known = self._allowed.get(right)
        if known is not None and now - known[1] < (_KNOWN_S if known[0] else 1.0):
            return known[0]
        resource, _, part = right.resource.partition("/")
        attributes = {"namespace": self._cluster.namespace, "verb": right.verb, "resource": resource}
        attributes |= {"group": right.group} if right.group else {}
        attributes |= {"subresource": part} if part else {}
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": attributes},
        }
        try:
            answer = await self._cluster.send(Call(method="POST", path=_REVIEWS, body=body))
        except Refused:  # a cluster that does not tell: what is not allowed will show
            return True
        allowed = bool((answer.get("status") or {}).get("allowed"))
        self._allowed[right] = (allowed, now)
        return allowed

    async def dry_run(self, job: Mapping[str, Any], pod: Mapping[str, Any]) -> Failure | None:
        """Let the server check both objects and store nothing; None when it would take them."""
        namespace = self._cluster.namespace
        runs = [self._dry(paths.jobs(namespace), job, "the Job")]
        if pod and await self.may(DRY_PODS):
            runs.append(self._dry(paths.pods(namespace), pod, "the Job's pod"))
        found = await asyncio.gather(*runs)
        return next((each for each in found if each is not None), None)

    async def _dry(self, path: str, item: Mapping[str, Any], what: str) -> Failure | None:
        query = {"dryRun": "All", "fieldValidation": "Strict"}
        try:
            await self._cluster.send(Call(method="POST", path=path, query=query, body=item))
        except Refused as refused:
            if refused.reason == "AlreadyExists":
                return None  # of a race with ourselves: creating tells
            return refusals.failure_of(refused, what)
        return None
