"""What happens around every gRPC call: first the token, then, when the method raises, the translation of the error.

One of the places where anything may be caught: what is no error of ours is a bug, logged here and told to the caller
without its text, which may hold anything.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, NoReturn, TypeAlias

import grpc
import grpc.aio
import structlog

from flexcore.api.errors import statuses
from flexcore.api.grpc.context import Context
from flexcore.api.permissions import Permission
from flexcore.common.errors import ERROR_KEY, error_message
from flexcore.model.errors import FlexCoreError, InternalError, Unauthenticated
from flexcore.security.authn import TokenVerifier

_LOG = structlog.get_logger(__name__)
_DETAILS_LIMIT = 1000  # characters; the whole is in the metadata

# gRPC's handlers are generic for type checkers only, hence the quotes.
MethodHandler: TypeAlias = "grpc.RpcMethodHandler[Any, Any]"
Continuation: TypeAlias = "Callable[[grpc.HandlerCallDetails], Awaitable[MethodHandler | None]]"


class TokenInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call pass that bears the token; only methods declared open need none."""

    def __init__(self, verifier: TokenVerifier, methods: Mapping[str, Permission]) -> None:
        self._verifier = verifier
        self._methods = methods

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Decide before the request is even read."""
        method, metadata = handler_call_details.method, handler_call_details.invocation_metadata
        if self._methods.get(method) is Permission.OPEN or self._accepts(metadata):
            return await continuation(handler_call_details)
        return grpc.stream_stream_rpc_method_handler(_deny)

    def _accepts(self, metadata: Any) -> bool:
        values = [value for key, value in metadata or () if key == "authorization"]
        return len(values) == 1 and isinstance(values[0], str) and self._verifier.accepts_authorization(values[0])


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Turns what a method raises into a status, with the whole error in the trailing metadata."""

    async def intercept_service(
        self, continuation: Continuation, handler_call_details: grpc.HandlerCallDetails
    ) -> "MethodHandler | None":
        """Wrap unary calls and answer streams, which are all that our services have."""
        plain = await continuation(handler_call_details)
        handler: Any = plain  # its attributes are not in the type
        if plain is None or handler.request_streaming:
            return plain  # a method that is not there is gRPC's to refuse
        method = handler_call_details.method
        if handler.response_streaming:
            wrapped = _guard_stream(handler.unary_stream, method)
            return grpc.unary_stream_rpc_method_handler(
                wrapped, handler.request_deserializer, handler.response_serializer
            )
        return grpc.unary_unary_rpc_method_handler(
            _guard_call(handler.unary_unary, method), handler.request_deserializer, handler.response_serializer
        )


async def refuse(context: Context, error: FlexCoreError, request_id: str = "") -> NoReturn:
    """End a call with an error."""
    carried = error_message(error, request_id).SerializeToString()
    status = grpc.StatusCode[statuses(error).grpc]
    await context.abort(status, error.message[:_DETAILS_LIMIT], trailing_metadata=((ERROR_KEY, carried),))


async def _deny(requests: AsyncIterator[bytes], context: Context) -> None:
    hint = "send the metadata `authorization: Bearer TOKEN`; clients of ours read FLEXCORE_TOKEN"
    await refuse(context, Unauthenticated("a valid token is needed", hint=hint))


def _guard_call(
    method: Callable[[Any, Context], Awaitable[Any]], name: str
) -> Callable[[Any, Context], Awaitable[Any]]:
    async def guarded(request: Any, context: Context) -> Any:
        try:
            return await method(request, context)
        except FlexCoreError as error:
            await refuse(context, error, _request_id(request))
        except grpc.aio.AbortError:
            raise
        except Exception:  # the shell of a request
            await refuse(context, _bug(name), _request_id(request))

    return guarded


def _guard_stream(
    method: Callable[[Any, Context], AsyncIterator[Any]], name: str
) -> Callable[[Any, Context], AsyncIterator[Any]]:
    async def guarded(request: Any, context: Context) -> AsyncIterator[Any]:
        try:
            async for each in method(request, context):
                yield each
        except FlexCoreError as error:
            await refuse(context, error, _request_id(request))
        except grpc.aio.AbortError:
            raise
        except Exception:  # the shell of a request
            await refuse(context, _bug(name), _request_id(request))

    return guarded


def _bug(method: str) -> InternalError:
    _LOG.exception("request.crashed", entrance="grpc", method=method)
    return InternalError("an internal error", hint="the server's log has the particulars")


def _request_id(request: Any) -> str:
    return str(getattr(request, "request_id", ""))
