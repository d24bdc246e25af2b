"""Definitions over gRPC."""

from flexcore.api.grpc.context import Context
from flexcore.api.grpc.received import DEFAULT_WORKSPACE, bundle_in, optional
from flexcore.api.v1 import workflow_pb2 as pb
from flexcore.api.v1.workflow_pb2_grpc import WorkflowServiceServicer
from flexcore.common.documents import fill
from flexcore.common.errors import diagnostic_message
from flexcore.model.requests import ControlPlaneApi


class WorkflowEntrance(WorkflowServiceServicer):
    """Translates; every method makes one call."""

    def __init__(self, control_plane: ControlPlaneApi) -> None:
        self._control_plane = control_plane

    async def ValidateWorkflow(
        self, request: pb.ValidateWorkflowRequest, context: Context
    ) -> pb.ValidateWorkflowResponse:
        """Check a workflow."""
        problems = await self._control_plane.validate(bundle_in(request.bundle))
        return pb.ValidateWorkflowResponse(diagnostics=[diagnostic_message(each) for each in problems])

    async def DeployWorkflow(self, request: pb.DeployWorkflowRequest, context: Context) -> pb.DeployWorkflowResponse:
        """Store a version."""
        workspace = request.workspace or DEFAULT_WORKSPACE
        document = await self._control_plane.deploy(bundle_in(request.bundle), workspace)
        response = pb.DeployWorkflowResponse()
        fill(response.workflow, document)
        return response

    async def DiffWorkflow(self, request: pb.DiffWorkflowRequest, context: Context) -> pb.DiffWorkflowResponse:
        """Say what deploying would change."""
        workspace = request.workspace or DEFAULT_WORKSPACE
        response = pb.DiffWorkflowResponse()
        fill(response.difference, await self._control_plane.diff(bundle_in(request.bundle), workspace))
        return response

    async def PlanWorkflow(self, request: pb.PlanWorkflowRequest, context: Context) -> pb.PlanWorkflowResponse:
        """Say where each step would go."""
        version, runtime = optional(request, "version"), optional(request, "runtime")
        workspace = request.workspace or DEFAULT_WORKSPACE
        document = await self._control_plane.plan(request.workflow, version, runtime, workspace)
        response = pb.PlanWorkflowResponse()
        fill(response.plan, document)
        return response

    async def ListWorkflows(self, request: pb.ListWorkflowsRequest, context: Context) -> pb.ListWorkflowsResponse:
        """List definitions."""
        workspace = request.workspace or DEFAULT_WORKSPACE
        documents = await self._control_plane.workflows(workspace, optional(request, "runtime"))
        response = pb.ListWorkflowsResponse()
        for each in documents:
            fill(response.workflows.add(), each)
        return response

    async def GetWorkflow(self, request: pb.GetWorkflowRequest, context: Context) -> pb.GetWorkflowResponse:
        """Give a definition."""
        workspace = request.workspace or DEFAULT_WORKSPACE
        document = await self._control_plane.workflow(request.name, optional(request, "version"), workspace)
        response = pb.GetWorkflowResponse()
        fill(response.workflow, document)
        return response

    async def PinWorkflow(self, request: pb.PinWorkflowRequest, context: Context) -> pb.PinWorkflowResponse:
        """Have new executions take one version."""
        workspace = request.workspace or DEFAULT_WORKSPACE
        response = pb.PinWorkflowResponse()
        fill(response.standing, await self._control_plane.pin(request.name, request.version, workspace))
        return response

    async def UnpinWorkflow(self, request: pb.UnpinWorkflowRequest, context: Context) -> pb.UnpinWorkflowResponse:
        """Have new executions take the current version again."""
        response = pb.UnpinWorkflowResponse()
        workspace = request.workspace or DEFAULT_WORKSPACE
        fill(response.standing, await self._control_plane.unpin(request.name, workspace))
        return response

    async def RollbackWorkflow(
        self, request: pb.RollbackWorkflowRequest, context: Context
    ) -> pb.RollbackWorkflowResponse:
        """Make an older version the current one."""
        workspace, version = request.workspace or DEFAULT_WORKSPACE, optional(request, "version")
        response = pb.RollbackWorkflowResponse()
        fill(response.standing, await self._control_plane.rollback(request.name, version, workspace))
        return response

    async def DeleteWorkflow(self, request: pb.DeleteWorkflowRequest, context: Context) -> pb.DeleteWorkflowResponse:
        """Take a definition out of the list."""
        await self._control_plane.delete_workflow(request.name, request.workspace or DEFAULT_WORKSPACE)
        return pb.DeleteWorkflowResponse()
