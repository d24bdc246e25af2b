"""Removes what attempts left that nobody will ask for again: a crash between a result and its cleanup leaves it behind.

Runtimes are asked what they have of this installation; the store says what of it is in flight. Whatever is in flight,
cannot be judged now, or belongs to another installation is never touched.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Orphan:
    """What an attempt left that nobody will ask for again. `remains` says why it is still there, if it is."""

    name: str
    attempt: AttemptId
    remains: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Swept:
    """What a runtime had of this installation: orphans, what is in flight, and what is meant to stay."""

    orphans: Sequence[Orphan] = ()
    over: Sequence[ExecutionId] = ()  # ended executions of which something was kept
    in_flight: int = 0  # names of attempts whose result is still wanted, or that cannot be judged now
    retained: Sequence[str] = ()

    @property
    def gone(self) -> list[AttemptId]:
        """The attempts of which nothing is left."""
        return [each.attempt for each in self.orphans if not each.remains]


NOT_ENDED = "it was only looked for"


@dataclass(slots=True)
class SweepService:
    """Looks through every enabled runtime. `state_of` gives an execution as committed, and raises NotFound."""

    runtimes: ConfiguredRuntimes
    state_of: Callable[[ExecutionId], Awaitable[ExecutionState]]
    installation: str
    interval: timedelta = timedelta(hours=1)

    async def run_once(self) -> Sequence[AttemptId]:
        """Sweep all runtimes at the same time; name the attempts that are gone. One that cannot answer waits."""
        swept = await asyncio.gather(*(self._swept(name) for name in self.runtimes.names))
        return [attempt for each in swept for attempt in each.gone]

    async def _swept(self, name: str) -> Swept:
        try:
            return await self.sweep(name)
        except NotFound:
            return Swept()  # disabled, or not installed
        except FlexCoreError as error:
            _log.warning("sweep.postponed", runtime=name, reason=error.message)
            return Swept()

    async def sweep(self, name: str, *, dry_run: bool = False) -> Swept:
        """Sweep one runtime, or only say what would go. Raises NotFound, InvalidSettings, RuntimeUnavailable."""
        runtime = self.runtimes.get(name)
        # First what is there, then what is in flight: an attempt is dispatched, durably, before anything of it is
        # there, and one that is no longer in flight never will be again.
        report = await runtime.cleanup(Survey(self.installation))
        ours = _ours(report, self.installation)
        left = await self._left(ours.values())
        over = [each for each in sorted(report.executions) if await self._is_over(each)]
        orphans = [Orphan(name=name, attempt=each, remains=NOT_ENDED) for name, each in ours.items() if each in left]
        found = Swept(orphans=orphans, over=over, in_flight=len(ours) - len(orphans), retained=sorted(report.retained))
        if dry_run:
            return found
        turns = asyncio.Semaphore(_AT_ONCE)
        ended = await asyncio.gather(*(self._end(name, runtime, each, turns) for each in orphans))
        await asyncio.gather(*(self._forget(name, runtime, execution, turns) for execution in over))
        return replace(found, orphans=ended)

    async def _left(self, attempts: Iterable[AttemptId]) -> set[AttemptId]:
        left: set[AttemptId] = set()
        for execution, group in groupby(sorted(attempts, key=str), key=lambda each: each.execution):
            try:
                busy = in_flight(await self.state_of(execution))
            except NotFound:
                busy = frozenset()  # it was deleted, or the store is an older copy: nobody can ask for the result
            except FlexCoreError as error:
                _log.warning("sweep.cannot_judge", execution=execution, reason=error.message)
                continue
            left |= {each for each in group if each not in busy}
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

    async def _end(self, name: str, runtime: Runtime, orphan: Orphan, turns: asyncio.Semaphore) -> Orphan:
        attempt = str(orphan.attempt)
        async with turns:
            try:
                report = await runtime.cleanup(AttemptScope(id=orphan.attempt, grace=timedelta(0)))
            except FlexCoreError as error:
                _log.warning("sweep.not_removed", runtime=name, attempt=attempt, reason=error.message)
                return replace(orphan, remains=error.message)
        remains = "; ".join(report.unknown.values()) or ("it is still ending" if report.pending else "")
        _log.info("sweep.not_removed" if remains else "sweep.removed", runtime=name, attempt=attempt)
        return replace(orphan, remains=remains)


def in_flight(state: ExecutionState) -> frozenset[AttemptId]:
    """Name the attempts whose result is still wanted: each until its end is committed."""
    header = state.header
    if header.status.is_terminal:
        return frozenset()
    return frozenset(AttemptId(header.id, step.path, step.attempt) for step in state.steps.values() if step.in_flight)


def _ours(report: CleanupReport, installation: str) -> dict[str, AttemptId]:
    """Take what is known by attempt and bears the name that this very installation gives it."""
    found = {name: attempt for name, attempt in report.attempts.items() if name not in report.retained}
    return {name: attempt for name, attempt in found.items() if name == external_name(installation, attempt)}
