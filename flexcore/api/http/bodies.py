"""Reading bodies: strict JSON into strict models, uploads in either form, spans of time.

JSON that is none is 400; fields that nobody knows, or of the wrong type, are 422. Nothing is guessed.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

import yaml
from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flexcore.api.bundles import DEFAULT_FILE_NAME, uploaded_bundle
from flexcore.api.http.problems import refused_input
from flexcore.model.errors import InvalidInput, InvalidRequest
from flexcore.model.requests import Bundle
from flexcore.model.units import LONGEST

YAML_TYPES = frozenset({"application/yaml", "application/x-yaml", "text/yaml", "text/x-yaml"})

_SPAN = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)(ms|s|m|h|d)?")
_HALF_CHARACTER = re.compile(rb"\\u[dD][89a-fA-F]")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

Model = TypeVar("Model", bound=BaseModel)
Span = Annotated[str, Field(pattern=rf"^{_SPAN.pattern}$", description="A span of time: 30s, 5m, 1.5h")]


class Body(BaseModel):
    """What every body has in common: unknown fields are refused, types are not bent."""

    model_config = ConfigDict(extra="forbid", strict=True)


class UploadBody(Body):
    """A workflow file and the files that belong to it, each as base64 under its relative path."""

    text: str
    file_name: str = DEFAULT_FILE_NAME
    files: dict[str, str] = {}


class PlanBody(Body):
    """Which workflow to plan."""

    workflow: str
    version: str | None = None
    runtime: str | None = None


class VersionBody(Body):
    """Which version."""

    version: str


class RollbackBody(Body):
    """To which version; without one, to the one before."""

    version: str | None = None


class CollectBody(Body):
    """What to remove."""

    kinds: list[Literal["executions", "versions", "cache", "keys", "logs", "artifacts", "audit"]] = []
    older_than: Span | None = None
    dry_run: bool = False


class CleanUpBody(Body):
    """Whether only to look."""

    dry_run: bool = False


class StartBody(Body):
    """How to start an execution."""

    input: Any = None
    version: str | None = None
    labels: dict[str, str] = {}
    runtime: str | None = None
    timeout: Span | None = None


class TaskBody(Body):
    """One task: its kind and the step's `with`."""

    type: str
    parameters: dict[str, Any] = Field(default={}, alias="with")
    timeout: Span | None = None


class CancelBody(Body):
    """Why."""

    reason: str = ""


class RetryBody(Body):
    """From where, and what is not run again."""

    from_step: str | None = None
    everything: bool = False
    newest: bool = False
    results: dict[str, Any] = {}
    reason: str = ""


class ExplainBody(Body):
    """Which step of which execution."""

    execution: str
    path: str
    flips: bool = False


async def read(request: Request, model: type[Model]) -> Model:
    """Read a JSON body; none at all is an empty object."""
    raw = await request.body()
    try:
        return model.model_validate(_strict_json(raw) if raw.strip() else {})
    except ValidationError as error:
        raise refused_input(error) from error


async def read_upload(request: Request) -> Bundle:
    """Read a workflow: as JSON with its files, or just the YAML text when the content type says so."""
    if _media_type(request) in YAML_TYPES:
        return uploaded_bundle(_decoded(await request.body()), DEFAULT_FILE_NAME, {})
    body = await read(request, UploadBody)
    files = {path: _from_base64(path, text) for path, text in body.files.items()}
    return uploaded_bundle(body.text, body.file_name, files)


def require_name(bundle: Bundle, name: str) -> None:
    """Refuse an upload under another name than the file's own. A file without a name is somebody else's to refuse."""
    own = _name_in(bundle.text)
    if own is not None and own != name:
        raise InvalidInput(f"the file's name is {own!r}, not {name!r}", hint=f"PUT it to /api/v1/workflows/{own}")


def span_of(text: str) -> timedelta:
    """Read a span of time: `30s`, `500ms`, `2m`, or bare seconds."""
    match = _SPAN.fullmatch(text)
    if match is None:
        raise InvalidInput(f"not a span of time: {text!r}", hint="a number and a unit: 500ms, 30s, 5m, 1.5h")
    span = timedelta(seconds=float(match[1]) * _UNITS[match[2] or "s"])
    if span > LONGEST:
        raise InvalidInput(f"too long a span of time: {text!r}", hint=f"at most {LONGEST.days}d")
    return span


def optional_span(text: str | None) -> timedelta | None:
    """Read a span of time that may be absent."""
    return None if text is None else span_of(text)


def _strict_json(raw: bytes) -> Any:
    try:
        document = json.loads(_decoded(raw), parse_constant=_refuse_constant, object_pairs_hook=_without_repeats)
        if _HALF_CHARACTER.search(raw):
            json.dumps(document, ensure_ascii=False).encode()  # half of a pair on its own is no text
        return document
    except (ValueError, RecursionError) as error:
        raise InvalidRequest(f"the body is not JSON: {error}") from error


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _without_repeats(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key appears twice in one object")
    return found


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidRequest(f"the body is not UTF-8: {error.reason} at byte {error.start}") from error


def _from_base64(path: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise InvalidInput(f"the content of {path!r} is not base64: {error}") from error


def _media_type(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def _name_in(text: str) -> str | None:
    """Find the top-level `name` in the event stream: nothing is built, so no alias or tag can do harm."""
    depth, previous, is_key = 0, "", True
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            scalar = event.value if isinstance(event, yaml.ScalarEvent) else ""
            if depth == 1 and not is_key and previous == "name":
                return scalar or None
            if depth == 1 and not isinstance(event, yaml.CollectionEndEvent):
                previous, is_key = scalar, not is_key
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
    except yaml.YAMLError:
        return None
    return None
