"""Every gRPC method that is served and the permission that it needs."""

from collections.abc import Mapping

from flexcore.api.permissions import Permission

_WORKFLOWS: Mapping[str, Permission] = {
    "ValidateWorkflow": Permission.WORKFLOW_READ,
    "DeployWorkflow": Permission.WORKFLOW_WRITE,
    "DiffWorkflow": Permission.WORKFLOW_READ,
    "PlanWorkflow": Permission.WORKFLOW_READ,
    "ListWorkflows": Permission.WORKFLOW_READ,
    "GetWorkflow": Permission.WORKFLOW_READ,
    "PinWorkflow": Permission.WORKFLOW_WRITE,
    "UnpinWorkflow": Permission.WORKFLOW_WRITE,
    "RollbackWorkflow": Permission.WORKFLOW_WRITE,
    "DeleteWorkflow": Permission.WORKFLOW_WRITE,
}
_EXECUTIONS: Mapping[str, Permission] = {
    "StartExecution": Permission.EXECUTION_START,
    "GetExecution": Permission.EXECUTION_READ,
    "ListExecutions": Permission.EXECUTION_READ,
    "ListHistory": Permission.EXECUTION_READ,
    "WatchExecution": Permission.EXECUTION_READ,
    "ReadLogs": Permission.EXECUTION_READ,
    "CancelExecution": Permission.EXECUTION_CONTROL,
    "RetryExecution": Permission.EXECUTION_START,
    "ResumeExecutions": Permission.EXECUTION_CONTROL,
    "ExplainStep": Permission.EXECUTION_READ,
}
_RUNTIMES: Mapping[str, Permission] = {
    "ListRuntimes": Permission.RUNTIME_READ,
    "GetRuntime": Permission.RUNTIME_READ,
    "ExecuteTask": Permission.EXECUTION_START,
    "CleanUpRuntime": Permission.EXECUTION_CONTROL,
}
_OPERATION: Mapping[str, Permission] = {
    "Collect": Permission.STORE_WRITE,
    "ListAudit": Permission.AUDIT_READ,
}
_HEALTH: Mapping[str, Permission] = {"Check": Permission.OPEN, "Watch": Permission.OPEN, "List": Permission.OPEN}
_REFLECTION: Mapping[str, Permission] = {"ServerReflectionInfo": Permission.SERVER_READ}

SERVICES: Mapping[str, Mapping[str, Permission]] = {
    "flexcore.api.v1.WorkflowService": _WORKFLOWS,
    "flexcore.api.v1.ExecutionService": _EXECUTIONS,
    "flexcore.api.v1.RuntimeService": _RUNTIMES,
    "flexcore.api.v1.OperationService": _OPERATION,
    "grpc.health.v1.Health": _HEALTH,
    "grpc.reflection.v1alpha.ServerReflection": _REFLECTION,
}
METHODS: Mapping[str, Permission] = {
    f"/{service}/{method}": permission
    for service, methods in SERVICES.items()
    for method, permission in methods.items()
}
