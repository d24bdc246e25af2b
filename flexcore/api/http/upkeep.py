"""Looking after an installation over HTTP: what is old, and who changed what."""

from typing import Annotated

from fastapi import Query, Request, Response
from pydantic import AwareDatetime

from flexcore.api.http.bodies import CollectBody, optional_span, read
from flexcore.api.http.endpoints import Plane, Workspace, answer, in_utc, listed
from flexcore.model.requests import AuditQuery, Collectable, CollectRequest

Limit = Annotated[int, Query(ge=1, le=1000, description="At most so many.")]


async def collect(request: Request, plane: Plane) -> Response:
    """Remove what is old, or say what would go."""
    body = await read(request, CollectBody)
    wanted = CollectRequest(
        kinds=frozenset(Collectable(each) for each in body.kinds),
        older_than=optional_span(body.older_than),
        dry_run=body.dry_run,
    )
    return answer(await plane.collect(wanted))


async def audit(
    plane: Plane,
    since: AwareDatetime | None = None,
    actor: str | None = None,
    subject: str | None = None,
    limit: Limit = 50,
    cursor: str | None = None,
    workspace: Workspace = "default",
) -> Response:
    """Say who changed what, newest first."""
    query = AuditQuery(
        workspace=workspace,
        since=in_utc(since),
        actor=actor,
        subject=subject,
        limit=limit,
        cursor=cursor,
    )
    return listed(await plane.audit(query))
