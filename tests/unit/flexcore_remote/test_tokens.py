"""A token in a file may be replaced while the control plane runs: whoever is refused reads the file again."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from flexcore_local.plugin import PLUGIN as LOCAL
from flexcore_remote.config import RemoteConfig
from flexcore_remote.runtime import RemoteRuntime
from pydantic import ValidationError

from flexcore.model.errors import RuntimeUnavailable
from flexcore.runtime.interface import Finished, Health, Succeeded
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import execution_request, runtime_context
from flexcore.testing.runtime_harness import Behaviour
from flexcore.testing.runtime_processes import BashHarness
from flexcore.testing.runtime_remote import TOKEN, served


@pytest.fixture
def harness(tmp_path: Path) -> BashHarness:
    return BashHarness.of(LOCAL, tmp_path / "inner")


@pytest.fixture
async def runtime(harness: BashHarness, tmp_path: Path) -> AsyncIterator[RemoteRuntime]:
    (tmp_path / "token").write_text("the-token-of-before")
    (tmp_path / "files").mkdir()
    async with served(harness, tmp_path / "server") as address:
        config = RemoteConfig.model_validate({"address": address, "token_file": tmp_path / "token"})
        connected = RemoteRuntime("far", config, runtime_context(tmp_path / "client", clock=RealClock()))
        yield connected
        await connected.close()


async def test_the_next_call_after_a_refusal_has_the_token_of_now(runtime: RemoteRuntime, tmp_path: Path) -> None:
    before = await runtime.health()
    (tmp_path / "token").write_text(f"{TOKEN}\n")

    refused, accepted = await runtime.health(), await runtime.health()

    assert [each.state for each in (before, refused, accepted)] == [Health.DOWN, Health.DOWN, Health.UP]
    assert "does not accept our token" in refused.reason


async def test_a_step_that_was_refused_is_done_with_the_token_of_now(
    runtime: RemoteRuntime, harness: BashHarness, tmp_path: Path
) -> None:
    parameters = harness.parameters(Behaviour())
    request = execution_request(kind=harness.kind, parameters=parameters, folder=tmp_path / "files")
    with pytest.raises(RuntimeUnavailable, match="token"):
        _ = [event async for event in runtime.execute(request)]
    (tmp_path / "token").write_text(TOKEN)
    with pytest.raises(RuntimeUnavailable, match="token"):
        _ = [event async for event in runtime.execute(request)]

    events = [event async for event in runtime.execute(request)]

    assert isinstance(events[-1], Finished)
    assert isinstance(events[-1].result.outcome, Succeeded)


async def test_a_file_that_is_missing_for_a_moment_is_read_after_the_next_refusal(
    runtime: RemoteRuntime, tmp_path: Path
) -> None:
    await runtime.health()
    (tmp_path / "token").unlink()
    without = await runtime.health()
    (tmp_path / "token").write_text(TOKEN)

    refused, accepted = await runtime.health(), await runtime.health()

    assert "does not accept our token" in without.reason
    assert [refused.state, accepted.state] == [Health.DOWN, Health.UP]


async def test_a_file_that_was_never_there_is_named_and_read_once_it_is(runtime: RemoteRuntime, tmp_path: Path) -> None:
    (tmp_path / "token").unlink()

    without = await runtime.health()
    (tmp_path / "token").write_text(TOKEN)
    accepted = await runtime.health()

    assert (without.state, accepted.state) == (Health.DOWN, Health.UP)
    assert f"its token_file {tmp_path / 'token'} cannot be read" in without.reason


async def test_a_file_without_a_token_is_named_with_its_server(runtime: RemoteRuntime, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("two\nlines")

    found = await runtime.health()

    assert found.state is Health.DOWN
    assert "server 127.0.0.1:" in found.reason
    assert f"its token_file {tmp_path / 'token'} holds no token" in found.reason


@pytest.mark.parametrize("token", ["", "two\nlines", "schl\u00fcssel"])
def test_a_token_that_cannot_be_sent_is_a_mistake_of_the_settings(token: str) -> None:
    with pytest.raises(ValidationError, match="`token` has to be printable ASCII, on one line"):
        RemoteConfig.model_validate({"address": "127.0.0.1:1", "token": token})
