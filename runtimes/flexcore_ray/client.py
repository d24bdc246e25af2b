"""The dashboard of a Ray cluster over HTTP: jobs, packages, logs, nodes. It translates, and decides nothing.

Whatever says that the cluster cannot be reached is `RuntimeUnavailable`: the outcome of work there is unknown then.
"""

import json
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Self

from flexcore.model.errors import InternalError, RuntimeUnavailable
from flexcore.model.values import JSON

if TYPE_CHECKING:
    import httpx

_READ_AGAIN_S = 0.2  # how often the node looks for more of a log that is followed
_OK, _NOT_FOUND = 200, 404
_NO_ENTRYPOINT = "Entrypoint not found."  # what Ray writes where it has only a job's name
_EVENTS, _LAST_EVENTS = "events/event_JOBS.log", 300
_REFUSED = {
    401: ("asks for a token", "set `token` or `token_file` of the runtime"),
    403: ("refuses the token", "set `token` or `token_file` of the runtime to the token of this cluster"),
}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a dashboard is: a URL, or a socket of this machine that leads to it; and the token it asks for."""

    url: str
    token: str | None = field(default=None, repr=False)
    socket: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the cluster knows of a job. `status` is PENDING, RUNNING, STOPPED, SUCCEEDED or FAILED."""

    id: str
    status: str
    message: str = ""
    error_type: str = ""
    exit_code: int | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    node: str | None = None
    entrypoint: str = ""
    ended_at: datetime | None = None  # by the clock of the cluster

    @property
    def is_trace(self) -> bool:
        """Whether it is nothing but a name that Ray wrote down again after the job was deleted: no work, no label."""
        return self.is_over and not self.metadata and self.entrypoint == _NO_ENTRYPOINT

    @property
    def is_over(self) -> bool:
        """Whether nothing of it runs any more."""
        return self.status in ("STOPPED", "SUCCEEDED", "FAILED")

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self | None:
        """Read the dashboard's document; None for what is no submitted job."""
        if not document.get("submission_id"):
            return None
        return cls(
            id=document["submission_id"],
            status=document["status"],
            message=document.get("message") or "",
            error_type=document.get("error_type") or "",
            exit_code=document.get("driver_exit_code"),
            metadata=document.get("metadata") or {},
            node=document.get("driver_node_id"),
            entrypoint=document.get("entrypoint") or "",
            ended_at=datetime.fromtimestamp(ended / 1000, UTC) if (ended := document.get("end_time")) else None,
        )


class AlreadyThere(Exception):
    """A job of this name is there already, or the answer to its submission was lost: look again."""


class Refused(Exception):
    """The cluster does not take the job as it is; the text says why."""


