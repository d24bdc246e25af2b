"""Every HTTP route: method, path, the permission that it needs, who answers, what its body is.

A capability gets its route here and nowhere else; the application refuses to start with any other.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from fastapi import Response
from pydantic import BaseModel

from flexcore.api.http import executions, operation, runtimes, upkeep, workflows
from flexcore.api.http.bodies import (
    CancelBody,
    CleanUpBody,
    CollectBody,
    ExplainBody,
    PlanBody,
    RetryBody,
    RollbackBody,
    StartBody,
    TaskBody,
    UploadBody,
    VersionBody,
)
from flexcore.api.http.endpoints import PREFIX
from flexcore.api.http.stream import stream
from flexcore.api.permissions import Permission


@dataclass(frozen=True, slots=True)
class Route:
    """One row. `body` is documented as JSON; `yaml` says that the bare workflow text is taken too."""

    method: str
    path: str
    permission: Permission
    endpoint: Callable[..., Awaitable[Response]]
    body: type[BaseModel] | None = None
    yaml: bool = False

    @property
    def name(self) -> str:
        """Name the route as people and start-up checks do: `GET /healthz`."""
        return f"{self.method} {self.path}"


_W, _E, _R = f"{PREFIX}/workflows", f"{PREFIX}/executions", f"{PREFIX}/runtimes"

ROUTES: tuple[Route, ...] = (
    Route("GET", "/healthz", Permission.OPEN, operation.healthz),
    Route("GET", "/readyz", Permission.OPEN, operation.readyz),
    Route("GET", "/metrics", Permission.SERVER_READ, operation.metrics),
    Route("GET", "/openapi.json", Permission.SERVER_READ, operation.openapi),
    Route("POST", f"{_W}:validate", Permission.WORKFLOW_READ, workflows.validate, UploadBody, yaml=True),
    Route("POST", f"{_W}:diff", Permission.WORKFLOW_READ, workflows.diff, UploadBody, yaml=True),
    Route("POST", f"{_W}:plan", Permission.WORKFLOW_READ, workflows.plan, PlanBody),
    Route("GET", _W, Permission.WORKFLOW_READ, workflows.list_all),
    Route("GET", f"{_W}/{{name}}", Permission.WORKFLOW_READ, workflows.get),
    Route("PUT", f"{_W}/{{name}}", Permission.WORKFLOW_WRITE, workflows.deploy, UploadBody, yaml=True),
    Route("DELETE", f"{_W}/{{name}}", Permission.WORKFLOW_WRITE, workflows.delete),
    Route("POST", f"{_W}/{{name}}:pin", Permission.WORKFLOW_WRITE, workflows.pin, VersionBody),
    Route("POST", f"{_W}/{{name}}:unpin", Permission.WORKFLOW_WRITE, workflows.unpin),
    Route("POST", f"{_W}/{{name}}:rollback", Permission.WORKFLOW_WRITE, workflows.rollback, RollbackBody),
    Route("POST", f"{_W}/{{name}}/executions", Permission.EXECUTION_START, executions.start, StartBody),
    Route("GET", _E, Permission.EXECUTION_READ, executions.list_some),
    Route("POST", f"{_E}:resume", Permission.EXECUTION_CONTROL, executions.resume),
    Route("GET", f"{_E}/{{id}}", Permission.EXECUTION_READ, executions.get),
    Route("GET", f"{_E}/{{id}}/events", Permission.EXECUTION_READ, executions.events),
    Route("GET", f"{_E}/{{id}}/logs", Permission.EXECUTION_READ, executions.logs),
    Route("GET", f"{_E}/{{id}}/steps/{{path}}/logs", Permission.EXECUTION_READ, executions.step_logs),
    Route("GET", f"{_E}/{{id}}/stream", Permission.EXECUTION_READ, stream),
    Route("POST", f"{_E}/{{id}}:cancel", Permission.EXECUTION_CONTROL, executions.cancel, CancelBody),
    Route("POST", f"{_E}/{{id}}:retry", Permission.EXECUTION_START, executions.retry, RetryBody),
    Route("POST", f"{PREFIX}/placements:explain", Permission.EXECUTION_READ, executions.explain, ExplainBody),
    Route("GET", _R, Permission.RUNTIME_READ, runtimes.list_all),
    Route("GET", f"{_R}/{{name}}", Permission.RUNTIME_READ, runtimes.get),
    Route("POST", f"{_R}/{{name}}:execute", Permission.EXECUTION_START, runtimes.execute, TaskBody),
    Route("POST", f"{_R}/{{name}}:cleanup", Permission.EXECUTION_CONTROL, runtimes.clean_up, CleanUpBody),
    Route("POST", f"{PREFIX}/store:collect", Permission.STORE_WRITE, upkeep.collect, CollectBody),
    Route("GET", f"{PREFIX}/audit", Permission.AUDIT_READ, upkeep.audit),
)
OPEN_PATHS = frozenset(each.path for each in ROUTES if each.permission is Permission.OPEN)
