"""The HTTP application: the table of routes, behind the guard. No documentation pages, no cross-origin requests."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from fastapi import Depends, FastAPI, Request
from starlette.routing import BaseRoute
from starlette.types import ASGIApp

from flexcore.api.http.bodies import YAML_TYPES
from flexcore.api.http.endpoints import Serving
from flexcore.api.http.guard import Guard
from flexcore.api.http.problems import add_problems
from flexcore.api.http.routes import OPEN_PATHS, ROUTES, Route
from flexcore.api.permissions import Permission, require_declared
from flexcore.model.errors import InvalidInput
from flexcore.model.requests import ControlPlaneApi
from flexcore.security.authn import TokenVerifier


def build_http_app(
    control_plane: ControlPlaneApi,
    verifier: TokenVerifier,
    ready: Callable[[], tuple[bool, str]],
    metrics: Callable[[], bytes],
    stopping: asyncio.Event,
    body_limit_bytes: int,
) -> ASGIApp:
    """Build the application. Raises InternalError when a route declares no permission."""
    app = bare_app()
    app.state.serving = Serving(control_plane, stopping)
    app.state.ready, app.state.metrics = ready, metrics
    require_declared(served(app.routes), [each.name for each in ROUTES])
    return Guard(app, verifier, OPEN_PATHS, body_limit_bytes)


def bare_app() -> FastAPI:
    """Build the routes alone, without anything behind them: enough to describe them."""
    app = FastAPI(
        title="FlexCore",
        version="v1",
        description="Workflows, their executions, and the runtimes that they run on. Every list is paged.",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
    )
    for route in ROUTES:
        app.add_api_route(
            route.path,
            route.endpoint,
            methods=[route.method],
            response_model=None,
            operation_id=_operation_id(route),
            openapi_extra=_described(route),
            dependencies=[Depends(_only_known_parameters)],
        )
    add_problems(app)
    return app


def served(routes: Sequence[BaseRoute]) -> Iterator[str]:
    """Name whatever answers requests; what is no plain route has no method and so can never be declared."""
    for route in routes:
        for method in getattr(route, "methods", None) or ["ANY"]:
            yield f"{method} {getattr(route, 'path', route)}"


def _operation_id(route: Route) -> str:
    return f"{route.endpoint.__module__.rpartition('.')[2]}_{route.endpoint.__name__}"


def _described(route: Route) -> dict[str, Any]:
    """Say in the OpenAPI document what the framework cannot see: bodies, read by hand, and the token."""
    described: dict[str, Any] = {"x-permission": route.permission.value}
    if route.permission is not Permission.OPEN:
        described["security"] = [{"token": []}]
    if route.body is not None:
        content = {"application/json": {"schema": route.body.model_json_schema()}}
        if route.yaml:
            content |= {each: {"schema": {"type": "string"}} for each in sorted(YAML_TYPES)}
        described["requestBody"] = {"content": content}
    return described


def _only_known_parameters(request: Request) -> None:
    """Refuse a misspelt parameter: ignored, it would silently widen what is listed."""
    known = {each.alias for each in request.scope["route"].dependant.query_params}
    if unknown := sorted(set(request.query_params) - known):
        hint = f"known here: {', '.join(sorted(known)) or 'none'}"
        raise InvalidInput(f"unknown parameter: {', '.join(unknown)}", hint=hint)
