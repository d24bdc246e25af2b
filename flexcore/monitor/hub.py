"""Passes on what happens, as it happens, to whoever watches an execution in this process."""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TypeAlias

from flexcore.model.changes import HistoryEntry
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.requests import Document, WatchEvent
from flexcore.runtime.interface import ExecutionEvent, LogChunk, MetricSample, PhaseEntered, Progress

_MOST_WAITING = 10_000  # events for a watcher who does not read; beyond, progress and logs are left out

Queue: TypeAlias = "asyncio.Queue[WatchEvent | None]"


class Hub:
    """An engine's observer. History only wakes watchers up: they read it from the store, so that none is missed."""

    def __init__(self, now: Callable[[], datetime]) -> None:
        self._now = now
        self._watchers: defaultdict[ExecutionId, list[Queue]] = defaultdict(list)

    @contextmanager
    def watch(self, id: ExecutionId) -> Iterator[Queue]:
        """Listen to an execution. None in the queue means: the history has grown."""
        queue: Queue = asyncio.Queue()
        self._watchers[id].append(queue)
        try:
            yield queue
        finally:
            self._watchers[id].remove(queue)
            if not self._watchers[id]:
                del self._watchers[id]

    def committed(self, state: ExecutionState, entries: Sequence[HistoryEntry]) -> None:
        """Wake up who watches."""
        for queue in self._watchers.get(state.header.id, ()):
            queue.put_nowait(None)

    def reported(self, execution: ExecutionId, path: StepPath, attempt: int, event: ExecutionEvent) -> None:
        """Pass on progress, figures and output."""
        watchers = self._watchers.get(execution)
        if not watchers:
            return
        found = _watch_event(path, attempt, event)
        if found is None:
            return
        kind, body = found
        for queue in watchers:
            if queue.qsize() < _MOST_WAITING:
                queue.put_nowait(WatchEvent(kind=kind, at=self._now(), body=body))


def _watch_event(path: StepPath, attempt: int, event: ExecutionEvent) -> tuple[str, Document] | None:
    body: Document = {"path": path, "attempt": attempt}
    match event:
        case LogChunk(stream=stream, offset=offset, data=data):
            text = data.decode(errors="replace")
            return "log", {**body, "stream": stream.value, "offset": offset, "text": text}
        case Progress(fraction=fraction, note=note):
            return "progress", {**body, "fraction": fraction, "note": note}
        case MetricSample(name=name, value=value, unit=unit):
            return "progress", {**body, "metric": name, "value": value, "unit": unit}
        case PhaseEntered(phase=phase):
            return "progress", {**body, "phase": phase.value}
        case _:
            return None
