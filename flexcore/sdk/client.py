"""The client of a server: every capability of the control plane, over gRPC, with the same answers and the same errors.

Knows no module of a server. Connects with the first call; never repeats a call by itself.
"""

import secrets
from collections.abc import AsyncGenerator, Awaitable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from flexcore.api.v1 import execution_pb2, operation_pb2, runtime_pb2, workflow_pb2
from flexcore.api.v1.execution_pb2_grpc import ExecutionServiceStub
from flexcore.api.v1.operation_pb2_grpc import OperationServiceStub
from flexcore.api.v1.runtime_pb2_grpc import RuntimeServiceStub
from flexcore.api.v1.workflow_pb2_grpc import WorkflowServiceStub
from flexcore.common.documents import document_of, enum_number, enum_word
from flexcore.common.errors import METADATA_LIMIT_BYTES, diagnostic_of
from flexcore.common.values import duration, json_message, json_value, moment, timestamp
from flexcore.model.errors import Diagnostic
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import (
    AuditQuery,
    Bundle,
    CollectRequest,
    Document,
    ExecutionQuery,
    LogPage,
    Page,
    RetryRequest,
    Started,
    StartRequest,
    TaskRequest,
    WatchEvent,
)
from flexcore.sdk.failed_call import error_of_call, target_of

Answer = TypeVar("Answer")

_MESSAGE_LIMIT_BYTES = -1  # the server bounds what it takes; what it gives is as long as it is
_KEEPALIVE_MS = (30_000, 20_000)  # when a silent server is asked for a sign of life while following · how long it has
_OPTIONS = (
    ("grpc.max_receive_message_length", _MESSAGE_LIMIT_BYTES),
    ("grpc.max_send_message_length", _MESSAGE_LIMIT_BYTES),
    ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.absolute_max_metadata_size", METADATA_LIMIT_BYTES),
    ("grpc.enable_http_proxy", 0),
)


