"""What has been read of an attempt, so that a second stream goes on where the first one broke. Pure."""

from dataclasses import dataclass, field, replace

from flexcore.model.execution import Handle, Phase
from flexcore.model.failure import ErrorClass, Failure
from flexcore.runtime.interface import (
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    Failed,
    Finished,
    LogChunk,
    LogStream,
    PhaseEntered,
    Submitted,
)
from flexcore_remote.handle import inner, outer


@dataclass
class Reading:
    """One call of `execute`, over as many streams as it takes."""

    request: ExecutionRequest
    server_id: str
    handle: Handle | None = None  # as the server told it
    offsets: dict[LogStream, int] = field(default_factory=dict)  # up to where this reading has passed logs on
    phases: set[Phase] = field(default_factory=set)

    def next_request(self) -> ExecutionRequest:
        """Say what to ask the server for now."""
        given = self.request.handle
        handle = self.handle or (inner(given) if given is not None else None)
        return replace(self.request, handle=handle, log_offsets={**self.request.log_offsets, **self.offsets})

    def passed(self, event: ExecutionEvent) -> ExecutionEvent | None:
        """Give what the caller has not heard yet."""
        match event:
            case Submitted():
                return self._submitted(event)
            case LogChunk():
                return self._unread(event)
            case PhaseEntered():
                is_new = event.phase not in self.phases
                self.phases.add(event.phase)
                return event if is_new else None
            case _:
                return event

    def _submitted(self, event: Submitted) -> ExecutionEvent | None:
        known, self.handle = self.handle, event.handle
        if known is None:
            return Submitted(outer(self.server_id, event.handle), event.adopted, event.prepares)
        if known.identity == event.handle.identity:
            return None
        return lost("the work that was being read is gone, and other work has its name")

    def _unread(self, chunk: LogChunk) -> LogChunk | None:
        """Cut off what this reading has passed on: not every runtime can resume its logs in the middle."""
        known, end = self.offsets.get(chunk.stream, 0), chunk.offset + len(chunk.data)
        if end <= known:
            return None
        self.offsets[chunk.stream] = end
        start = max(chunk.offset, known)
        return chunk if start == chunk.offset else LogChunk(chunk.stream, start, chunk.data[start - chunk.offset :])


def lost(message: str) -> Finished:
    """End with an outcome that nobody will ever know."""
    return finished(Failure(message=message, error_class=ErrorClass.LOST))


def finished(failure: Failure) -> Finished:
    """End with a failure."""
    return Finished(ExecutionResult(outcome=Failed(failure)))
