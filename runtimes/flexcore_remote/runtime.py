"""The remote runtime: the four verbs, done by a server elsewhere.

Keeps nothing that a restart would miss: the handle says which server has the work. A broken stream is taken up again
at once, some times in a row; after that the outcome is unknown, and the control plane asks again later.
"""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

from flexcore.model.errors import Fenced, InternalError, InvalidRequest, RuntimeUnavailable
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import external_name
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    CleanupReport,
    CleanupScope,
    ExecutionEvent,
    ExecutionRequest,
    Finished,
    Health,
    HealthStatus,
    Survey,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.v1 import runtime_pb2 as pb
from flexcore.runtime.wire.events import event_of
from flexcore.runtime.wire.requests import FileEntry, execute_message
from flexcore_remote.config import RemoteConfig
from flexcore_remote.failed_calls import ConnectionLost
from flexcore_remote.files import WorkflowFiles, digest_of
from flexcore_remote.fleet import Fleet, merged
from flexcore_remote.handle import inner
from flexcore_remote.reading import Reading, finished, lost
from flexcore_remote.server import RemoteServer, Standing

_UPLOADS = 3  # times that files may be missing: a server may tidy up between a look and a use


class RemoteRuntime:
    """Runs steps at one of its servers."""

    def __init__(self, name: str, config: RemoteConfig, context: RuntimeContext) -> None:
        self.name = name
        self._config = config
        self._context = context
        self._files = WorkflowFiles(config.max_file_bytes)
        self._fleet = Fleet([RemoteServer(each, config, context.installation, context.now) for each in config.servers])

    async def execute(self, request: ExecutionRequest) -> AsyncGenerator[ExecutionEvent, None]:
        """Start the attempt at a server, or find it again; closing it detaches."""
        files = await self._listed(request)
        server = await self._fleet.for_attempt(request) if not isinstance(files, Failure) else files
        if isinstance(files, Failure) or isinstance(server, Failure):
            yield finished(files if isinstance(files, Failure) else server)  # type: ignore[arg-type]
            return
        assert server.known is not None, "a server is chosen by its introduction"
        reading = Reading(request, server.known.server_id)
        try:
            async with aclosing(self._read(server, reading, files)) as events:
                async for event in events:
                    yield event
        except Fenced as error:
            yield lost(error.message)
        except InternalError:  # whether the server had started it by then, nobody knows
            await server.cleanup(AttemptScope(id=request.id, grace=request.grace), request.grace)
            raise
        except InvalidRequest as error:
            if reading.handle is not None or request.handle is not None:
                raise RuntimeUnavailable(f"server {server.address}: {error.message}", hint=error.hint) from error
            yield finished(Failure(message=error.message, error_class=ErrorClass.INPUT, hint=error.hint))

    async def health(self) -> HealthStatus:
        """Up when all servers are, down when none is, else degraded."""
        answers = await self._fleet.ask(lambda server: server.standing())
        states = [(server.address, self._state(answer)) for server, answer in answers]
        if len(states) == 1:
            return states[0][1]
        reason = "; ".join(f"{address}: {each.state.value}: {each.reason}" for address, each in states)
        found = {each.state for _, each in states}
        state = next(iter(found)) if len(found) == 1 else Health.DEGRADED
        latencies = [each.start_latency for _, each in states if each.start_latency is not None]
        return HealthStatus(
            state=state,
            reason=reason,
            checked_at=self._context.now(),
            start_latency=min(latencies, default=None),
        )

    async def capabilities(self) -> Capabilities:
        """What the servers that can be reached do together. Raises RuntimeUnavailable when there is none."""
        answers = await self._fleet.ask(lambda server: server.introduced())
        found = [
            (answer.capabilities, server.tags)
            for server, answer in answers
            if not isinstance(answer, RuntimeUnavailable)
        ]
        for _, answer in answers:
            if not found and isinstance(answer, RuntimeUnavailable):
                raise answer
        return merged(found)

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        """End work where it is; without a handle, wherever it may be."""
        grace = timedelta(0) if isinstance(scope, Survey) else scope.grace
        if isinstance(scope, AttemptScope) and scope.handle is not None:
            server = await self._fleet.holding(scope.handle)
            if server is None:
                return CleanupReport(gone=frozenset({scope.handle.name}))
            return await server.cleanup(replace(scope, handle=inner(scope.handle)), grace)
        answers = await self._fleet.ask(lambda server: server.cleanup(scope, grace))
        reports = [answer for _, answer in answers if isinstance(answer, CleanupReport)]
        failed = {server.address: answer for server, answer in answers if isinstance(answer, RuntimeUnavailable)}
        if not reports:
            raise next(iter(failed.values()))
        return self._together(scope, reports, failed)

    async def close(self) -> None:
        """Drop the connections. Work goes on."""
        await self._fleet.close()

    async def _read(
        self, server: RemoteServer, reading: Reading, files: Sequence[FileEntry]
    ) -> AsyncGenerator[ExecutionEvent, None]:
        """Read to the end, over as many streams as the settings allow in a row."""
        broken = uploads = 0
        while True:
            message = execute_message(reading.next_request(), self._context.installation, files, self._context.now())
            try:
                async with aclosing(server.execute(message)) as answers:
                    async for answer in answers:
                        if answer.WhichOneof("event") == "missing":
                            uploads += 1
                            files = await self._bring(server, reading.request, files, answer, uploads)
                            break
                        event = _event(server, answer)
                        passed = None if event is None else reading.passed(event)
                        if passed is not None:
                            broken = 0  # what is told once more is no progress
                            yield passed
                        if isinstance(passed, Finished):
                            return
                    else:
                        raise ConnectionLost(f"server {server.address} ended a stream before the attempt ended")
            except ConnectionLost:
                broken += 1
                if broken > self._config.reconnects or not (reading.handle or reading.phases):
                    raise
                await self._again(server, reading)

    async def _again(self, server: RemoteServer, reading: Reading) -> None:
        """Wait for the connection to stand again, and see that the same server is there."""
        if (await server.introduced(patient=True)).server_id != reading.server_id:
            raise RuntimeUnavailable(
                f"another server than before is at {server.address}", hint="was its state folder removed or moved?"
            )

    async def _bring(
        self,
        server: RemoteServer,
        request: ExecutionRequest,
        files: Sequence[FileEntry],
        answer: pb.ExecuteResponse,
        uploads: int,
    ) -> Sequence[FileEntry]:
        """Bring what is missing, and list anew: files of a project may change while others use it."""
        if uploads > _UPLOADS:
            raise RuntimeUnavailable(f"server {server.address} does not keep the files that it is sent")
        paths = {each.digest: request.folder / each.path for each in files}

        for digest in answer.missing.digests:
            content = await asyncio.to_thread(_content, paths[digest]) if digest in paths else None
            if content is not None and digest_of(content) == digest:
                await server.upload(digest, content)
        again = await self._listed(request)
        if isinstance(again, Failure):
            raise RuntimeUnavailable(again.message, hint=again.hint)
        return again

    async def _listed(self, request: ExecutionRequest) -> tuple[FileEntry, ...] | Failure:
        return await asyncio.to_thread(self._files.listed, request.folder, request.files)

    def _state(self, answer: Standing | RuntimeUnavailable) -> HealthStatus:
        if isinstance(answer, Standing):
            return answer.health
        return HealthStatus(state=Health.DOWN, reason=answer.message, checked_at=self._context.now())

    def _together(
        self, scope: CleanupScope, reports: Sequence[CleanupReport], failed: dict[str, RuntimeUnavailable]
    ) -> CleanupReport:
        """Join what several servers say: gone is only what is gone everywhere."""
        pending = frozenset[str]().union(*(each.pending for each in reports))
        unknown = {name: why for each in reports for name, why in each.unknown.items()}
        for address, error in failed.items():
            name = external_name(self._context.installation, scope.id) if isinstance(scope, AttemptScope) else address
            unknown[name] = error.message
        gone = frozenset[str]().union(*(each.gone for each in reports))
        return CleanupReport(
            gone=gone - pending - set(unknown),
            pending=pending,
            unknown=unknown,
            attempts={name: id for each in reports for name, id in each.attempts.items()},
            executions=frozenset().union(*(each.executions for each in reports)),
            retained=frozenset[str]().union(*(each.retained for each in reports)),
        )


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None  # it is gone, which the next listing says


def _event(server: RemoteServer, answer: pb.ExecuteResponse) -> ExecutionEvent | None:
    """Read an event. One that makes no sense leaves the outcome unknown: it is not the step that is wrong."""
    try:
        return event_of(answer)
    except InvalidRequest as error:
        raise RuntimeUnavailable(
            f"what server {server.address} tells cannot be read: {error.message}",
            hint="install versions of FlexCore on both machines that go together",
        ) from error
