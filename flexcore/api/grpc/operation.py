"""Looking after an installation over gRPC."""

from flexcore.api.grpc.context import Context
from flexcore.api.grpc.received import DEFAULT_WORKSPACE, kinds_in, limit_in, moment_in, optional, span_in
from flexcore.api.v1 import operation_pb2 as pb
from flexcore.api.v1.operation_pb2_grpc import OperationServiceServicer
from flexcore.common.documents import fill
from flexcore.model.requests import AuditQuery, CollectRequest, ControlPlaneApi

_DEFAULT_LIMIT = 50


class OperationEntrance(OperationServiceServicer):
    """Translates; every method makes one call."""

    def __init__(self, control_plane: ControlPlaneApi) -> None:
        self._control_plane = control_plane

    async def Collect(self, request: pb.CollectRequest, context: Context) -> pb.CollectResponse:
        """Remove what is old."""
        wanted = CollectRequest(
            kinds=kinds_in(request.kinds), older_than=span_in(request, "older_than"), dry_run=request.dry_run
        )
        response = pb.CollectResponse()
        fill(response.collection, await self._control_plane.collect(wanted))
        return response

    async def ListAudit(self, request: pb.ListAuditRequest, context: Context) -> pb.ListAuditResponse:
        """Say who changed what."""
        query = AuditQuery(
            workspace=request.workspace or DEFAULT_WORKSPACE,
            since=moment_in(request, "since"),
            actor=optional(request, "actor"),
            subject=optional(request, "subject"),
            limit=limit_in(request.limit, _DEFAULT_LIMIT),
            cursor=optional(request, "cursor"),
        )
        page = await self._control_plane.audit(query)
        response = pb.ListAuditResponse(next=page.next)
        for each in page.items:
            fill(response.lines.add(), each)
        return response
