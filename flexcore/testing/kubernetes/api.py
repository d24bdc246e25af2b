"""The API server over HTTP: paths, accounts, and what each verb does."""

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from flexcore.testing.kubernetes.admission import Access, Account, admit, permit
from flexcore.testing.kubernetes.deletion import KEPT_CHILDREN, delete
from flexcore.testing.kubernetes.discovery import discover
from flexcore.testing.kubernetes.lists import Lists
from flexcore.testing.kubernetes.patches import patched
from flexcore.testing.kubernetes.pod_api import PodApi
from flexcore.testing.kubernetes.refusal import Refusal, already_exists, bad_request, conflict, not_found
from flexcore.testing.kubernetes.resources import (
    JOBS,
    NAMESPACES,
    SERVICE_ACCOUNTS,
    Item,
    Resource,
    find,
    is_going,
)
from flexcore.testing.kubernetes.selectors import selector
from flexcore.testing.kubernetes.store import Store, completed
from flexcore.testing.kubernetes.validation import unknown_fields, validate, with_defaults, without

_OURS = ("uid", "resourceVersion", "creationTimestamp", "generation", "deletionTimestamp", "managedFields")
_KEPT = ("name", "namespace", "uid", "creationTimestamp", "resourceVersion")  # whatever a replacement says
_LARGEST = 3 * 1024 * 1024
_LARGEST_STORED = 1536 * 1024


