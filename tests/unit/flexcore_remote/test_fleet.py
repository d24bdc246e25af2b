"""Several servers behind one name: a step is at one of them, the right one, and never at two."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from flexcore_remote.config import RemoteConfig
from flexcore_remote.runtime import RemoteRuntime

from flexcore.model.errors import RuntimeUnavailable
from flexcore.model.execution import Handle
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.model.workflow import Requirements
from flexcore.runtime.interface import (
    AttemptScope,
    Capabilities,
    ExecutionRequest,
    Failed,
    Finished,
    Health,
    Resources,
    Runtime,
    Submitted,
    Succeeded,
)
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import attempt_id, execution_request, runtime_context
from flexcore.testing.fakes import ScriptedRuntime, World
from flexcore.testing.runtime_remote import TOKEN, served

HERE = "test-installation"
NOBODY = "127.0.0.1:9"  # the port where nothing listens
OPEN: dict[str, Any] = {"output": 1}
GATED = {**OPEN, "gate": "never"}


class Sized(ScriptedRuntime):
    """A scripted runtime that says what it can do."""

    found: Capabilities

    async def capabilities(self) -> Capabilities:
        return replace(await super().capabilities(), limits=self.found.limits, tags=self.found.tags)


@dataclass
class Machine:
    """A machine with a served runtime, and what runs there."""

    limits: Resources = field(default_factory=Resources)
    tags: frozenset[str] = frozenset()  # those that it says itself
    listed: frozenset[str] = frozenset()  # those of the settings
    world: World = field(default_factory=lambda: World(RealClock()))
    address: str = ""

    async def runtime(self, installation: str) -> Runtime:
        runtime = Sized(self.world, installation)
        runtime.found = Capabilities(step_kinds=frozenset(), limits=self.limits, tags=self.tags)
        return runtime

    def has(self, request: ExecutionRequest) -> bool:
        return external_name(HERE, request.id) in self.world.works


@asynccontextmanager
async def fleet(folder: Path, *machines: Machine, more: tuple[str, ...] = ()) -> AsyncIterator[RemoteRuntime]:
    """Serve each machine's runtime, and give the runtime of all, and of addresses where nobody listens."""
    async with AsyncExitStack() as closing:
        for number, each in enumerate(machines):
            name = f"{number}".encode()
            each.address = await closing.enter_async_context(served(each, folder / f"{number}", name=name))
        runtime = opened(folder, *({"address": each.address, "tags": each.listed} for each in machines), *more)
        closing.push_async_callback(runtime.close)
        yield runtime


def opened(folder: Path, *addresses: Any) -> RemoteRuntime:
    config = RemoteConfig.model_validate({"addresses": list(addresses), "token": TOKEN, "reconnects": 0})
    return RemoteRuntime("far", config, runtime_context(folder, installation=HERE, clock=RealClock()))


def step(name: str, parameters: Any = None, **changes: Any) -> ExecutionRequest:
    return execution_request(parameters or OPEN, id=attempt_id(name), grace=timedelta(0), **changes)


async def submitted(runtime: RemoteRuntime, request: ExecutionRequest) -> Handle:
    """Start an attempt and go away."""
    async with aclosing(runtime.execute(request)) as events:
        async for event in events:
            if isinstance(event, Submitted):
                return event.handle
    raise AssertionError("not submitted")


async def end(runtime: RemoteRuntime, request: ExecutionRequest) -> Any:
    events = [event async for event in runtime.execute(request)]
    assert isinstance(events[-1], Finished)
    return events[-1].result.outcome


async def test_new_steps_go_to_the_least_busy(tmp_path: Path) -> None:
    one, two = Machine(), Machine()
    async with fleet(tmp_path, one, two) as runtime, AsyncExitStack() as reading:
        for name in ("a", "b", "c", "d"):
            events = await reading.enter_async_context(aclosing(runtime.execute(step(name, GATED, fresh=True))))
            assert isinstance(await anext(events), Submitted)

        assert [len(each.world.works) for each in (one, two)] == [2, 2]


@pytest.mark.parametrize("where", ["tags", "listed"])
async def test_a_step_goes_where_its_tags_are(tmp_path: Path, where: str) -> None:
    plain, special = Machine(), Machine(**{where: frozenset({"gpu"})})
    async with fleet(tmp_path, plain, special) as runtime:
        for name in ("a", "b", "c"):
            await end(runtime, step(name, requirements=Requirements(tags=("gpu",)), fresh=True))

    assert [len(each.world.works) for each in (plain, special)] == [0, 3]


