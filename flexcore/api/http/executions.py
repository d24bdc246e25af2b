"""Executions over HTTP."""

from typing import Annotated

from fastapi import Header, Query, Request, Response
from pydantic import AwareDatetime

from flexcore.api.http.bodies import CancelBody, ExplainBody, RetryBody, StartBody, optional_span, read
from flexcore.api.http.endpoints import Plane, Server, Wait, Workspace, acknowledged, answer, in_utc, listed
from flexcore.model.ids import ExecutionId
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.requests import ExecutionQuery, LogPage, RetryRequest, StartRequest, labels_in

Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]
After = Annotated[int, Query(ge=0, description="Only history entries with a higher number.")]
Key = Annotated[str | None, Header(alias="Idempotency-Key", min_length=1, max_length=255)]


async def start(
    request: Request, server: Server, name: str, wait: Wait = None, key: Key = None, workspace: Workspace = "default"
) -> Response:
    """Accept an execution: 202 and its id, or 200 and its document when it ended within `wait`."""
    body = await read(request, StartBody)
    wanted = StartRequest(
        workflow=name,
        version=body.version,
        workspace=workspace,
        input=body.input,
        labels=body.labels,
        runtime=body.runtime,
        idempotency_key=key,
        timeout=optional_span(body.timeout),
    )
    return await acknowledged(server, await server.control_plane.start(wanted), wait)


async def list_some(
    plane: Plane,
    workflow: str | None = None,
    status: ExecutionStatus | None = None,
    since: AwareDatetime | None = None,
    until: AwareDatetime | None = None,
    unfinished: bool = False,
    label: Annotated[list[str] | None, Query(description="key=value; all of them have to be there")] = None,
    search: str | None = None,
    failed_step: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
    workspace: Workspace = "default",
) -> Response:
    """List executions without their steps, newest first."""
    query = ExecutionQuery(
        workspace=workspace,
        workflow=workflow,
        status=status,
        since=in_utc(since),
        until=in_utc(until),
        unfinished=unfinished,
        labels=labels_in(label or ()),
        search=search,
        failed_step=failed_step,
        limit=limit,
        cursor=cursor,
    )
    return listed(await plane.executions(query))


async def get(plane: Plane, id: str) -> Response:
    """Give an execution as it stands."""
    return answer(await plane.execution(ExecutionId(id)))


async def events(plane: Plane, id: str, after: After = 0, limit: Limit = 1000) -> Response:
    """Give what happened to an execution."""
    return listed(await plane.history(ExecutionId(id), after, limit))


async def logs(plane: Plane, id: str, cursor: str | None = None) -> Response:
    """Read what all steps printed."""
    return _log_page(await plane.logs(ExecutionId(id), None, cursor))


async def step_logs(plane: Plane, id: str, path: str, cursor: str | None = None) -> Response:
    """Read what a step printed in its last attempt."""
    return _log_page(await plane.logs(ExecutionId(id), path, cursor))


async def cancel(request: Request, plane: Plane, id: str) -> Response:
    """Ask for the end of an execution; durable once answered."""
    body = await read(request, CancelBody)
    await plane.cancel(ExecutionId(id), body.reason)
    return answer({"id": id}, 202)


async def retry(request: Request, server: Server, id: str, wait: Wait = None, key: Key = None) -> Response:
    """Start a new, linked execution that reuses the results above a step."""
    body = await read(request, RetryBody)
    wanted = RetryRequest(id=ExecutionId(id), idempotency_key=key, **body.model_dump())
    return await acknowledged(server, await server.control_plane.retry(wanted), wait)


async def resume(plane: Plane) -> Response:
    """Take up every unfinished execution whose owner is dead."""
    return answer({"items": list(await plane.resume()), "next": None})


async def explain(request: Request, plane: Plane) -> Response:
    """Say why a step went where it did, or why it waits."""
    body = await read(request, ExplainBody)
    return answer(await plane.explain(ExecutionId(body.execution), body.path, body.flips))


def _log_page(page: LogPage) -> Response:
    return answer({"pieces": list(page.pieces), "next": page.next, "ended": page.ended})
