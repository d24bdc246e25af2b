"""What endpoints share: the control plane, the workspace, answers."""

import asyncio
import json
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

from fastapi import Depends, Query, Request, Response
from pydantic import AfterValidator

from flexcore.api.following import ended_within
from flexcore.api.http.bodies import span_of
from flexcore.model.errors import InvalidInput
from flexcore.model.ids import ExecutionId
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.requests import ControlPlaneApi, Page, Started

PREFIX = "/api/v1"
LONGEST_WAIT = timedelta(minutes=10)


@dataclass(frozen=True, slots=True)
class Serving:
    """What a request needs of the server. `stopping` ends whatever waits or streams."""

    control_plane: ControlPlaneApi
    stopping: asyncio.Event


def serving(request: Request) -> Serving:
    """Find what the application was built with."""
    found: Serving = request.app.state.serving
    return found


def control_plane(request: Request) -> ControlPlaneApi:
    """Find the control plane."""
    return serving(request).control_plane


def _bearable(wait: str | None) -> str | None:
    """Checked with the other parameters, because a refused wait must not have started anything."""
    if wait is not None and span_of(wait) > LONGEST_WAIT:
        raise InvalidInput(f"nobody waits longer than {LONGEST_WAIT}", hint="follow the execution's /stream instead")
    return wait


Plane = Annotated[ControlPlaneApi, Depends(control_plane)]
Server = Annotated[Serving, Depends(serving)]
Workspace = Annotated[str, Query(description="Where.", min_length=1)]
Wait = Annotated[
    str | None,
    AfterValidator(_bearable),
    Query(description="Wait so long for the end: 30s. Then the answer is the document."),
]


def answer(document: Any, status: int = 200) -> Response:
    """Answer with a document as it is. Not through a model: large documents would be copied and checked again."""
    return Response(json.dumps(document, allow_nan=False), status_code=status, media_type="application/json")


def in_utc(at: datetime | None) -> datetime | None:
    """Give a moment in the time zone that everything is kept in."""
    try:
        return None if at is None else at.astimezone(UTC)
    except OverflowError as error:
        raise InvalidInput(f"out of range: {at}") from error


def listed(page: Page[Any]) -> Response:
    """Answer with some of a list and where the rest begins."""
    return answer({"items": list(page.items), "next": page.next})


async def acknowledged(server: Serving, started: Started, wait: str | None) -> Response:
    """Answer with the execution's id, or with its document when it ended within the time to wait."""
    patience = span_of(wait or "0s")
    if patience and await ended_within(server.control_plane, started.id, patience, server.stopping):
        document = await server.control_plane.execution(started.id)
        if ExecutionStatus(document["status"]).is_terminal:
            return answer(document)
    response = answer({"id": started.id, "existing": started.existing}, 202)
    response.headers["Location"] = f"{PREFIX}/executions/{ExecutionId(started.id)}"
    return response
