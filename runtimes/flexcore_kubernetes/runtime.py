"""The Kubernetes runtime: Jobs of a cluster behind the four verbs."""

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.failure import Failure
from flexcore.model.ids import external_name
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    ExecutionScope,
    Failed,
    Feature,
    Finished,
    Health,
    HealthStatus,
    Resources,
    Survey,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.underway import Underway
from flexcore_kubernetes import nodes, refusals, steps
from flexcore_kubernetes.applying import Applying
from flexcore_kubernetes.attempts import Attempts
from flexcore_kubernetes.cluster import Call, Cluster, Refused
from flexcore_kubernetes.config import KubernetesConfig, KubernetesParameters
from flexcore_kubernetes.removal import Removal

_HEALTH_S = 5.0
_SLOW = timedelta(seconds=2)
_LIMITS_KEPT_S = 60.0
_ONE_LOG = "a pod has one log for what its containers write to either stream"


class KubernetesRuntime:
    """Runs steps as Jobs of one cluster, in one namespace."""

    def __init__(self, name: str, config: KubernetesConfig, context: RuntimeContext) -> None:
        self.name = name
        self._config = config
        self._context = context
        self._cluster = Cluster(name, config)
        self._removal = Removal(self._cluster, context.installation)
        self._underway = Underway()
        self._attempts = Attempts(config, context, self._cluster, self._removal, self._underway)
        self._applying = Applying(config, context, self._cluster, self._underway)
        self._seen: tuple[float, Resources] | None = None
        self._version = ""

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Run a step as a Job, or apply objects that stay."""
        parameters = steps.parameters_of(request)
        if isinstance(parameters, Failure):
            yield Finished(ExecutionResult(outcome=Failed(parameters)))
            return
        applies = isinstance(parameters, KubernetesParameters) and parameters.apply is not None
        source = self._applying.execute if applies else self._attempts.execute
        try:
            async with aclosing(source(request, parameters)) as events:  # type: ignore[arg-type]  # chosen by its type
                async for event in events:
                    yield event
        except Refused as refused:
            raise self._unreadable(refused) from refused

    async def health(self) -> HealthStatus:
        """Up where the API server answers; degraded where it takes its time."""
        began = time.monotonic()
        state, reason = Health.UP, ""
        try:
            self._version = (await self._asked()).get("gitVersion", "")
        except RuntimeUnavailable as error:
            state, reason = Health.DOWN, error.message
        except Refused as refused:
            state, reason = Health.DOWN, f"the cluster does not answer us: {refused.message}"
        took = timedelta(seconds=time.monotonic() - began)
        if state is Health.UP:
            state = Health.DEGRADED if took > _SLOW else Health.UP
            milliseconds = f"{took.total_seconds() * 1000:.0f} ms"
            reason = f"Kubernetes {self._version}, namespace {self._config.namespace}, answered in {milliseconds}"
        return HealthStatus(
            state=state,
            reason=reason,
            checked_at=self._context.now(),
            start_latency=self._attempts.start_latency,
        )

    async def capabilities(self) -> Capabilities:
        """What a node can take, where nodes may be looked at, and that logs are one stream."""
        stores = {"s3"} | ({"file"} if self._config.shares_files else set())
        return Capabilities(
            step_kinds=frozenset(steps.PARAMETERS),
            limits=await self._limits(),
            unsupported={Feature.LOG_STREAMS: _ONE_LOG},
            data_stores=frozenset(stores),
            versions={"kubernetes": self._version or "not asked yet", "image": self._config.image},
        )

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End what is in the scope, wait for its pods, and remove what was made for it."""
        try:
            match scope:
                case AttemptScope():
                    name = external_name(self._context.installation, scope.id)
                    return await self._end({name}, scope.grace)
                case ExecutionScope():
                    return await self._end_execution(scope)
                case Survey():
                    return await self._removal.survey(scope.installation)
        except Refused as refused:
            raise self._unreadable(refused) from refused

    async def close(self) -> None:
        """Let go of connections. Work goes on."""
        self._cluster.close()

    async def _end_execution(self, scope: ExecutionScope) -> CleanupReport:
        here = self._underway.of_execution(scope.execution)
        await asyncio.gather(*map(self._underway.ending, here))
        return await self._end(await self._removal.of_execution(scope.execution) | here, scope.grace)

    async def _end(self, names: set[str], grace: timedelta) -> CleanupReport:
        await asyncio.gather(*map(self._underway.ending, names))
        report = await self._removal.end_all(names, grace)
        await asyncio.to_thread(self._attempts.bookmarks.drop, report.gone)
        return report

    async def _asked(self) -> dict[str, str]:
        return await self._cluster.send(Call(method="GET", path="/version", timeout_s=_HEALTH_S))

    async def _limits(self) -> Resources:
        """Look at the nodes now and then; who may not, or cannot just now, knows no limit."""
        now = time.monotonic()
        if self._seen is None or now - self._seen[0] > _LIMITS_KEPT_S:
            try:
                listed = await self._cluster.send(Call(method="GET", path="/api/v1/nodes", timeout_s=_HEALTH_S))
                found = nodes.limits(listed.get("items") or [], self._config.gpu_resource)
            except (Refused, RuntimeUnavailable, ValueError):
                found = Resources()
            self._seen = (now, found)
        return self._seen[1]

    def _unreadable(self, refused: Refused) -> RuntimeUnavailable:
        """What is refused in the middle, to us and not to the step, leaves the outcome unknown."""
        failure = refusals.failure_of(refused, "to say how the work is")
        return RuntimeUnavailable(f"runtime '{self.name}': {failure.message}", hint=failure.hint)
