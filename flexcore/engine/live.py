"""One execution in its owner's memory: the durable state, what has been heard since, and what is under way."""

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from flexcore.engine.ports import Loaded
from flexcore.engine.work import AttemptFinished, AttemptSubmitted, Event
from flexcore.model.execution import ExecutionState, Handle
from flexcore.model.ids import ExecutionId, StepPath


@dataclass(frozen=True, slots=True)
class Heard:
    """An event, and the durable command it came from, if it did."""

    event: Event
    command: int | None = None


@dataclass(slots=True, eq=False)
class Live:
    """Mutable, and touched by the event loop's thread only."""

    loaded: Loaded
    state: ExecutionState
    mailbox: deque[Heard] = field(default_factory=deque)
    draining: "asyncio.Task[None] | None" = None
    lazy: asyncio.TimerHandle | None = None
    attempts: "dict[tuple[StepPath, int], asyncio.Task[None]]" = field(default_factory=dict)
    endings: "dict[tuple[StepPath, int], asyncio.Task[None]]" = field(default_factory=dict)
    handles: dict[tuple[StepPath, int], Handle] = field(default_factory=dict)
    timers: dict[StepPath | None, asyncio.TimerHandle] = field(default_factory=dict)
    on_end: list[Callable[[ExecutionState], None]] = field(default_factory=list)

    @property
    def id(self) -> ExecutionId:
        """The execution's id."""
        return self.state.header.id

    def has_given_up(self, path: StepPath, attempt: int) -> bool:
        """Say whether an attempt is being ended, or is over."""
        step = self.state.steps.get(path)
        return step is None or step.attempt != attempt or step.status.is_terminal or step.ending is not None

    def take(self, most: int) -> list[Heard]:
        """Take what was heard, oldest first. `Submitted` is dropped when the end of its attempt came with it."""
        heard = [self.mailbox.popleft() for _ in range(min(most, len(self.mailbox)))]
        ended = {(e.event.path, e.event.attempt) for e in heard if isinstance(e.event, AttemptFinished)}
        return [
            each
            for each in heard
            if not (isinstance(each.event, AttemptSubmitted) and (each.event.path, each.event.attempt) in ended)
        ]

    def let_go(self) -> None:
        """Stop everything in this process; work outside goes on."""
        for timer in self.timers.values():
            timer.cancel()
        self.timers.clear()
        if self.lazy is not None:
            self.lazy.cancel()
        for task in (*self.attempts.values(), *self.endings.values()):
            task.cancel()
