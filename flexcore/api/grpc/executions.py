"""Executions over gRPC."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta

from flexcore.api.following import follow
from flexcore.api.grpc.context import Context
from flexcore.api.grpc.received import DEFAULT_WORKSPACE, json_in, limit_in, moment_in, optional, span_in
from flexcore.api.v1 import execution_pb2 as pb
from flexcore.api.v1.execution_pb2_grpc import ExecutionServiceServicer
from flexcore.common.documents import enum_number, enum_word, fill
from flexcore.common.values import json_message, timestamp
from flexcore.model.errors import InvalidRequest, Unavailable
from flexcore.model.ids import ExecutionId
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.requests import ControlPlaneApi, ExecutionQuery, RetryRequest, StartRequest, WatchEvent

_IDLE = timedelta(minutes=1)
_DEFAULT_LIMIT = 50
_DEFAULT_HISTORY_LIMIT = 1000


class ExecutionEntrance(ExecutionServiceServicer):
    """Translates; every method makes one call. `stopping` ends the streams, so that a server can."""

    def __init__(self, control_plane: ControlPlaneApi, stopping: asyncio.Event) -> None:
        self._control_plane = control_plane
        self._stopping = stopping

    async def StartExecution(self, request: pb.StartExecutionRequest, context: Context) -> pb.StartExecutionResponse:
        """Accept an execution."""
        started = await self._control_plane.start(_start_request(request))
        return pb.StartExecutionResponse(id=started.id, existing=started.existing)

    async def GetExecution(self, request: pb.GetExecutionRequest, context: Context) -> pb.GetExecutionResponse:
        """Give an execution."""
        document = await self._control_plane.execution(ExecutionId(request.id))
        response = pb.GetExecutionResponse()
        fill(response.execution, document)
        return response

    async def ListExecutions(self, request: pb.ListExecutionsRequest, context: Context) -> pb.ListExecutionsResponse:
        """List executions."""
        page = await self._control_plane.executions(_query(request))
        response = pb.ListExecutionsResponse(next=page.next)
        for each in page.items:
            fill(response.executions.add(), each)
        return response

    async def ListHistory(self, request: pb.ListHistoryRequest, context: Context) -> pb.ListHistoryResponse:
        """Give what happened."""
        limit = limit_in(request.limit, _DEFAULT_HISTORY_LIMIT)
        page = await self._control_plane.history(ExecutionId(request.id), request.after, limit)
        response = pb.ListHistoryResponse(next=page.next)
        for each in page.items:
            fill(response.entries.add(), each)
        return response

    async def WatchExecution(
        self, request: pb.WatchExecutionRequest, context: Context
    ) -> AsyncGenerator[pb.WatchExecutionResponse, None]:
        """Follow an execution."""
        id = ExecutionId(request.id)
        async with aclosing(follow(self._control_plane, id, request.after, self._stopping, _IDLE)) as events:
            async for event in events:
                if event is not None:
                    yield _watched(event)
        if self._stopping.is_set():
            raise Unavailable("the server is stopping", hint="watch again, after the last entry seen")

    async def ReadLogs(self, request: pb.ReadLogsRequest, context: Context) -> pb.ReadLogsResponse:
        """Read logs."""
        id, path, cursor = ExecutionId(request.id), optional(request, "path"), optional(request, "cursor")
        page = await self._control_plane.logs(id, path, cursor)
        response = pb.ReadLogsResponse(next=page.next, ended=page.ended)
        for each in page.pieces:
            fill(response.pieces.add(), each)
        return response

    async def CancelExecution(self, request: pb.CancelExecutionRequest, context: Context) -> pb.CancelExecutionResponse:
        """Ask for the end."""
        await self._control_plane.cancel(ExecutionId(request.id), request.reason)
        return pb.CancelExecutionResponse()

    async def RetryExecution(self, request: pb.RetryExecutionRequest, context: Context) -> pb.RetryExecutionResponse:
        """Start a linked execution."""
        wanted = RetryRequest(
            id=ExecutionId(request.id),
            from_step=optional(request, "from_step"),
            everything=request.everything,
            newest=request.newest,
            results={path: json_in(value) for path, value in request.results.items()},
            reason=request.reason,
            idempotency_key=optional(request, "idempotency_key"),
        )
        started = await self._control_plane.retry(wanted)
        return pb.RetryExecutionResponse(id=started.id, existing=started.existing)

    async def ResumeExecutions(
        self, request: pb.ResumeExecutionsRequest, context: Context
    ) -> pb.ResumeExecutionsResponse:
        """Take up what has no owner."""
        return pb.ResumeExecutionsResponse(ids=await self._control_plane.resume())

    async def ExplainStep(self, request: pb.ExplainStepRequest, context: Context) -> pb.ExplainStepResponse:
        """Say why."""
        document = await self._control_plane.explain(ExecutionId(request.id), request.path, request.flips)
        response = pb.ExplainStepResponse()
        fill(response.explanation, document)
        return response


def _start_request(request: pb.StartExecutionRequest) -> StartRequest:
    return StartRequest(
        workflow=request.workflow,
        version=optional(request, "version"),
        workspace=request.workspace or DEFAULT_WORKSPACE,
        input=json_in(request.input),
        labels=dict(request.labels),
        runtime=optional(request, "runtime"),
        idempotency_key=optional(request, "idempotency_key"),
        timeout=span_in(request, "timeout"),
    )


def _query(request: pb.ListExecutionsRequest) -> ExecutionQuery:
    return ExecutionQuery(
        workspace=request.workspace or DEFAULT_WORKSPACE,
        workflow=optional(request, "workflow"),
        status=_status(request.status),
        since=moment_in(request, "since"),
        until=moment_in(request, "until"),
        unfinished=request.unfinished,
        labels=dict(request.labels),
        search=optional(request, "search"),
        failed_step=optional(request, "failed_step"),
        limit=limit_in(request.limit, _DEFAULT_LIMIT),
        cursor=optional(request, "cursor"),
    )


def _status(number: int) -> ExecutionStatus | None:
    if number == pb.EXECUTION_STATUS_UNSPECIFIED:
        return None
    word = enum_word(pb.ExecutionStatus.DESCRIPTOR, number)
    if word is None:
        raise InvalidRequest(f"no such status: {number}")
    return ExecutionStatus(word)


def _watched(event: WatchEvent) -> pb.WatchExecutionResponse:
    return pb.WatchExecutionResponse(
        kind=pb.WatchKind.ValueType(enum_number(pb.WatchKind.DESCRIPTOR, event.kind)),
        at=timestamp(event.at),
        seq=event.seq,
        body=json_message(event.body),
    )
