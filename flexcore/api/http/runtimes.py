"""Runtimes over HTTP."""

from fastapi import Request, Response

from flexcore.api.http.bodies import CleanUpBody, TaskBody, optional_span, read
from flexcore.api.http.endpoints import Plane, Server, Wait, Workspace, acknowledged, answer, listed
from flexcore.model.requests import Page, TaskRequest


async def list_all(plane: Plane) -> Response:
    """List runtimes."""
    return listed(Page(tuple(await plane.runtimes())))


async def get(plane: Plane, name: str) -> Response:
    """Give a runtime with its full health and capabilities."""
    return answer(await plane.runtime(name))


async def execute(
    request: Request, server: Server, name: str, wait: Wait = None, workspace: Workspace = "default"
) -> Response:
    """Run one task, without a workflow file: 202 and the execution's id, or 200 and its document."""
    body = await read(request, TaskBody)
    task = TaskRequest(
        runtime=name,
        type=body.type,
        parameters=body.parameters,
        workspace=workspace,
        timeout=optional_span(body.timeout),
    )
    return await acknowledged(server, await server.control_plane.execute_task(task), wait)


async def clean_up(request: Request, plane: Plane, name: str) -> Response:
    """End and remove what attempts left that nobody will ask for again, or say what would go."""
    body = await read(request, CleanUpBody)
    return answer(await plane.cleanup_runtime(name, body.dry_run))