class Client:
    """A control plane behind an address.

    Every method is that of `flexcore.model.requests.ControlPlaneApi`, with the same meaning.

    >>> async with Client("127.0.0.1:9090", token) as client:
    ...     started = await client.start(StartRequest(workflow="orders", input={"limit": 10}))
    ...     document = await client.execution(started.id)
    """

    def __init__(self, address: str, token: str) -> None:
        self._address = address
        self._target = target_of(address)
        self._metadata = (("authorization", f"Bearer {token}"),)
        self._open: grpc.aio.Channel | None = None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *raised: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Drop the connection. The next call makes a new one."""
        channel, self._open = self._open, None
        if channel is not None:
            await channel.close()

    async def validate(self, bundle: Bundle) -> Sequence[Diagnostic]:
        """Check a workflow; an empty answer means it is valid."""
        request = workflow_pb2.ValidateWorkflowRequest(bundle=_bundle(bundle))
        response = await self._answer(self._workflows.ValidateWorkflow(request, metadata=self._metadata))
        return [diagnostic_of(each) for each in response.diagnostics]

    async def deploy(self, bundle: Bundle, workspace: str = "default") -> Document:
        """Store a version."""
        request = workflow_pb2.DeployWorkflowRequest(
            request_id=_request_id(), bundle=_bundle(bundle), workspace=workspace
        )
        response = await self._answer(self._workflows.DeployWorkflow(request, metadata=self._metadata))
        return document_of(response.workflow)

    async def diff(self, bundle: Bundle, workspace: str = "default") -> Document:
        """Say what deploying would change."""
        request = workflow_pb2.DiffWorkflowRequest(bundle=_bundle(bundle), workspace=workspace)
        response = await self._answer(self._workflows.DiffWorkflow(request, metadata=self._metadata))
        return document_of(response.difference)

    async def plan(
        self, workflow: str, version: str | None = None, runtime: str | None = None, workspace: str = "default"
    ) -> Document:
        """Say where each step would go now."""
        request = workflow_pb2.PlanWorkflowRequest(
            workflow=workflow, version=version, runtime=runtime, workspace=workspace
        )
        response = await self._answer(self._workflows.PlanWorkflow(request, metadata=self._metadata))
        return document_of(response.plan)

    async def workflows(self, workspace: str = "default", runtime: str | None = None) -> Sequence[Document]:
        """List definitions by name."""
        request = workflow_pb2.ListWorkflowsRequest(workspace=workspace, runtime=runtime)
        response = await self._answer(self._workflows.ListWorkflows(request, metadata=self._metadata))
        return [document_of(each) for each in response.workflows]

    async def workflow(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        """Give a definition with its text."""
        request = workflow_pb2.GetWorkflowRequest(name=name, version=version, workspace=workspace)
        response = await self._answer(self._workflows.GetWorkflow(request, metadata=self._metadata))
        return document_of(response.workflow)

    async def pin(self, name: str, version: str, workspace: str = "default") -> Document:
        """Have new executions take this version whatever is deployed."""
        request = workflow_pb2.PinWorkflowRequest(
            request_id=_request_id(), name=name, version=version, workspace=workspace
        )
        response = await self._answer(self._workflows.PinWorkflow(request, metadata=self._metadata))
        return document_of(response.standing)

    async def unpin(self, name: str, workspace: str = "default") -> Document:
        """Have new executions take the current version again."""
        request = workflow_pb2.UnpinWorkflowRequest(request_id=_request_id(), name=name, workspace=workspace)
        response = await self._answer(self._workflows.UnpinWorkflow(request, metadata=self._metadata))
        return document_of(response.standing)

    async def rollback(self, name: str, version: str | None = None, workspace: str = "default") -> Document:
        """Make an older version the current one."""
        request = workflow_pb2.RollbackWorkflowRequest(
            request_id=_request_id(), name=name, version=version, workspace=workspace
        )
        response = await self._answer(self._workflows.RollbackWorkflow(request, metadata=self._metadata))
        return document_of(response.standing)

    async def delete_workflow(self, name: str, workspace: str = "default") -> None:
        """Take a definition out of the list."""
        request = workflow_pb2.DeleteWorkflowRequest(request_id=_request_id(), name=name, workspace=workspace)
        await self._answer(self._workflows.DeleteWorkflow(request, metadata=self._metadata))

    async def start(self, request: StartRequest) -> Started:
        """Accept an execution."""
        response = await self._answer(self._executions.StartExecution(_start(request), metadata=self._metadata))
        return Started(ExecutionId(response.id), response.existing)

    async def execute_task(self, request: TaskRequest) -> Started:
        """Run one task on one runtime."""
        message = runtime_pb2.ExecuteTaskRequest(
            request_id=_request_id(),
            runtime=request.runtime,
            type=request.type,
            parameters=json_message(request.parameters),
            workspace=request.workspace,
            timeout=_duration(request.timeout),
        )
        response = await self._answer(self._runtimes.ExecuteTask(message, metadata=self._metadata))
        return Started(ExecutionId(response.id), response.existing)

    async def execution(self, id: ExecutionId) -> Document:
        """Give the execution document."""
        request = execution_pb2.GetExecutionRequest(id=id)
        response = await self._answer(self._executions.GetExecution(request, metadata=self._metadata))
        return document_of(response.execution)

    async def executions(self, query: ExecutionQuery) -> Page[Document]:
        """List executions without their steps, newest first."""
        response = await self._answer(self._executions.ListExecutions(_query(query), metadata=self._metadata))
        return Page(tuple(document_of(each) for each in response.executions), _next(response))

    async def history(self, id: ExecutionId, after: int = 0, limit: int = 1000) -> Page[Document]:
        """Give history entries."""
        request = execution_pb2.ListHistoryRequest(id=id, after=after, limit=limit)
        response = await self._answer(self._executions.ListHistory(request, metadata=self._metadata))
        return Page(tuple(document_of(each) for each in response.entries), _next(response))

    async def watch(self, id: ExecutionId, after: int = 0) -> AsyncGenerator[WatchEvent, None]:
        """Follow an execution; closing the generator ends the call."""
        request = execution_pb2.WatchExecutionRequest(id=id, after=after)
        with _translated(self._address):
            call = self._executions.WatchExecution(request, metadata=self._metadata)
            try:
                async for each in call:
                    yield _watched(each)
            finally:
                call.cancel()

    async def logs(self, id: ExecutionId, path: str | None = None, cursor: str | None = None) -> LogPage:
        """Read the logs of a step's last attempt, or of all steps."""
        request = execution_pb2.ReadLogsRequest(id=id, path=path, cursor=cursor)
        response = await self._answer(self._executions.ReadLogs(request, metadata=self._metadata))
        pieces = tuple(document_of(each) for each in response.pieces)
        return LogPage(pieces=pieces, next=_next(response), ended=response.ended)

    async def cancel(self, id: ExecutionId, reason: str = "") -> None:
        """Ask for the end of an execution."""
        request = execution_pb2.CancelExecutionRequest(request_id=_request_id(), id=id, reason=reason)
        await self._answer(self._executions.CancelExecution(request, metadata=self._metadata))

    async def retry(self, request: RetryRequest) -> Started:
        """Start a new, linked execution."""
        message = execution_pb2.RetryExecutionRequest(
            request_id=_request_id(),
            id=request.id,
            from_step=request.from_step,
            everything=request.everything,
            newest=request.newest,
            results={path: json_message(value) for path, value in request.results.items()},
            reason=request.reason,
            idempotency_key=request.idempotency_key,
        )
        response = await self._answer(self._executions.RetryExecution(message, metadata=self._metadata))
        return Started(ExecutionId(response.id), response.existing)

    async def resume(self) -> Sequence[ExecutionId]:
        """Take up every unfinished execution whose owner is dead."""
        request = execution_pb2.ResumeExecutionsRequest(request_id=_request_id())
        response = await self._answer(self._executions.ResumeExecutions(request, metadata=self._metadata))
        return [ExecutionId(each) for each in response.ids]

    async def explain(self, id: ExecutionId, path: str, flips: bool = False) -> Document:
        """Say why a step went where it did, or why it waits."""
        request = execution_pb2.ExplainStepRequest(id=id, path=path, flips=flips)
        response = await self._answer(self._executions.ExplainStep(request, metadata=self._metadata))
        return document_of(response.explanation)

    async def runtimes(self) -> Sequence[Document]:
        """List runtimes."""
        request = runtime_pb2.ListRuntimesRequest()
        response = await self._answer(self._runtimes.ListRuntimes(request, metadata=self._metadata))
        return [document_of(each) for each in response.runtimes]

    async def runtime(self, name: str) -> Document:
        """Give one runtime with its full health and capabilities."""
        request = runtime_pb2.GetRuntimeRequest(name=name)
        response = await self._answer(self._runtimes.GetRuntime(request, metadata=self._metadata))
        return document_of(response.runtime)

    async def cleanup_runtime(self, name: str, dry_run: bool = False) -> Document:
        """End and remove what attempts left on a runtime."""
        request = runtime_pb2.CleanUpRuntimeRequest(request_id=_request_id(), runtime=name, dry_run=dry_run)
        response = await self._answer(self._runtimes.CleanUpRuntime(request, metadata=self._metadata))
        return document_of(response.sweep)

    async def collect(self, request: CollectRequest) -> Document:
        """Remove what is old."""
        message = operation_pb2.CollectRequest(
            request_id=_request_id(),
            kinds=sorted(request.kinds),
            older_than=_duration(request.older_than),
            dry_run=request.dry_run,
        )
        response = await self._answer(self._operation.Collect(message, metadata=self._metadata))
        return document_of(response.collection)

    async def audit(self, query: AuditQuery) -> Page[Document]:
        """Say who changed what."""
        message = operation_pb2.ListAuditRequest(
            workspace=query.workspace,
            since=_timestamp(query.since),
            actor=query.actor,
            subject=query.subject,
            limit=query.limit,
            cursor=query.cursor,
        )
        response = await self._answer(self._operation.ListAudit(message, metadata=self._metadata))
        return Page(tuple(document_of(each) for each in response.lines), _next(response))

    @property
    def _channel(self) -> grpc.aio.Channel:
        if self._open is None:
            self._open = grpc.aio.insecure_channel(self._target, options=(*_OPTIONS, *_keepalive()))
        return self._open

    @property
    def _workflows(self) -> WorkflowServiceStub:
        return WorkflowServiceStub(self._channel)

    @property
    def _executions(self) -> ExecutionServiceStub:
        return ExecutionServiceStub(self._channel)

    @property
    def _runtimes(self) -> RuntimeServiceStub:
        return RuntimeServiceStub(self._channel)

    @property
    def _operation(self) -> OperationServiceStub:
        return OperationServiceStub(self._channel)

    async def _answer(self, call: Awaitable[Answer]) -> Answer:
        with _translated(self._address):
            return await call


