"""The Ray runtime: jobs of a cluster behind the four verbs."""

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

from flexcore.model.errors import NotFound, RuntimeUnavailable
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionScope,
    Feature,
    Health,
    HealthStatus,
    Resources,
    Survey,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.state_folder import problem_with
from flexcore_ray.config import PARAMETERS, RayConfig, data_stores
from flexcore_ray.machine import has_record, problem_here, resources_here

if TYPE_CHECKING:
    from flexcore_ray.attempts import RayAttempts
    from flexcore_ray.client import Dashboard

_UNSUPPORTED = {
    Feature.LOG_STREAMS: "Ray writes both outputs of a job into one log: everything comes as stdout",
}
_NOTES = {
    "limits": "cpu, gpu and memory are reserved by Ray; memory is kept by a watch over the step's processes",
    "grace": "how long a stopped job may take is fixed when it is submitted",
}


class RayRuntime:
    """Runs steps as jobs of one cluster."""

    def __init__(self, name: str, config: RayConfig, context: RuntimeContext) -> None:
        """Start nothing. Raises NotFound where a local cluster is wanted and can never be had here."""
        self.name = name
        self._config = config
        self._context = context
        self._is_local = config.cluster is not None
        if self._is_local and (problem := problem_here(config)):
            raise NotFound(f"runtime {name!r} not available: {problem}", hint="see `flexcore doctor`")
        self._loaded: RayAttempts | None = None

    def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Run a step as a job, or follow the job that it is."""
        return self._attempts.execute(request)

    async def health(self) -> HealthStatus:
        """Ask the dashboard. A local cluster that is not there counts as up when it can be started."""
        try:
            state, reason = await self._state()
        except RuntimeUnavailable as error:
            state, reason = Health.DOWN, f"{error.message}; {error.hint}" if error.hint else error.message
        return HealthStatus(
            state=state,
            reason=reason,
            checked_at=self._context.now(),
            start_latency=self._loaded.start_latency if self._loaded is not None else None,
        )

    async def capabilities(self) -> Capabilities:
        """Say how large the cluster is now."""
        dashboard = await self._dashboard()
        if dashboard is None:
            return self._capable(resources_here(self._config), {})
        size = await self._attempts.capacity(dashboard)
        told = await dashboard.version()
        return self._capable(size.limits, {"ray": told.get("ray_version", "unknown")}, size.tags)

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End what is in the scope, wait for it, and have the cluster forget it."""
        match scope:
            case AttemptScope():
                return await self._attempts.end(scope.id, scope.handle, scope.grace)
            case ExecutionScope():
                return await self._attempts.end_all(scope.execution, scope.grace)
            case Survey():
                return await self._attempts.survey(scope.installation)

    async def close(self) -> None:
        """Close connections. Jobs go on, and so does a local cluster."""
        if self._loaded is not None:
            await self._loaded.close()

    @property
    def _attempts(self) -> "RayAttempts":
        if self._loaded is None:
            # Here, because most commands look at this runtime and do not use it.
            from flexcore_ray.attempts import RayAttempts

            self._loaded = RayAttempts(self._config, self._context)
        return self._loaded

    async def _dashboard(self) -> "Dashboard | None":
        """Give the dashboard; None where a local cluster would have to be started first."""
        if self._is_local and not has_record(self._context.state_folder):
            return None
        return await self._attempts.dashboard()

    async def _state(self) -> tuple[Health, str]:
        dashboard = await self._dashboard()
        if dashboard is not None:
            return await self._answered(dashboard)
        problem = problem_with(self._context.state_folder)
        if problem:
            return Health.DOWN, f"a local Ray cannot be started: {problem}"
        return Health.UP, f"a local Ray will be started when work comes, in about ten seconds; {self._exposure()}"

    async def _answered(self, dashboard: "Dashboard") -> tuple[Health, str]:
        told = await dashboard.version()
        size = await self._attempts.capacity(dashboard)
        name = f"Ray {told.get('ray_version', '')} at {dashboard.address.url}"
        if not size.nodes:
            return Health.DEGRADED, f"{name} answers, and has no node that is up"
        cpus = sum(each.get("CPU", 0.0) for each in size.nodes)
        grows = ", scales itself" if size.autoscales else ""
        exposure = f"; {self._exposure()}" if self._is_local else ""
        return Health.UP, f"{name}: {len(size.nodes)} node(s), {cpus:g} CPUs{grows}{exposure}"

    def _exposure(self) -> str:
        """Say who can connect to a local cluster: Ray binds its ports to all interfaces, whatever it is told."""
        if self._config.boxed:
            return "in a network of its own"
        return "its ports are open to this machine's networks, and a token protects them"

    def _capable(self, limits: Resources, versions: dict[str, str], tags: frozenset[str] = frozenset()) -> Capabilities:
        return Capabilities(
            step_kinds=frozenset(PARAMETERS),
            limits=limits,
            unsupported=_UNSUPPORTED,
            tags=tags,
            data_stores=data_stores(self._config),
            versions={**versions, **_NOTES},
        )
