"""Does what has been decided, once it is durable: starts attempts, ends them, looks after sub-workflows.

Everything here may be done again after a crash: starting is adopting, ending is idempotent, a child has its id first.
"""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from typing import Any, Protocol, assert_never

import structlog

from flexcore.engine.attempts import Attempt, Driver
from flexcore.engine.live import Live
from flexcore.engine.work import (
    AttemptEnded,
    CancelChild,
    ChildAccepted,
    ChildFinished,
    EndAttempt,
    Event,
    ForgetAttempt,
    OutsideAction,
    StartAttempt,
    StartChild,
)
from flexcore.model.errors import FlexCoreError, NotFound, Unavailable
from flexcore.model.execution import ExecutionState, Handle, StepState
from flexcore.model.failure import ErrorClass, Failure
from flexcore.model.ids import AttemptId, ExecutionId
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.workflow import SubWorkflow
from flexcore.runtime.interface import AttemptScope

_log = structlog.get_logger(__name__)

_CONFIRM_WITHIN_SECONDS = 60.0  # then the rest is left to the sweep of orphans
_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 5.0
_PAUSES_TO_FORGET = (0.1, 0.3, 0.9)
_CHILD_ELSEWHERE_SECONDS = 0.5
_PARENT_ENDS = "the execution it belongs to is ending"

Post = Callable[[Live, Event], None]
Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


class Children(Protocol):
    """What a parent can do about the execution of a sub-workflow."""

    async def ensure_child(self, live: Live, action: StartChild) -> Live | ExecutionState:
        """Start the child, or find it: in memory, or as it ended."""
        ...

    def cancel(self, id: ExecutionId, reason: str) -> None:
        """Cancel it. Raises NotFound when it is not open here."""
        ...

    async def ask_to_cancel(self, id: ExecutionId, reason: str) -> None:
        """Ask the process that owns it, durably. Raises NotFound, IllegalTransition when it has ended, Unavailable."""
        ...


