"""The type of what gRPC hands to every method beside the request. Ours read nothing from it."""

from typing import Any, TypeAlias

import grpc.aio

# The request's and the answer's types are the servicer's business; the context is used for neither.
Context: TypeAlias = grpc.aio.ServicerContext[Any, Any]
