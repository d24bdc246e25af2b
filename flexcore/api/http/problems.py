"""Errors as HTTP says them: RFC 9457 problem documents, every one of them made here."""

import json
import math
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from flexcore.api.errors import diagnostics_of, http_status
from flexcore.model.errors import (
    Diagnostic,
    FlexCoreError,
    InternalError,
    InvalidInput,
    LimitExceeded,
    NoFeasibleRuntime,
    Unavailable,
)

_LOG = structlog.get_logger(__name__)
_TYPE = "application/problem+json"
_RETRY_AFTER_S = 1.0


def problem(error: FlexCoreError) -> Response:
    """Answer with an error of ours."""
    status = http_status(error)
    document = _document(status, error.code, error.message, error.hint)
    if diagnostics := diagnostics_of(error):
        document["errors"] = [diagnostic_document(each) for each in diagnostics]
    if isinstance(error, NoFeasibleRuntime):
        document["reasons"] = error.reasons
    return _response(status, document, _headers(error, status))


def diagnostic_document(diagnostic: Diagnostic) -> dict[str, Any]:
    """Write one problem with its place."""
    return {
        "path": diagnostic.path,
        "file": diagnostic.file,
        "line": diagnostic.line,
        "column": diagnostic.column,
        "message": diagnostic.message,
        "code": diagnostic.code,
        "hint": diagnostic.hint,
    }


def add_problems(app: FastAPI) -> None:
    """Have every way in which a request can fail answered with a problem document."""

    async def on_error(request: Request, error: Exception) -> Response:
        return problem(_ours(error))

    async def on_http(request: Request, error: Exception) -> Response:
        return _routing_problem(error)

    async def on_bug(request: Request, error: Exception) -> Response:
        _LOG.error("request.crashed", entrance="http", method=request.method, exc_info=error)
        return problem(InternalError("an internal error", hint="the server's log has the particulars"))

    app.add_exception_handler(FlexCoreError, on_error)
    app.add_exception_handler(RequestValidationError, on_error)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(Exception, on_bug)


def refused_input(error: RequestValidationError | Any) -> InvalidInput:
    """Turn what pydantic found into one problem per place."""
    diagnostics = [
        Diagnostic(file="", line=0, column=0, message=each["msg"], code=each["type"], path=_place(each["loc"]))
        for each in error.errors()
    ]
    listed = "; ".join(f"{each.path}: {each.message}" for each in diagnostics)
    return InvalidInput(f"the request is not as it should be: {listed}", diagnostics=diagnostics)


def _ours(error: Exception) -> FlexCoreError:
    return error if isinstance(error, FlexCoreError) else refused_input(error)


def _place(location: tuple[int | str, ...]) -> str:
    return ".".join(str(each) for each in location)


def _routing_problem(error: Any) -> Response:
    status = HTTPStatus(error.status_code)
    code = status.name.lower()
    hint = "GET /openapi.json lists what there is" if status is HTTPStatus.NOT_FOUND else ""
    return _response(status, _document(status, code, status.description or status.phrase, hint), error.headers or {})


def _document(status: int, code: str, detail: str, hint: str) -> dict[str, Any]:
    kind, title = f"urn:flexcore:error:{code}", HTTPStatus(status).phrase
    return {"type": kind, "title": title, "status": int(status), "detail": detail, "code": code, "hint": hint}


def _headers(error: FlexCoreError, status: int) -> dict[str, str]:
    if status == HTTPStatus.UNAUTHORIZED:
        return {"WWW-Authenticate": 'Bearer realm="flexcore"'}
    wait = error.retry_after if isinstance(error, LimitExceeded) else None
    if isinstance(error, Unavailable):
        wait = _RETRY_AFTER_S
    return {} if wait is None else {"Retry-After": str(math.ceil(wait))}


def _response(status: int, document: Mapping[str, Any], headers: Mapping[str, str]) -> Response:
    return Response(json.dumps(document), status_code=status, headers=dict(headers), media_type=_TYPE)
