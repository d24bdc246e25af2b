"""Runtimes over gRPC."""

from flexcore.api.grpc.context import Context
from flexcore.api.grpc.received import DEFAULT_WORKSPACE, object_in, span_in
from flexcore.api.v1 import runtime_pb2 as pb
from flexcore.api.v1.runtime_pb2_grpc import RuntimeServiceServicer
from flexcore.common.documents import fill
from flexcore.model.requests import ControlPlaneApi, TaskRequest


class RuntimeEntrance(RuntimeServiceServicer):
    """Translates; every method makes one call."""

    def __init__(self, control_plane: ControlPlaneApi) -> None:
        self._control_plane = control_plane

    async def ListRuntimes(self, request: pb.ListRuntimesRequest, context: Context) -> pb.ListRuntimesResponse:
        """List runtimes."""
        response = pb.ListRuntimesResponse()
        for each in await self._control_plane.runtimes():
            fill(response.runtimes.add(), each)
        return response

    async def GetRuntime(self, request: pb.GetRuntimeRequest, context: Context) -> pb.GetRuntimeResponse:
        """Give a runtime."""
        response = pb.GetRuntimeResponse()
        fill(response.runtime, await self._control_plane.runtime(request.name))
        return response

    async def ExecuteTask(self, request: pb.ExecuteTaskRequest, context: Context) -> pb.ExecuteTaskResponse:
        """Run one task."""
        task = TaskRequest(
            runtime=request.runtime,
            type=request.type,
            parameters=object_in(request.parameters),
            workspace=request.workspace or DEFAULT_WORKSPACE,
            timeout=span_in(request, "timeout"),
        )
        started = await self._control_plane.execute_task(task)
        return pb.ExecuteTaskResponse(id=started.id, existing=started.existing)

    async def CleanUpRuntime(self, request: pb.CleanUpRuntimeRequest, context: Context) -> pb.CleanUpRuntimeResponse:
        """Remove what attempts left."""
        response = pb.CleanUpRuntimeResponse()
        fill(response.sweep, await self._control_plane.cleanup_runtime(request.runtime, request.dry_run))
        return response