async def test_a_tag_of_the_whole_runtime_keeps_nobody_out(tmp_path: Path) -> None:
    one, two = Machine(), Machine()
    async with fleet(tmp_path, one, two) as runtime:
        outcome = await end(runtime, step("a", requirements=Requirements(tags=("of-the-settings",)), fresh=True))

    assert outcome == Succeeded(1)


async def test_a_large_step_goes_where_it_fits(tmp_path: Path) -> None:
    small, large = Machine(limits=Resources(memory=1 << 30, cpu=2)), Machine(limits=Resources(memory=8 << 30, cpu=8))
    async with fleet(tmp_path, small, large) as runtime:
        for name in ("a", "b", "c"):
            await end(runtime, step(name, requirements=Requirements(memory=4 << 30), fresh=True))
        outcome = await end(runtime, step("d", requirements=Requirements(cpu=16), fresh=True))

    assert [len(each.world.works) for each in (small, large)] == [0, 3]
    assert isinstance(outcome, Failed) and outcome.failure.error_class is ErrorClass.INPUT


async def test_a_server_whose_runtime_is_down_gets_nothing_new(tmp_path: Path) -> None:
    ill, well = Machine(), Machine()
    ill.world.health = Health.DOWN
    async with fleet(tmp_path, ill, well) as runtime:
        for name in ("a", "b", "c"):
            await end(runtime, step(name, fresh=True))
        status = await runtime.health()

    assert [len(each.world.works) for each in (ill, well)] == [0, 3]
    assert status.state is Health.DEGRADED


async def test_an_attempt_is_found_where_it_was_started_without_its_handle(tmp_path: Path) -> None:
    one, two = Machine(), Machine()
    async with fleet(tmp_path, one, two) as runtime:
        requests = [step(name) for name in ("a", "b", "c", "d")]
        first = [await submitted(runtime, each) for each in requests]
        again = [await submitted(runtime, each) for each in requests]

    assert first == again
    assert len(one.world.works) + len(two.world.works) == 4


async def test_a_handle_is_good_at_its_server_whatever_the_others_do(tmp_path: Path) -> None:
    one, two = Machine(), Machine()
    async with fleet(tmp_path, one, two, more=(NOBODY,)) as runtime:
        request = step("a", fresh=True)
        handle = await submitted(runtime, request)

        assert await end(runtime, replace(request, handle=handle, fresh=False)) == Succeeded(1)
        report = await runtime.cleanup(AttemptScope(id=request.id, handle=handle))

    assert report.gone == {handle.name}
    assert not report.unknown


async def test_what_was_asked_for_before_waits_for_a_server_that_cannot_be_asked(tmp_path: Path) -> None:
    one = Machine()
    async with fleet(tmp_path, one, more=(NOBODY,)) as runtime:
        with pytest.raises(RuntimeUnavailable, match="nobody listens there"):
            await end(runtime, step("a"))

    assert not one.world.works


async def test_what_nobody_asked_for_before_goes_to_a_server_that_can_be_asked(tmp_path: Path) -> None:
    one = Machine()
    async with fleet(tmp_path, one, more=(NOBODY,)) as runtime:
        assert await end(runtime, step("a", fresh=True)) == Succeeded(1)


async def test_a_tag_that_only_the_missing_server_may_have_is_waited_for(tmp_path: Path) -> None:
    one = Machine()
    async with fleet(tmp_path, one, more=(NOBODY,)) as runtime:
        with pytest.raises(RuntimeUnavailable, match="nobody listens there"):
            await end(runtime, step("a", requirements=Requirements(tags=("gpu",)), fresh=True))

    assert not one.world.works


async def test_without_a_handle_a_cleanup_is_unknown_while_a_server_cannot_be_asked(tmp_path: Path) -> None:
    one = Machine()
    async with fleet(tmp_path, one, more=(NOBODY,)) as runtime:
        request = step("a", GATED, fresh=True)
        handle = await submitted(runtime, request)
        report = await runtime.cleanup(AttemptScope(id=request.id, grace=timedelta(0)))

    assert handle.name not in report.gone
    assert "nobody listens there" in report.unknown[handle.name]


async def test_work_of_a_server_that_was_taken_out_is_lost(tmp_path: Path) -> None:
    one, two = Machine(), Machine(listed=frozenset({"there"}))
    async with fleet(tmp_path, one, two) as runtime:
        request = step("a", GATED, requirements=Requirements(tags=("there",)), fresh=True)
        handle = await submitted(runtime, request)
        rest = opened(tmp_path, one.address)
        outcome = await end(rest, replace(request, handle=handle))
        await rest.close()

    assert isinstance(outcome, Failed) and outcome.failure.error_class is ErrorClass.LOST
    assert not one.has(request)
