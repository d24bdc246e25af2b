"""The gRPC server: our services, health and reflection, behind the token."""

import asyncio
from collections.abc import Callable, Iterator

import grpc.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2_grpc  # type: ignore[import-untyped]  # ships no types
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]  # ships no types

from flexcore.api.grpc.executions import ExecutionEntrance
from flexcore.api.grpc.health import HealthEntrance
from flexcore.api.grpc.interceptors import ErrorInterceptor, TokenInterceptor
from flexcore.api.grpc.methods import METHODS, SERVICES
from flexcore.api.grpc.operation import OperationEntrance
from flexcore.api.grpc.runtimes import RuntimeEntrance
from flexcore.api.grpc.workflows import WorkflowEntrance
from flexcore.api.permissions import require_declared
from flexcore.api.v1.execution_pb2_grpc import add_ExecutionServiceServicer_to_server
from flexcore.api.v1.operation_pb2_grpc import add_OperationServiceServicer_to_server
from flexcore.api.v1.runtime_pb2_grpc import add_RuntimeServiceServicer_to_server
from flexcore.api.v1.workflow_pb2_grpc import add_WorkflowServiceServicer_to_server
from flexcore.common.errors import METADATA_LIMIT_BYTES
from flexcore.model.requests import ControlPlaneApi
from flexcore.security.authn import TokenVerifier


def build_grpc_server(
    control_plane: ControlPlaneApi,
    verifier: TokenVerifier,
    ready: Callable[[], tuple[bool, str]],
    stopping: asyncio.Event,
    message_limit_bytes: int,
) -> grpc.aio.Server:
    """Build the server, with no port yet. Raises InternalError when a method declares no permission."""
    require_declared(_served(), METHODS)
    options = [
        ("grpc.max_receive_message_length", message_limit_bytes),
        ("grpc.max_send_message_length", -1),
        ("grpc.max_metadata_size", METADATA_LIMIT_BYTES),
        ("grpc.so_reuseport", 0),  # else a second server on the same port would start and share its calls
        ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
        ("grpc.http2.min_recv_ping_interval_without_data_ms", 10_000),
    ]
    interceptors = [TokenInterceptor(verifier, METHODS), ErrorInterceptor()]
    server = grpc.aio.server(interceptors=interceptors, options=options)
    add_WorkflowServiceServicer_to_server(WorkflowEntrance(control_plane), server)
    add_ExecutionServiceServicer_to_server(ExecutionEntrance(control_plane, stopping), server)
    add_RuntimeServiceServicer_to_server(RuntimeEntrance(control_plane), server)
    add_OperationServiceServicer_to_server(OperationEntrance(control_plane), server)
    health_pb2_grpc.add_HealthServicer_to_server(HealthEntrance(SERVICES, ready, stopping), server)
    reflection.enable_server_reflection(list(SERVICES), server)
    return server


def _served() -> Iterator[str]:
    pool = descriptor_pool.Default()
    for service in SERVICES:
        for method in pool.FindServiceByName(service).methods:
            yield f"/{service}/{method.name}"
