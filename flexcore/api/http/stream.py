"""Following an execution over HTTP: server-sent events, resumable without gaps by the id of the last history entry."""

import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Annotated

from fastapi import Header
from starlette.responses import Response, StreamingResponse

from flexcore.api.following import follow
from flexcore.api.http.endpoints import Server, Serving
from flexcore.api.http.executions import After
from flexcore.common.values import time_text
from flexcore.model.errors import FlexCoreError
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import WatchEvent

HEARTBEAT = timedelta(seconds=15)

LastEventId = Annotated[int | None, Header(alias="Last-Event-ID", ge=0)]


async def stream(server: Server, id: str, last_event_id: LastEventId = None, after: After = 0) -> Response:
    """Follow an execution to its end. History carries ids, log and progress none; `end` is the last event."""
    position = after if last_event_id is None else last_event_id
    await server.control_plane.history(ExecutionId(id), position, 1)  # an unknown id is a 404, not a broken stream
    return StreamingResponse(_events(server, ExecutionId(id), position), media_type="text/event-stream")


async def _events(server: Serving, id: ExecutionId, after: int) -> AsyncGenerator[str, None]:
    yield ": following\n\n"
    try:
        async with aclosing(follow(server.control_plane, id, after, server.stopping, HEARTBEAT)) as events:
            async for event in events:
                yield ": still here\n\n" if event is None else _event(event)
    except FlexCoreError as error:
        yield _frame("error", {"code": error.code, "detail": error.message, "hint": error.hint})
        return
    if not server.stopping.is_set():
        yield _frame("end", {"id": id})


def _event(event: WatchEvent) -> str:
    at = time_text(event.at)
    if event.seq is None:
        return _frame(event.kind, {"at": at, **event.body})
    return f"id: {event.seq}\n" + _frame(event.kind, {"seq": event.seq, "at": at, **event.body})


def _frame(name: str, document: dict[str, object]) -> str:
    return f"event: {name}\ndata: {json.dumps(document)}\n\n"