@dataclass(frozen=True, slots=True)
class Target:
    """What a path means."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""
    rest: str = ""


@dataclass
class Fault:
    """A request to go wrong: with this status, or its answer lost after it was done."""

    verb: str
    resource: str
    times: int = 1
    code: int = 0
    message: str = "the server is currently unable to handle the request"
    is_answer_lost: bool = False


@dataclass
class Api:
    """Answers requests. `accounts` maps bearer tokens."""

    store: Store
    lists: Lists
    pods: PodApi
    accounts: dict[str, Account]
    faults: list[Fault] = field(default_factory=list)

    async def answer(self, request: Request) -> Response:
        """Answer one request; a refusal becomes a `Status`."""
        try:
            account = self._account(request)
            if request.url.path.endswith("selfsubjectaccessreviews"):
                return JSONResponse(_review(account, await _body(request)), 201)
            if (found := discover(request.url.path)) is not None:
                return JSONResponse(found)
            target = _target(request.url.path)
            return await self._serve(request, target, account)
        except Refusal as refusal:
            return JSONResponse(refusal.status(), refusal.code, refusal.headers)
        except ClientDisconnect:
            return Response(status_code=499)  # nobody reads it

    async def _serve(self, request: Request, target: Target, account: Account) -> Response:
        verb = _verb(request, target)
        name = target.name if verb not in ("list", "watch", "deletecollection", "create") or target.subresource else ""
        access = Access(verb, target.resource, target.namespace, target.subresource)
        permit(account, access, name)
        fault = self._fault(verb, access.what)
        if fault is not None and not fault.is_answer_lost:
            refusal = Refusal(fault.code, _REASONS.get(fault.code, "InternalError"), fault.message)
            refusal.headers = {"Retry-After": "1"} if fault.code in (429, 503) else {}
            raise refusal
        if target.resource.plural == "pods" and target.subresource in ("log", "proxy", "eviction"):
            return await self.pods.answer(request, target.namespace, target.name, target.subresource, target.rest)
        answer = await self._verbs()[verb](request, target)
        if fault is not None:
            return _LostAnswer()
        return answer

    def _verbs(self) -> Mapping[str, Callable[[Request, Target], Awaitable[Response]]]:
        return {
            "get": self._get,
            "list": self._list,
            "watch": self._watch,
            "create": self._create,
            "update": self._update,
            "patch": self._patch,
            "delete": self._delete,
            "deletecollection": self._delete_all,
        }

    async def _get(self, request: Request, target: Target) -> Response:
        return JSONResponse(self.store.get(target.resource, target.namespace, target.name))

    async def _list(self, request: Request, target: Target) -> Response:
        return JSONResponse(await self.lists.list(target.resource, target.namespace, request.query_params))

    async def _watch(self, request: Request, target: Target) -> Response:
        params = dict(request.query_params)
        if target.name:
            params["fieldSelector"] = f"metadata.name={target.name}"
        return self.lists.watch(target.resource, target.namespace, params)

    async def _create(self, request: Request, target: Target) -> Response:
        item, headers = self._understood(target.resource, await _body(request), request.query_params)
        made = self._make(target, item, is_dry="dryRun" in request.query_params)
        return JSONResponse(made, 201, headers)

    def _make(self, target: Target, item: Item, *, is_dry: bool) -> Item:
        resource = target.resource
        _check_namespace(target, item)
        given = {key: value for key, value in item.get("metadata", {}).items() if key not in _OURS}
        complete = with_defaults(resource, {**item, "metadata": given}, target.namespace)
        name = complete["metadata"].get("name")
        if not name:
            raise Refusal(
                422,
                "Invalid",
                f'{resource.kind} "" is invalid: metadata.name: Required value: name or generateName is required',
            )
        if resource.namespaced and self.store.find(NAMESPACES, "", target.namespace) is None:
            raise not_found(NAMESPACES, target.namespace)
        validate(resource, complete)
        if there := self.store.find(resource, target.namespace, name):
            raise already_exists(resource, name, is_going=is_going(there))
        admit(self.store, resource, complete)
        if is_dry:
            return completed(resource, complete)
        made = self.store.add(resource, complete)
        if resource == NAMESPACES:
            self.store.add(SERVICE_ACCOUNTS, {"metadata": {"name": "default", "namespace": name}})
        return made

    def _understood(self, resource: Resource, item: Item, params: Mapping[str, str]) -> tuple[Item, dict[str, str]]:
        """Drop unknown fields with a warning, or refuse them where the request is strict."""
        unknown = unknown_fields(resource, item)
        mode = params.get("fieldValidation", "Warn")
        if unknown and mode == "Strict":
            listed = ", ".join(f'unknown field "{each}"' for each in unknown)
            what = f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}'
            raise bad_request(f"{what}: strict decoding error: {listed}")
        if not unknown:
            return item, {}
        warnings = ", ".join(f'299 - "unknown field \\"{each}\\""' for each in unknown)
        return without(item, unknown), {} if mode == "Ignore" else {"Warning": warnings}

    async def _update(self, request: Request, target: Target) -> Response:
        wanted = await _body(request)
        _check_namespace(target, wanted)
        if (name := wanted.get("metadata", {}).get("name")) != target.name:
            raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
        self._match(target, wanted)

        def edit(item: Item) -> None:
            if target.subresource == "status":
                item["status"] = wanted.get("status", {})
                return
            kept = {key: item["metadata"][key] for key in _KEPT if key in item["metadata"]}
            metadata = {**wanted["metadata"], **kept}
            status = item.get("status")
            item.clear()
            item.update({**wanted, "metadata": metadata})
            if status is not None:
                item["status"] = status

        return self._changed(request, target, edit)

    async def _patch(self, request: Request, target: Target) -> Response:
        kind = request.headers.get("content-type", "").partition(";")[0]
        patch = await _body(request)
        is_apply = kind == "application/apply-patch+yaml"
        if is_apply and self.store.find(target.resource, target.namespace, target.name) is None:
            item, headers = self._understood(target.resource, patch, request.query_params)
            return JSONResponse(self._make(target, item, is_dry="dryRun" in request.query_params), 201, headers)
        if isinstance(patch, dict):
            self._match(target, patch)

        def edit(item: Item) -> None:
            result = patched(item, patch, kind)
            result["metadata"]["uid"] = item["metadata"]["uid"]
            item.clear()
            item.update(result)

        return self._changed(request, target, edit)

    def _changed(self, request: Request, target: Target, edit: Callable[[Item], None]) -> Response:
        before = self.store.get(target.resource, target.namespace, target.name)
        trial = json.loads(json.dumps(before))
        edit(trial)
        validate(target.resource, trial)
        if target.resource == JOBS and trial["spec"].get("template") != before["spec"].get("template"):
            message = "field is immutable"
            raise Refusal(
                422, "Invalid", f'Job.batch "{target.name}" is invalid: spec.template: Invalid value: {message}'
            )
        if "dryRun" in request.query_params:
            return JSONResponse(trial)
        return JSONResponse(self.store.change(target.resource, target.namespace, target.name, edit))

    def _match(self, target: Target, wanted: Item) -> None:
        version = (wanted.get("metadata") or {}).get("resourceVersion")
        found = self.store.get(target.resource, target.namespace, target.name)
        if version not in (None, "", found["metadata"]["resourceVersion"]):
            message = "the object has been modified; please apply your changes to the latest version and try again"
            raise conflict(target.resource, target.name, message)

    async def _delete(self, request: Request, target: Target) -> Response:
        options = {**_options(request), **await _body(request)}
        item = self.store.get(target.resource, target.namespace, target.name)
        if "dryRun" in options:
            return JSONResponse(_gone(target.resource, item))
        left = delete(self.store, target.resource, item, options)
        has_chosen = options.get("propagationPolicy") or options.get("orphanDependents") is not None
        headers = {} if target.resource != JOBS or has_chosen else {"Warning": f'299 - "{KEPT_CHILDREN}"'}
        return JSONResponse(_gone(target.resource, item) if left is None else left, 200, headers)

    async def _delete_all(self, request: Request, target: Target) -> Response:
        params = request.query_params
        wanted = selector(target.resource, params.get("labelSelector", ""), params.get("fieldSelector", ""))
        options = {**_options(request), **await _body(request)}
        found = [each for each in self.store.items(target.resource, target.namespace) if wanted(each)]
        for item in found:
            delete(self.store, target.resource, item, options)
        listed = {"kind": f"{target.resource.kind}List", "apiVersion": target.resource.api_version, "items": found}
        return JSONResponse({**listed, "metadata": {"resourceVersion": str(self.store.version)}})

    def _account(self, request: Request) -> Account:
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        if scheme != "Bearer" or token not in self.accounts:
            raise Refusal(401, "Unauthorized", "Unauthorized")
        return self.accounts[token]

    def _fault(self, verb: str, what: str) -> Fault | None:
        for fault in self.faults:
            if fault.verb in ("*", verb) and fault.resource in ("*", what) and fault.times > 0:
                fault.times -= 1
                return fault
        return None


class _LostAnswer(Response):
    """An answer that breaks off before it says anything: the server closes the connection when it sees that."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"1")]})


