"""The shell around `decide`: events in, decide, commit, act. Nothing else commits.

Each execution has a mailbox. What has been heard while a commit was under way is decided together and goes into one
change set, so that a thousand steps ending at once cost a few commits. Nothing is acted on or acknowledged before it
is durable. One that breaks is failed with class `internal` and leaves the others alone.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import msgspec
import structlog

from flexcore.analyzer.view import StepView
from flexcore.engine.actions import Performer
from flexcore.engine.attempts import Driver
from flexcore.engine.decide import decide, resume
from flexcore.engine.faultpoints import FaultPoint, pass_by
from flexcore.engine.fold import empty, fold
from flexcore.engine.journal import (
    broken,
    change_set,
    commit_surely,
    failing,
    pools_to_look_at,
    read_surely,
    store_surely,
)
from flexcore.engine.live import Heard, Live
from flexcore.engine.ports import Clock, Definitions, Evaluator, Loaded, Observer
from flexcore.engine.queues import Queues
from flexcore.engine.render import Answer
from flexcore.engine.timers import Timers
from flexcore.engine.work import (
    AttemptSubmitted,
    Cancel,
    Decision,
    Env,
    Event,
    Limits,
    LookAgain,
    Needs,
    PlaceFree,
    Start,
    StartChild,
    free,
)
from flexcore.language.completion import complete_input
from flexcore.model import changes as c
from flexcore.model.changes import HistoryEntry
from flexcore.model.errors import (
    Fenced,
    FlexCoreError,
    IllegalTransition,
    LimitExceeded,
    NotFound,
    PoolFull,
    StoreUnavailable,
)
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import ExecutionId
from flexcore.model.placement import Placement
from flexcore.model.pools import Claim, PoolUse
from flexcore.model.values import JSON, Payload
from flexcore.runtime.plugin import ArtifactStore
from flexcore.store.write import Commands, IdempotencyKey, Journal

_log = structlog.get_logger(__name__)

_BATCH = 256  # events that go into one change set
_CLOSE_SECONDS = 5.0
_HEAR_FIRST = timedelta(seconds=5)
_PAUSE_SECONDS = 0.5
_LAZY_SECONDS = 0.05  # how long `Submitted` may wait for company


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineParts:
    """What an engine is made of."""

    journal: Journal
    commands: Commands
    definitions: Definitions
    evaluator: Evaluator
    artifacts: ArtifactStore
    driver: Driver
    observer: Observer
    place: Callable[[StepView], Placement]
    price: Callable[[str], float | None] = free
    now: Clock
    entropy: Callable[[], bytes]
    limits: Limits = Limits()
    reached: Callable[[FaultPoint], None] = pass_by


class Engine:
    """Runs the executions that this process owns."""

    def __init__(self, parts: EngineParts) -> None:
        self.parts = parts
        self.live: dict[ExecutionId, Live] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._timers = Timers(parts.now, self.post)
        self.queues = Queues(parts.journal, self.post, self.spawn)
        self._performer = Performer(parts.driver, self, self.post, self.spawn)

    # --- entrances

    async def start(
        self, id: ExecutionId, start: Start, key: IdempotencyKey | None = None, loaded: Loaded | None = None
    ) -> Live:
        """Accept an execution: durable on return. Raises LimitExceeded, NotFound, AlreadyExists, IllegalTransition."""
        if len(self.live) >= self.parts.limits.open_executions:
            limit = self.parts.limits.open_executions
            raise LimitExceeded(
                f"{limit} executions are open, the limit of this process", limit=limit, retry_after=1, actual=limit
            )
        accepted = start.accepted
        if loaded is None:
            loaded = await self.parts.definitions.load(accepted.workspace, accepted.workflow, accepted.version)
        live = Live(loaded, empty(id))
        decisions = await self._commit_surely_decided(live, [Heard(start)], key=key)
        self.live[id] = live
        self._settle(live, decisions)
        self._timers.arm(live, None, live.state.header.expires_at)
        return live

    def adopt(self, id: ExecutionId, history: Sequence[HistoryEntry], loaded: Loaded) -> Live:
        """Take up an execution where its history ends: the same path as any other, only later."""
        live = self.live[id] = Live(loaded, fold(id, history))
        return live

    def take_up(self, live: Live) -> None:
        """Go on with an adopted execution: attempts are adopted, endings repeated, timers armed."""
        for step in live.state.steps.values():
            self._performer.take_up(live, step)
            # What ended in time while nobody looked must be heard before its time limit is.
            self._timers.rearm(live, step, earliest=self.parts.now() + _HEAR_FIRST if step.in_flight else None)
        self._timers.arm(live, None, live.state.header.expires_at)
        self._take_up_queued(live)
        self.parts.reached(FaultPoint.TAKEN_UP)

    def _take_up_queued(self, live: Live) -> None:
        """Let what waits for places ask once: the limits may be others than when it was queued."""
        self.queues.note(live)
        for path in live.state.queued:
            self.post(live, PlaceFree(path))
        if live.state.header.full:
            self.post(live, PlaceFree(None))

    def post(self, live: Live, event: Event, command: int | None = None) -> None:
        """Let an execution know of something."""
        live.mailbox.append(Heard(event, command))
        self.parts.reached(FaultPoint.HEARD)
        if isinstance(event, AttemptSubmitted):
            live.handles[event.path, event.attempt] = event.handle
            if live.lazy is None and live.draining is None:
                live.lazy = asyncio.get_running_loop().call_later(_LAZY_SECONDS, self._wake, live)
            return
        self._wake(live)

    def cancel(self, id: ExecutionId, reason: str, command: int | None = None) -> None:
        """Cancel an execution of this process. Raises NotFound when it is not here."""
        live = self.live.get(id)
        if live is None:
            raise NotFound(f"execution {id} is not open in this process")
        self.post(live, Cancel(reason), command)

    async def ask_to_cancel(self, id: ExecutionId, reason: str) -> None:
        """Ask whoever owns an execution to cancel it. Raises NotFound, IllegalTransition, Unavailable."""
        await self.parts.commands.send(id, "cancel", {"reason": reason}, self.parts.now())

    async def ensure_child(self, live: Live, action: StartChild) -> Live | ExecutionState:
        """Start the execution of a sub-workflow under the id it was given, or find it: open here, or as it ended."""
        if (known := self.live.get(action.child)) is not None:
            return known
        parent = live.state.header
        if live.state.steps[action.path].ending is not None:
            return await self._existing(action.child)
        version = parent.pinned_versions.get(action.workflow)
        if version is None:
            version = await self.parts.definitions.newest(parent.workspace, action.workflow)
        loaded = await self.parts.definitions.load(parent.workspace, action.workflow, version)
        accepted = c.ExecutionAccepted(
            workflow=action.workflow,
            version=version,
            workspace=parent.workspace,
            input=await self._child_input(loaded, action.input),
            pinned_runtime=parent.pinned_runtime,
            parent=parent.id,
            parent_path=action.path,
            depth=parent.depth + 1,
            pinned_versions=parent.pinned_versions,
        )
        try:
            return await self.start(action.child, Start(accepted=accepted), loaded=loaded)
        except IllegalTransition:
            return await self._existing(action.child)

    async def _existing(self, child: ExecutionId) -> Live | ExecutionState:
        """Find a child that must not be started any more. Raises NotFound."""
        return self.live.get(child) or fold(child, await self.parts.journal.history(child))

    async def _child_input(self, loaded: Loaded, given: Payload) -> Payload:
        if given.ref is not None:
            return given  # too large to look at for every child; the steps that read it will complain
        return Payload(complete_input(loaded.graph.workflow.inputs, given.value))

    async def wait(self, id: ExecutionId) -> ExecutionState | None:
        """Wait until an execution of this process has ended; None when it is not, or no longer, here."""
        live = self.live.get(id)
        if live is None:
            return None
        ended: asyncio.Future[ExecutionState] = asyncio.get_running_loop().create_future()
        live.on_end.append(lambda state: None if ended.done() else ended.set_result(state))
        return await ended

    async def close(self) -> None:
        """Let go of everything: commits under way finish, work outside goes on."""
        self._closing = True
        draining = [live.draining for live in self.live.values() if live.draining is not None]
        for live in self.live.values():
            live.let_go()
        if draining:
            await asyncio.wait(draining, timeout=_CLOSE_SECONDS)
        await self._performer.forgotten(_CLOSE_SECONDS)
        for task in list(self._tasks):
            task.cancel()
        for task in draining:
            task.cancel()  # it waits for a store that cannot write: what was not committed never happened
        await asyncio.gather(*self._tasks, *draining, return_exceptions=True)

    def spawn(self, work: "asyncio._CoroutineLike[None]") -> "asyncio.Task[None]":
        """Run something on the side; it is cancelled when the engine closes."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # --- the loop

    def _wake(self, live: Live) -> None:
        if live.lazy is not None:
            live.lazy.cancel()
            live.lazy = None
        if live.draining is None and not self._closing:
            live.draining = asyncio.get_running_loop().create_task(self._drain(live))

    async def _drain(self, live: Live) -> None:
        try:
            while live.mailbox and not live.state.header.status.is_terminal:
                await self._advance(live, live.take(_BATCH))
        except Fenced:
            _log.warning("execution.fenced", execution=live.id)
            self._end(live)  # somebody else goes on with it; whoever waits here is told how far it came
        except Exception as error:
            _log.exception("execution.broke", execution=live.id)
            await self._quarantine(live, error)
        finally:
            live.draining = None

    async def _advance(self, live: Live, heard: list[Heard]) -> None:
        self._settle(live, await self._commit_surely_decided(live, heard))

    async def _commit_surely_decided(
        self, live: Live, heard: list[Heard], key: IdempotencyKey | None = None
    ) -> list[Decision]:
        """Decide and commit; again when a place that was counted on has gone to somebody else meanwhile."""
        while True:
            decisions: list[Decision] = []
            state, now = live.state, self.parts.now()
            for each in heard:
                decision = await self._decide(live, state, each.event, now)
                decisions.append(decision)
                state = decision.state
            consumed = tuple(each.command for each in heard if each.command is not None)
            try:
                await self._commit(live, decisions, consumed=consumed, key=key)
            except PoolFull as error:
                _log.debug("execution.place_gone", execution=live.id, pools=error.pools)
                continue
            return decisions

    async def _decide(self, live: Live, state: ExecutionState, event: Event, now: datetime) -> Decision:
        parts = self.parts
        answers: dict[str, dict[str, Answer]] = {}
        values: dict[str, JSON] = {}
        cached: dict[str, Payload | None] = {}
        pools: dict[str, PoolUse] = {}
        env = Env(
            now=now,
            entropy=parts.entropy(),
            place=parts.place,
            price=parts.price,
            facts=live.loaded.facts,
            data_store=parts.artifacts.store,
            limits=parts.limits,
            answers=answers,
            values=values,
            cached=cached,
            pools=pools,
        )
        outcome = decide(live.loaded.graph, state, event, env)
        while True:
            # Before the commit, and before the next decision of its batch reads them.
            await store_surely(parts.artifacts, outcome.artifacts, may_fail=not state.seq)
            if isinstance(outcome, Decision):
                return outcome
            await self._fulfil(outcome, env.now, answers, values, cached)
            if outcome.pools:
                pools.update(await self._pools(state, outcome.pools))
            outcome = resume(outcome)

    async def _fulfil(
        self,
        needs: Needs,
        now: datetime,
        answers: dict[str, dict[str, Answer]],
        values: dict[str, JSON],
        cached: dict[str, Payload | None],
    ) -> None:
        replies = await self.parts.evaluator.evaluate([query for _, query in needs.queries])
        for (address, query), reply in zip(needs.queries, replies, strict=True):
            answers.setdefault(address, {})[query.source] = reply
        for ref in needs.values:
            if ref.uri not in values:
                values[ref.uri] = msgspec.json.decode(await read_surely(self.parts.artifacts, ref))
        for key in needs.cache_keys:
            cached[key] = await self.parts.journal.cached(key, now)

    async def _pools(self, state: ExecutionState, claims: Sequence[Claim]) -> Mapping[str, PoolUse]:
        while True:
            try:
                return await self.queues.uses(claims, state.header.id)
            except StoreUnavailable as error:
                if not state.seq:
                    raise  # the start of an execution may fail: its caller has been told nothing yet
                _log.error("store.unavailable", execution=state.header.id, reason=error.message)
                await asyncio.sleep(_PAUSE_SECONDS)

    async def _commit(
        self,
        live: Live,
        decisions: Sequence[Decision],
        *,
        consumed: tuple[int, ...] = (),
        key: IdempotencyKey | None = None,
    ) -> None:
        if not consumed and not any(decision.changes for decision in decisions):
            return
        changes_set = change_set(live.loaded.graph, live.state, decisions, consumed=consumed, key=key)
        self.parts.reached(FaultPoint.STORED)
        await commit_surely(self.parts.journal, changes_set)
        self.parts.reached(FaultPoint.COMMITTED)
        live.state = decisions[-1].state
        if changes_set.claims:
            self.queues.note(live)
            self.queues.look_soon(pools_to_look_at(changes_set))
        self.parts.observer.committed(live.state, changes_set.entries)

    def _settle(self, live: Live, decisions: Sequence[Decision]) -> None:
        """Do what the decisions, now durable, ask for."""
        if self._closing:
            return
        for decision in decisions:
            for path in decision.touched_steps:
                self._timers.rearm(live, live.state.steps[path])
            for action in decision.actions:
                if isinstance(action, LookAgain):
                    self._timers.arm(live, action.path, action.due_at)
                else:
                    self._performer.perform(live, action)
        self.parts.reached(FaultPoint.ACTED)
        if live.state.header.status.is_terminal:
            self._end(live)

    def _end(self, live: Live) -> None:
        self._drop(live)
        for told in live.on_end:
            told(live.state)

    def _drop(self, live: Live) -> None:
        self.live.pop(live.id, None)
        self.queues.drop(live)
        live.let_go()

    async def _quarantine(self, live: Live, error: Exception) -> None:
        """End an execution that broke our own code, so that it is visible and hurts nobody else."""
        before = live.state
        try:
            await self._commit(live, [failing(before, broken(error), self.parts.now())])
        except FlexCoreError:
            _log.exception("execution.quarantine_failed", execution=live.id)
            self._end(live)
            return
        self._end(live)
        self._performer.end_all(live, before)
