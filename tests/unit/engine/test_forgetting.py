"""What an attempt left goes once its result is durable, also if the runtime is away for a moment then."""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flexcore.engine.actions import Children, Performer
from flexcore.engine.attempts import Driver
from flexcore.engine.live import Live
from flexcore.engine.work import ForgetAttempt
from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Handle, StepState
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.lifecycle import StepStatus
from flexcore.runtime.interface import CleanupReport, CleanupScope

STEP = StepPath("load")


class Away:
    """A runtime that is away for so many calls."""

    def __init__(self, calls: int) -> None:
        self.left, self.asked = calls, 0

    async def cleanup(self, scope: CleanupScope) -> CleanupReport:
        self.asked += 1
        self.left -= 1
        if self.left >= 0:
            raise RuntimeUnavailable("away")
        return CleanupReport(gone=frozenset({"fx-1"}))


@pytest.mark.parametrize(("away", "asked"), [(0, 1), (2, 3), (3, 4), (99, 4)])
async def test_what_is_left_is_removed_in_a_few_tries(away: int, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    async def pause(seconds: float) -> None:
        pauses.append(seconds)

    monkeypatch.setattr("flexcore.engine.actions.asyncio.sleep", pause)
    runtime = Away(away)
    driver = SimpleNamespace(runtimes=SimpleNamespace(get=lambda name: runtime))
    step = StepState(
        path=STEP, kind="bash", status=StepStatus.SUCCEEDED, attempt=1, runtime="r", handle=Handle(1, "fx-1", "")
    )
    live = SimpleNamespace(id=ExecutionId("exe_1"), state=SimpleNamespace(steps={STEP: step}), handles={})

    def spawn(work: Any) -> asyncio.Task[None]:
        return asyncio.ensure_future(work)

    performer = Performer(cast(Driver, driver), cast(Children, None), lambda live, event: None, spawn)
    performer.perform(cast(Live, live), ForgetAttempt(STEP))
    await performer.forgotten(10)

    assert runtime.asked == asked
    assert len(pauses) == min(away, 3)  # nobody waits after the last try