_REASONS = {429: "TooManyRequests", 500: "InternalError", 503: "ServiceUnavailable", 504: "Timeout"}


def _check_namespace(target: Target, item: Item) -> None:
    """An object that names no namespace is meant for that of the request."""
    wanted = item.get("metadata", {}).get("namespace")
    if target.resource.namespaced and wanted not in (None, target.namespace):
        raise bad_request("the namespace of the provided object does not match the namespace sent on the request")


def _target(path: str) -> Target:
    parts = [each for each in path.split("/") if each]
    group, parts = ("", parts[2:]) if parts[:1] == ["api"] else (parts[1] if len(parts) > 1 else "", parts[3:])
    namespace = ""
    if len(parts) > 2 and parts[0] == "namespaces":
        namespace, parts = parts[1], parts[2:]
    resource = find(group, parts[0]) if parts else None
    if resource is None or path.startswith("/apis/") == (group == ""):
        raise Refusal(404, "NotFound", "the server could not find the requested resource", {})
    name, _, _port = (parts[1] if len(parts) > 1 else "").partition(":")
    subresource = parts[2] if len(parts) > 2 else ""
    full_name = parts[1] if subresource == "proxy" else name
    return Target(resource, namespace, full_name, subresource, "/".join(parts[3:]))


def _verb(request: Request, target: Target) -> str:
    match request.method:
        case "GET" if target.name and request.query_params.get("watch") not in ("true", "1"):
            return "get"
        case "GET":
            return "watch" if request.query_params.get("watch") in ("true", "1") else "list"
        case "POST":
            return "create"
        case "PUT":
            return "update"
        case "PATCH":
            return "patch"
        case "DELETE":
            return "delete" if target.name else "deletecollection"
        case _:
            raise Refusal(
                405, "MethodNotAllowed", "the server does not allow this method on the requested resource", {}
            )


async def _body(request: Request) -> Any:
    raw = await request.body()
    if len(raw) > _LARGEST:
        message = "Request entity too large: limit is 3145728"
        raise Refusal(413, "RequestEntityTooLarge", message)
    if len(raw) > _LARGEST_STORED:
        raise Refusal(422, "Invalid", "etcdserver: request is too large")
    if not raw:
        return {}
    try:
        return json.loads(raw)
    except ValueError as error:
        raise bad_request(f"the object provided is unrecognized: {error}") from error


def _options(request: Request) -> dict[str, Any]:
    params = dict(request.query_params)
    if "gracePeriodSeconds" in params:
        return {**params, "gracePeriodSeconds": int(params["gracePeriodSeconds"])}
    return params


def _gone(resource: Resource, item: Item) -> Item:
    about = {"name": item["metadata"]["name"], "kind": resource.plural, "uid": item["metadata"]["uid"]}
    if resource.group:
        about["group"] = resource.group
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": about}


def _review(account: Account, body: Item) -> Item:
    asked = (body.get("spec") or {}).get("resourceAttributes") or {}
    what = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
    what += f".{asked['group']}" if asked.get("group") else ""
    allowed = account.may(asked.get("verb", ""), what)
    status: Item = {"allowed": allowed}
    if allowed:
        status["reason"] = f'RBAC: allowed by RoleBinding "work" of Role "work" to "{account.user}"'
    return {**body, "metadata": {}, "status": status}
