"""Reading executions: committed state and history as documents, live followers, logs."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec

from flexcore.control.definitions import Definitions
from flexcore.control.log_pages import read_on
from flexcore.model.changes import ExecutionCancelled, ExecutionFailed, ExecutionSucceeded, HistoryEntry
from flexcore.model.errors import FlexCoreError, NotFound
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.requests import Document, ExecutionQuery, LogPage, Page, WatchEvent
from flexcore.model.values import JSON
from flexcore.monitor import document as show
from flexcore.monitor.hub import Hub, Queue
from flexcore.monitor.rows import rows
from flexcore.monitor.waiting import execution_waiting_for, pools_of
from flexcore.runtime.plugin import ArtifactStore
from flexcore.store.logs import LogStore
from flexcore.store.read import ExecutionView, Reader

_MOST_RESOLVED_BYTES = 16 * 1024 * 1024
_LOOK_AGAIN_SECONDS = 0.2  # at executions of other processes
_ENDS = (ExecutionSucceeded, ExecutionFailed, ExecutionCancelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecutionReading:
    """The read side of executions. Nothing here feeds a decision."""

    reader: Reader
    definitions: Definitions
    artifacts: ArtifactStore
    log_store: LogStore
    hub: Hub
    durability: str
    now: Callable[[], datetime]

    async def view(self, id: ExecutionId) -> ExecutionView:
        """Give the state as committed, and who owns it."""
        return await self.reader.execution(id)

    async def document(self, id: ExecutionId) -> Document:
        """Give the execution document."""
        view = await self.reader.execution(id)
        header = view.state.header
        graph = await self.definitions.graph(header.workspace, header.workflow, header.version)
        values = await self._values(view.state)
        pools = await self.reader.pools(pools_of(view.state))
        lines = list(rows(graph, view.state, pools))
        found = show.execution_document(view.state, lines, values, self.durability, self.now())
        found["waiting_for"] = execution_waiting_for(view.state, pools)
        found["owner_alive"] = view.owner_alive or header.status.is_terminal
        return found

    async def summaries(self, query: ExecutionQuery) -> Page[Document]:
        """Give a page of executions without steps."""
        page = await self.reader.executions(query)
        return Page(tuple(show.summary_document(each, {}, self.now()) for each in page.items), page.next)

    async def history(self, id: ExecutionId, after: int, limit: int) -> Page[Document]:
        """Give history entries."""
        page = await self.reader.history(id, after, limit)
        return Page(tuple(show.history_document(each) for each in page.items), page.next)

    async def watch(self, id: ExecutionId, after: int) -> AsyncGenerator[WatchEvent, None]:
        """Follow an execution until its end: history from the store without gaps, the rest as it is heard."""
        with self.hub.watch(id) as queue:
            state = (await self.reader.execution(id)).state
            seen = min(after, state.seq)  # whoever counts on more than there is would never hear of the end
            ended = state.header.status.is_terminal
            while True:
                page = await self.reader.history(id, seen)
                if any(_is_end(each) for each in page.items):
                    ended = True
                    # Several commits may pass between two looks; what was written meanwhile is told before the end.
                    for event in _waiting(queue):
                        yield event
                for entry in page.items:
                    seen = entry.seq
                    yield WatchEvent(kind="history", at=entry.at, seq=entry.seq, body=show.history_document(entry))
                if page.next is not None:
                    continue
                if ended:
                    return
                async for event in self._heard(queue):
                    yield event

    async def _heard(self, queue: Queue) -> AsyncGenerator[WatchEvent, None]:
        """Pass on what is heard until it is time to look at the history: it has grown here, or may have elsewhere."""
        while True:
            try:
                async with asyncio.timeout(_LOOK_AGAIN_SECONDS):
                    event = await queue.get()
            except TimeoutError:
                return
            if event is None:
                return
            yield event

    async def logs(self, id: ExecutionId, path: str | None, cursor: str | None) -> LogPage:
        """Read output. Without a path, of every step that has some, one after the other."""
        state = (await self.reader.execution(id)).state
        ended = state.header.status.is_terminal
        paths = [StepPath(path)] if path is not None else list(state.steps)
        if path is not None and StepPath(path) not in state.steps:
            raise NotFound(f"execution {id} has not reached a step '{path}'", hint="`flexcore workflow status ID`")
        positions: dict[str, int] = msgspec.json.decode(cursor, type=dict[str, int]) if cursor else {}
        pieces: list[Document] = []
        for each in paths:
            attempt = await self._attempt(id, each)
            pieces += await read_on(self.log_store, id, each, attempt, positions)
        return LogPage(pieces=tuple(pieces), next=msgspec.json.encode(positions).decode(), ended=ended and not pieces)

    async def _attempt(self, id: ExecutionId, path: StepPath) -> int | None:
        """Find the last attempt that wrote: a step's newest may not have begun to, and its predecessor is read."""
        written = await self.log_store.attempts(id, path)
        return written[-1] if written else None

    async def _values(self, state: ExecutionState) -> dict[str, JSON]:
        """Load what is out of line, up to a bound; the rest stays a reference."""
        values: dict[str, JSON] = {}
        room = _MOST_RESOLVED_BYTES
        for payload in show.references(state):
            if payload.ref is not None and payload.ref.bytes <= room and payload.ref.uri not in values:
                try:
                    values[payload.ref.uri] = msgspec.json.decode(await self.artifacts.get(payload.ref))
                except FlexCoreError:
                    continue  # the document still shows the reference
                room -= payload.ref.bytes
        return values


def _waiting(queue: Queue) -> Iterator[WatchEvent]:
    while not queue.empty():
        if (event := queue.get_nowait()) is not None:
            yield event


def _is_end(entry: HistoryEntry) -> bool:
    return isinstance(entry.change, _ENDS)
