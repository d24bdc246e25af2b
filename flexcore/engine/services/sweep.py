"""Removes what attempts left that nobody will ask for again: a crash between a result and its cleanup leaves it behind.

Runtimes are asked what they have of this installation; the store says what of it is in flight. Whatever is in flight,
cannot be judged now, or belongs to another installation is never touched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import groupby
from typing import Protocol

import structlog

from flexcore.model.errors import FlexCoreError, NotFound
from flexcore.model.execution import ExecutionState
from flexcore.model.ids import AttemptId, ExecutionId, external_name
from flexcore.runtime.interface import AttemptScope, CleanupReport, ExecutionScope, Runtime, Survey

_log = structlog.get_logger(__name__)

_AT_ONCE = 8  # attempts of one runtime that are removed at the same time


class ConfiguredRuntimes(Protocol):
    """The runtimes by name."""

    @property
    def names(self) -> tuple[str, ...]:
        """All configured instances, disabled ones too."""
        ...

    def get(self, name: str) -> Runtime:
        """Give an instance. Raises NotFound when it is disabled or its plug-in is not installed."""
        ...


@dataclass(slots=True)
class SweepService:
    """Looks through every enabled runtime. `state_of` gives an execution as committed, and raises NotFound."""

    runtimes: ConfiguredRuntimes
    state_of: Callable[[ExecutionId], Awaitable[ExecutionState]]
    installation: str
    interval: timedelta = timedelta(hours=1)

    async def run_once(self) -> Sequence[AttemptId]:
        """Sweep all runtimes at the same time; name the attempts that are gone. One that cannot answer waits."""
        swept = await asyncio.gather(*(self._sweep(name) for name in self.runtimes.names))
        return [attempt for each in swept for attempt in each]

    async def _sweep(self, name: str) -> list[AttemptId]:
        try:
            runtime = self.runtimes.get(name)
        except NotFound:
            return []
        except FlexCoreError as error:
            _log.warning("sweep.postponed", runtime=name, reason=error.message)
            return []
        try:
            # First what is there, then what is in flight: an attempt is dispatched, durably, before anything of it is
            # there, and one that is no longer in flight never will be again.
            report = await runtime.cleanup(Survey(self.installation))
            left = await self._left(_ours(report, self.installation))
            over = [each for each in sorted(report.executions) if await self._is_over(each)]
        except FlexCoreError as error:
            _log.warning("sweep.postponed", runtime=name, reason=error.message)
            return []
        turns = asyncio.Semaphore(_AT_ONCE)
        gone = await asyncio.gather(*(self._end(name, runtime, attempt, turns) for attempt in left))
        await asyncio.gather(*(self._forget(name, runtime, execution, turns) for execution in over))
        return [attempt for attempt, is_gone in zip(left, gone, strict=True) if is_gone]

    async def _left(self, attempts: Iterable[AttemptId]) -> list[AttemptId]:
        left: list[AttemptId] = []
        for execution, group in groupby(sorted(attempts, key=str), key=lambda each: each.execution):
            try:
                busy = in_flight(await self.state_of(execution))
            except NotFound:
                busy = frozenset()  # it was deleted, or the store is an older copy: nobody can ask for the result
            except FlexCoreError as error:
                _log.warning("sweep.cannot_judge", execution=execution, reason=error.message)
                continue
            left += [each for each in group if each not in busy]
        return left

    async def _is_over(self, execution: ExecutionId) -> bool:
        """Say whether no attempt will ever go on from what is kept of an execution."""
        try:
            return (await self.state_of(execution)).header.status.is_terminal
        except NotFound:
            return True
        except FlexCoreError as error:
            _log.warning("sweep.cannot_judge", execution=execution, reason=error.message)
            return False

    async def _forget(self, name: str, runtime: Runtime, execution: ExecutionId, turns: asyncio.Semaphore) -> None:
        async with turns:
            try:
                await runtime.cleanup(ExecutionScope(execution=execution, grace=timedelta(0)))
            except FlexCoreError as error:
                _log.warning("sweep.not_removed", runtime=name, execution=execution, reason=error.message)
                return
        _log.info("sweep.removed", runtime=name, execution=execution)

    async def _end(self, name: str, runtime: Runtime, attempt: AttemptId, turns: asyncio.Semaphore) -> bool:
        async with turns:
            try:
                report = await runtime.cleanup(AttemptScope(id=attempt, grace=timedelta(0)))
            except FlexCoreError as error:
                _log.warning("sweep.not_removed", runtime=name, attempt=str(attempt), reason=error.message)
                return False
        is_gone = not report.pending and not report.unknown
        _log.info("sweep.removed" if is_gone else "sweep.not_removed", runtime=name, attempt=str(attempt))
        return is_gone


def in_flight(state: ExecutionState) -> frozenset[AttemptId]:
    """Name the attempts whose result is still wanted: each until its end is committed."""
    header = state.header
    if header.status.is_terminal:
        return frozenset()
    return frozenset(AttemptId(header.id, step.path, step.attempt) for step in state.steps.values() if step.in_flight)


def _ours(report: CleanupReport, installation: str) -> list[AttemptId]:
    """Take what is known by attempt and bears the name that this very installation gives it."""
    return [attempt for name, attempt in report.attempts.items() if name == external_name(installation, attempt)]
