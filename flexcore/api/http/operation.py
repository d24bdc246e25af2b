"""Is it alive, is it ready, what does it count, what can be asked."""

from fastapi import Request, Response

from flexcore.api.http.endpoints import answer

_METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_TOKEN_SCHEME = {"token": {"type": "http", "scheme": "bearer"}}
_RETRY_AFTER = {"Retry-After": "1"}


async def healthz() -> Response:
    """Say that the process answers."""
    return answer({"status": "alive"})


async def readyz(request: Request) -> Response:
    """Say whether store and engine work; 503 and what is wrong when not."""
    ready, detail = request.app.state.ready()
    response = answer({"status": "ready" if ready else "unavailable", "detail": detail}, 200 if ready else 503)
    if not ready:
        response.headers.update(_RETRY_AFTER)
    return response


async def metrics(request: Request) -> Response:
    """Give the counters, in the text format that Prometheus reads."""
    return Response(request.app.state.metrics(), media_type=_METRICS_TYPE)


async def openapi(request: Request) -> Response:
    """Describe every route."""
    document = request.app.openapi()
    document.setdefault("components", {})["securitySchemes"] = _TOKEN_SCHEME
    return answer(document)
