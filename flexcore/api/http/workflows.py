"""Definitions over HTTP."""

from fastapi import Request, Response

from flexcore.api.http.bodies import PlanBody, RollbackBody, VersionBody, read, read_upload, require_name
from flexcore.api.http.endpoints import Plane, Workspace, answer, listed
from flexcore.api.http.problems import diagnostic_document
from flexcore.model.requests import Page


async def validate(request: Request, plane: Plane) -> Response:
    """Check a workflow without storing it."""
    problems = await plane.validate(await read_upload(request))
    return answer({"valid": not problems, "errors": [diagnostic_document(each) for each in problems]})


async def deploy(request: Request, plane: Plane, name: str, workspace: Workspace = "default") -> Response:
    """Store a version under the name that the file has: 201 when it is new."""
    bundle = await read_upload(request)
    require_name(bundle, name)
    document = await plane.deploy(bundle, workspace)
    return answer(document, 201 if document.get("created") else 200)


async def diff(request: Request, plane: Plane, workspace: Workspace = "default") -> Response:
    """Say what deploying would change, without storing anything."""
    return answer(await plane.diff(await read_upload(request), workspace))


async def pin(request: Request, plane: Plane, name: str, workspace: Workspace = "default") -> Response:
    """Have new executions take one version, whatever is deployed."""
    body = await read(request, VersionBody)
    return answer(await plane.pin(name, body.version, workspace))


async def unpin(plane: Plane, name: str, workspace: Workspace = "default") -> Response:
    """Have new executions take the current version again."""
    return answer(await plane.unpin(name, workspace))


async def rollback(request: Request, plane: Plane, name: str, workspace: Workspace = "default") -> Response:
    """Make an older version the current one."""
    body = await read(request, RollbackBody)
    return answer(await plane.rollback(name, body.version, workspace))


async def plan(request: Request, plane: Plane, workspace: Workspace = "default") -> Response:
    """Say where each step would go now."""
    body = await read(request, PlanBody)
    return answer(await plane.plan(body.workflow, body.version, body.runtime, workspace))


async def list_all(plane: Plane, runtime: str | None = None, workspace: Workspace = "default") -> Response:
    """List definitions by name."""
    return listed(Page(tuple(await plane.workflows(workspace, runtime))))


async def get(plane: Plane, name: str, version: str | None = None, workspace: Workspace = "default") -> Response:
    """Give a definition with its text."""
    return answer(await plane.workflow(name, version, workspace))


async def delete(plane: Plane, name: str, workspace: Workspace = "default") -> Response:
    """Take a definition out of the list."""
    await plane.delete_workflow(name, workspace)
    return Response(status_code=204)