class Performer:
    """Performs actions for every execution of an engine."""

    def __init__(self, driver: Driver, children: Children, post: Post, spawn: Spawn) -> None:
        self._driver = driver
        self._children = children
        self._post = post
        self._spawn = spawn
        self._forgetting: set[asyncio.Task[None]] = set()

    def perform(self, live: Live, action: OutsideAction) -> None:
        """Do one thing. Returns at once; what takes time goes on beside."""
        match action:
            case StartAttempt(path=path):
                self._start(live, live.state.steps[path], fresh=True)
            case EndAttempt(path=path):
                self._end(live, live.state.steps[path])
            case ForgetAttempt(path=path):
                self._forget(live, live.state.steps[path])
            case StartChild():
                self._spawn(self._child(live, action))
            case CancelChild(child=child):
                self._cancel_child(child)
            case _:
                assert_never(action)

    def take_up(self, live: Live, step: StepState) -> None:
        """Go on with a step of an adopted execution."""
        if step.status.is_terminal:
            return
        if step.child is not None:
            self._take_up_child(live, step)
        elif step.in_flight and step.ending is not None:
            self._end(live, step)  # and not started: it may never have begun
        elif step.in_flight and step.due_at is None:
            self._start(live, step, fresh=False)

    def end_all(self, live: Live, state: ExecutionState) -> None:
        """End everything that was under way in an execution that is given up."""
        for step in state.steps.values():
            if step.in_flight:
                self._end(live, step)
            elif step.child is not None and not step.status.is_terminal:
                self.perform(live, CancelChild(step.child))

    # --- attempts

    def _start(self, live: Live, state: StepState, *, fresh: bool) -> None:
        key = (state.path, state.attempt)
        if key in live.attempts or state.status.is_terminal:
            return
        attempt = Attempt(
            header=live.state.header,
            state=state,
            step=live.loaded.graph.step(state.path),
            folder=live.loaded.folder,
            files=live.loaded.files,
            fresh=fresh,
            is_given_up=lambda: live.has_given_up(*key),
        )
        task = self._spawn(self._driver.drive(attempt, lambda event: self._post(live, event)))
        live.attempts[key] = task
        task.add_done_callback(lambda _: live.attempts.pop(key, None))

    def _end(self, live: Live, state: StepState) -> None:
        key = (state.path, state.attempt)
        if key not in live.endings:
            live.endings[key] = task = self._spawn(self._end_surely(live, state))
            task.add_done_callback(lambda _: live.endings.pop(key, None))

    async def _end_surely(self, live: Live, state: StepState) -> None:
        clock = asyncio.get_running_loop().time
        until, pause = clock() + _CONFIRM_WITHIN_SECONDS, _FIRST_PAUSE_SECONDS
        confirmed = False
        while not confirmed and clock() < until:
            handle = state.handle or live.handles.get((state.path, state.attempt))
            confirmed = await self._cleaned(live, state, handle, self._driver.grace)
            if not confirmed:
                await asyncio.sleep(pause)
                pause = min(pause * 2, _LONGEST_PAUSE_SECONDS)
        if not confirmed:
            _log.error("attempt.end_unconfirmed", execution=live.id, path=state.path, runtime=state.runtime)
        event = AttemptEnded(path=state.path, attempt=state.attempt, token=state.token, confirmed=confirmed)
        self._post(live, event)

    async def _cleaned(self, live: Live, state: StepState, handle: Handle | None, grace: timedelta) -> bool:
        scope = AttemptScope(id=AttemptId(live.id, state.path, state.attempt), handle=handle, grace=grace)
        try:
            report = await self._driver.runtimes.get(state.runtime or "").cleanup(scope)
        except FlexCoreError as error:
            _log.warning("attempt.cleanup_failed", execution=live.id, path=state.path, reason=error.message)
            return False
        return not report.pending and not report.unknown

    def _forget(self, live: Live, state: StepState) -> None:
        handle = live.handles.pop((state.path, state.attempt), None) or state.handle
        if handle is not None and not handle.transient:
            task = self._spawn(self._forget_attempt(live, state, handle))
            self._forgetting.add(task)
            task.add_done_callback(self._forgetting.discard)

    async def forgotten(self, within_seconds: float) -> None:
        """Wait until what finished attempts left is gone, which holds their raw output."""
        if self._forgetting:
            await asyncio.wait(self._forgetting, timeout=within_seconds)

    async def _forget_attempt(self, live: Live, state: StepState, handle: Handle) -> None:
        """Try a few times: what is left may hold secrets, and the sweep that would find it comes once an hour."""
        for pause in _PAUSES_TO_FORGET:
            if await self._cleaned(live, state, handle, timedelta(0)):
                return
            await asyncio.sleep(pause)
        await self._cleaned(live, state, handle, timedelta(0))

    # --- sub-workflows

    def _cancel_child(self, child: ExecutionId) -> None:
        try:
            self._children.cancel(child, _PARENT_ENDS)
        except NotFound:
            self._spawn(self._cancel_elsewhere(child))

    async def _cancel_elsewhere(self, child: ExecutionId) -> None:
        while True:
            try:
                await self._children.ask_to_cancel(child, _PARENT_ENDS)
            except Unavailable as error:
                _log.warning("child.cancel_postponed", execution=child, reason=error.message)
                await asyncio.sleep(_CHILD_ELSEWHERE_SECONDS)
                continue
            except FlexCoreError as error:
                _log.debug("child.not_cancelled", execution=child, reason=error.message)  # not there yet, or has ended
            return

    def _take_up_child(self, live: Live, step: StepState) -> None:
        action = live.loaded.graph.step(step.path).action
        if isinstance(action, SubWorkflow) and step.child is not None:
            start = StartChild(path=step.path, child=step.child, workflow=action.name, input=step.parameters)
            self._spawn(self._child(live, start))
            if step.ending is not None:
                self._cancel_child(step.child)  # whoever wanted its end may have died before anybody was told

    async def _child(self, live: Live, action: StartChild) -> None:
        child = await self._ensured(live, action)
        if child is None:
            return
        self._post(live, ChildAccepted(path=action.path, child=action.child))
        if live.state.steps[action.path].ending is not None:
            self.perform(live, CancelChild(action.child))
        state = child.state if isinstance(child, Live) else child
        if isinstance(child, Live) and not state.header.status.is_terminal:
            child.on_end.append(lambda state: self._post(live, _ended(action, state)))
        else:
            self._post(live, _ended(action, state))  # it may have ended within its very first decision

    async def _ensured(self, live: Live, action: StartChild) -> Live | ExecutionState | None:
        """Start or find the child; a store that cannot write now is asked again until it can."""
        while True:
            try:
                child = await self._children.ensure_child(live, action)
                if isinstance(child, Live) or child.header.status.is_terminal:
                    return child
                await asyncio.sleep(_CHILD_ELSEWHERE_SECONDS)  # another process runs it: its history tells when it ends
            except Unavailable as error:
                _log.warning("child.start_postponed", execution=live.id, path=action.path, reason=error.message)
                await asyncio.sleep(_LONGEST_PAUSE_SECONDS / 10)
            except FlexCoreError as error:
                failure = Failure(message=error.message, error_class=ErrorClass.INPUT, name=error.code, hint=error.hint)
                self._post(live, _not_started(action, failure))
                return None


def _not_started(action: StartChild, failure: Failure) -> ChildFinished:
    return ChildFinished(path=action.path, child=action.child, status=ExecutionStatus.FAILED, failure=failure)


def _ended(action: StartChild, state: ExecutionState) -> ChildFinished:
    header = state.header
    return ChildFinished(
        path=action.path, child=action.child, status=header.status, output=header.output, failure=header.failure
    )