@contextmanager
def _translated(address: str) -> Iterator[None]:
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise error_of_call(address, error) from error


def _keepalive() -> Iterator[tuple[str, int]]:
    time, timeout = _KEEPALIVE_MS
    yield "grpc.keepalive_time_ms", time
    yield "grpc.keepalive_timeout_ms", timeout
    yield "grpc.http2.ping_timeout_ms", timeout  # without it, gRPC waits a minute, whatever the line above says
    yield "grpc.http2.max_pings_without_data", 0  # a follower sends none


def _request_id() -> str:
    return f"req_{secrets.token_hex(8)}"


def _bundle(bundle: Bundle) -> workflow_pb2.Bundle:
    """Everything but the author's folder, which means nothing on another machine."""
    return workflow_pb2.Bundle(text=bundle.text, file_name=bundle.file_name, files=bundle.files)


def _start(request: StartRequest) -> execution_pb2.StartExecutionRequest:
    return execution_pb2.StartExecutionRequest(
        request_id=_request_id(),
        workflow=request.workflow,
        version=request.version,
        workspace=request.workspace,
        input=json_message(request.input),
        labels=request.labels,
        runtime=request.runtime,
        idempotency_key=request.idempotency_key,
        timeout=_duration(request.timeout),
    )


def _query(query: ExecutionQuery) -> execution_pb2.ListExecutionsRequest:
    enum = execution_pb2.ExecutionStatus
    status = None if query.status is None else enum.ValueType(enum_number(enum.DESCRIPTOR, query.status.value))
    return execution_pb2.ListExecutionsRequest(
        workspace=query.workspace,
        workflow=query.workflow,
        status=status,
        since=_timestamp(query.since),
        until=_timestamp(query.until),
        unfinished=query.unfinished,
        labels=dict(query.labels),
        search=query.search,
        failed_step=query.failed_step,
        limit=query.limit,
        cursor=query.cursor,
    )


def _duration(span: timedelta | None) -> Duration | None:
    return None if span is None else duration(span)


def _timestamp(at: datetime | None) -> Timestamp | None:
    return None if at is None else timestamp(at)


def _next(response: Any) -> str | None:
    return response.next if response.HasField("next") else None


def _watched(message: execution_pb2.WatchExecutionResponse) -> WatchEvent:
    body = json_value(message.body)
    return WatchEvent(
        kind=enum_word(execution_pb2.WatchKind.DESCRIPTOR, message.kind) or "unknown",
        at=moment(message.at),
        body=dict(body) if isinstance(body, dict) else {},
        seq=message.seq if message.HasField("seq") else None,
    )