class Dashboard:
    """One connection pool to one dashboard."""

    def __init__(self, address: Address, timeout_s: float) -> None:
        import httpx  # here, because it takes a tenth of a second, and a local cluster may never be asked for

        self.address = address
        self.is_refused = False  # whether the token was not taken, and may have been replaced
        self._error = httpx.HTTPError
        self._timeout_s = timeout_s
        self._http = httpx.AsyncClient(
            base_url=address.url,
            headers=_headers(address.token),
            timeout=timeout_s,
            # The variables of proxies are meant for the world outside; a cluster is reached directly.
            trust_env=False,
            # Every log that is followed has a connection of its own.
            transport=httpx.AsyncHTTPTransport(uds=address.socket, limits=httpx.Limits(max_connections=None)),
        )

    def renew(self, token: str | None) -> None:
        """Ask with another token from now on, whoever has this dashboard."""
        self.address = replace(self.address, token=token)
        self.is_refused = False
        self._http.headers.update(_headers(token))

    async def version(self) -> Mapping[str, str]:
        """Say `ray_version`, `version` (of the API) and `session_name`, which is new after each start."""
        found: Mapping[str, str] = _document(await self._ask("GET", "/api/version"))
        return found

    async def status(self) -> Mapping[str, Any]:
        """Give the cluster's own report, in which the autoscaler has its say."""
        found: Mapping[str, Any] = _document(await self._ask("GET", "/api/cluster_status"))["data"]
        return found

    async def nodes(self) -> list[Mapping[str, Any]]:
        """List the nodes with `resources_total` and `state`."""
        answer = _document(await self._ask("GET", "/api/v0/nodes", params={"detail": "true", "limit": "10000"}))
        found: list[Mapping[str, Any]] = answer["data"]["result"]["result"]
        return found

    async def has_package(self, name: str) -> bool:
        """Whether the cluster has a package; if so, it keeps it for the next minutes."""
        answer = await self._ask("GET", f"/api/packages/gcs/{name}", known=(_OK, _NOT_FOUND))
        return answer.status_code == _OK

    async def put_package(self, name: str, content: bytes) -> str:
        """Upload a package, and give the URI by which jobs name it."""
        await self._ask("PUT", f"/api/packages/gcs/{name}", content=content)
        return f"gcs://{name}"

    async def job(self, name: str) -> Job | None:
        """Look for a job; None when the cluster does not know it."""
        answer = await self._ask("GET", f"/api/jobs/{name}", known=(_OK, _NOT_FOUND))
        return None if answer.status_code == _NOT_FOUND else Job.of(_document(answer))

    async def jobs(self) -> list[Job]:
        """List the submitted jobs."""
        found = (Job.of(each) for each in _document(await self._ask("GET", "/api/jobs/")))
        return [each for each in found if each is not None]

    async def submit(self, name: str, job: Mapping[str, JSON]) -> None:
        """Submit a job under a name. Raises AlreadyThere or Refused."""
        body = {"submission_id": name, **job}
        answer = await self._ask("POST", "/api/jobs/", json=body, known=(_OK, 400, 500))
        if answer.status_code == _OK:
            return
        # A duplicate is a 500 with a traceback. So is a race with another submitter, and "no agent yet".
        if "already exists" in answer.text:
            raise AlreadyThere(name)
        if "No available agent" in answer.text or answer.status_code == 500:
            raise RuntimeUnavailable(f"Ray cannot take jobs: {_last_line(answer.text)}", hint="see the cluster's log")
        raise Refused(_last_line(answer.text))

    async def stop(self, name: str) -> None:
        """Ask a job to end; the cluster kills it when it takes longer than was said at its submission."""
        await self._ask("POST", f"/api/jobs/{name}/stop", known=(_OK, _NOT_FOUND))

    async def delete(self, name: str) -> None:
        """Forget a job that is over."""
        await self._ask("DELETE", f"/api/jobs/{name}", known=(_OK, _NOT_FOUND, 500))

    async def is_done_with(self, name: str) -> bool:
        """Whether Ray noted lately, on its head, that it looks after a job no more. False where it keeps no notes."""
        head = next((each for each in await self.nodes() if each.get("is_head_node")), None)
        if head is None:
            return False
        query = {"node_id": str(head["node_id"]), "filename": _EVENTS, "lines": str(_LAST_EVENTS)}
        answer = await self._send(self._http.build_request("GET", "/api/v0/logs/file", params=query))
        return answer.status_code == _OK and f"Completed a ray job {name} with" in answer.text

    @asynccontextmanager
    async def log(self, job: Job, *, follow: bool) -> AsyncGenerator[AsyncGenerator[bytes, None], None]:
        """Read a job's log from its first byte on, as bytes; with `follow`, for ever."""
        query = {"node_id": job.node or "", "filename": f"job-driver-{job.id}.log", "lines": "-1"}
        how = "stream" if follow else "file"
        if follow:
            query["interval"] = str(_READ_AGAIN_S)
        wait_s = None if follow else self._timeout_s  # to read; the others are to connect, to write, for a place
        limits = (self._timeout_s, wait_s, self._timeout_s, self._timeout_s)
        request = self._http.build_request("GET", f"/api/v0/logs/{how}", params=query, timeout=limits)
        answer = await self._send(request, stream=True)
        try:
            if answer.status_code != _OK:
                raise RuntimeUnavailable(f"Ray does not give the log of {job.id}: HTTP status {answer.status_code}")
            yield self._pieces(answer)
        finally:
            await answer.aclose()

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def _pieces(self, answer: "httpx.Response") -> AsyncGenerator[bytes, None]:
        try:
            async for piece in answer.aiter_raw():
                yield piece
        except self._error as error:
            raise self._unavailable(error) from error

    async def _ask(self, method: str, path: str, *, known: tuple[int, ...] = (_OK,), **parts: Any) -> "httpx.Response":
        answer = await self._send(self._http.build_request(method, path, **parts))
        if answer.status_code in known:
            return answer
        if answer.status_code in _REFUSED:
            what, hint = _REFUSED[answer.status_code]
            raise RuntimeUnavailable(f"the dashboard at {self.address.url} {what}", hint=hint)
        raise RuntimeUnavailable(
            f"the dashboard at {self.address.url} answers {method} {path} with {answer.status_code}:"
            f" {_last_line(answer.text)}",
            hint="see the cluster's log; it may be starting, ending or of a version that is too old",
        )

    async def _send(self, request: "httpx.Request", *, stream: bool = False) -> "httpx.Response":
        if self._http.is_closed:  # httpx would take that for a mistake of ours; a new cluster may be there by now
            raise RuntimeUnavailable(f"the connection to the dashboard at {self.address.url} was closed")
        try:
            answer = await self._http.send(request, stream=stream)
        except self._error as error:
            raise self._unavailable(error) from error
        self.is_refused = self.is_refused or answer.status_code in _REFUSED
        return answer

    def _unavailable(self, error: "httpx.HTTPError") -> RuntimeUnavailable:
        reason = str(error) or type(error).__name__
        return RuntimeUnavailable(
            f"the dashboard at {self.address.url} cannot be reached: {reason}",
            hint="check the `address` of the runtime and whether the cluster's head is up",
        )


def _headers(token: str | None) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"} if token else {}


def _document(answer: "httpx.Response") -> Any:
    try:
        return answer.json()
    except json.JSONDecodeError as error:
        raise InternalError(f"the dashboard answers {answer.request.url.path} with no JSON") from error


def _last_line(text: str) -> str:
    """The last line of a traceback says what it was; the rest is about Ray."""
    lines = [each for each in text.strip().splitlines() if each.strip()]
    return lines[-1][:300] if lines else "nothing"
