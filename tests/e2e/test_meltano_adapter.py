"""The Meltano adapter on the real thing: the template's project, its own tap, a target from PyPI, real data.

One project is installed once for all tests; each has a state id and a target file of its own.
"""

import asyncio
import importlib.util
import itertools
import os
import shutil
import signal
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from flexcore_meltano.attempt_main import MARKER
from flexcore_meltano.plugin import PLUGIN

from flexcore.model.execution import Handle, Phase
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import AttemptId, ExecutionId, StepPath
from flexcore.model.values import Ref
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import (
    AttemptScope,
    ExecutionEvent,
    ExecutionRequest,
    ExecutionResult,
    ExecutionScope,
    Failed,
    Finished,
    LogChunk,
    LogStream,
    MetricSample,
    PhaseEntered,
    Progress,
    Runtime,
    Submitted,
    Succeeded,
    Survey,
)
from flexcore.runtime.plugin import RuntimeContext
from flexcore.runtime.shim import find, owned_processes

TEMPLATE = Path(__file__).parents[2] / "templates" / "singer_extraction"
ROWS = 27_020  # 27,004 flights and 16 airlines
GRACE = timedelta(seconds=10)
numbers = itertools.count(1)

pytestmark = pytest.mark.skipif(not os.path.exists("/proc"), reason="needs Linux")  # noqa: PTH110 (at import, once)


class NoArtifacts:
    """The adapter moves no artifacts."""

    async def put(self, data: bytes, *, format: str = "json") -> Ref:
        raise AssertionError

    async def get(self, ref: Ref) -> bytes:
        raise AssertionError


@dataclass(frozen=True)
class Site:
    """A home of FlexCore and a workflow's folder."""

    home: Path
    folder: Path

    @property
    def installation(self) -> str:
        """External names come from it: two tests at once must not share them."""
        return f"in {self.home}"

    def runtime(self) -> Runtime:
        context = RuntimeContext(
            installation=self.installation,
            state_folder=self.home / "runtimes" / "meltano",
            artifacts=NoArtifacts(),
            now=lambda: datetime.now(UTC),
        )
        return PLUGIN.create("meltano", PLUGIN.config(), context)

    def request(self, name: str, **parameters: Any) -> ExecutionRequest:
        given: dict[str, Any] = {
            "project": "./meltano",
            "tap": "tap-flights",
            "target": "target-duckdb",
            "state": name,
            "config": {"target-duckdb": {"path": f"$FLEXCORE_OUTPUT/{name}.duckdb"}},
        }
        attempt = AttemptId(ExecutionId(f"exe_{next(numbers)}"), StepPath("extract"), 1)
        return ExecutionRequest(
            id=attempt,
            token=1,
            kind=StepKind.SINGER,
            parameters={**given, **parameters},
            folder=self.folder,
            workflow="singer_extraction",
            grace=GRACE,
        )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """The template in a folder of its author, with its plugins installed by a first run."""
    base = tmp_path_factory.mktemp("meltano")
    copy = Site(base / ".flexcore", base / "singer_extraction")
    shutil.copytree(TEMPLATE, copy.folder, ignore=shutil.ignore_patterns(".meltano", "*.duckdb", "__pycache__"))
    return copy


@pytest.fixture(scope="module")
def first(site: Site) -> tuple[list[ExecutionEvent], ExecutionResult]:
    """The first run of all, which installs."""
    return asyncio.run(run(site.runtime(), site.request("first")))


async def run(runtime: Runtime, request: ExecutionRequest) -> tuple[list[ExecutionEvent], ExecutionResult]:
    events = [event async for event in runtime.execute(request)]
    assert isinstance(events[-1], Finished)
    return events, events[-1].result


async def result_of(runtime: Runtime, request: ExecutionRequest) -> ExecutionResult:
    return (await run(runtime, request))[1]


async def until_rows_flow(events: AsyncGenerator[ExecutionEvent, None]) -> list[ExecutionEvent]:
    """Read until the tap is in the middle of the flights."""
    seen: list[ExecutionEvent] = []
    async for event in events:
        seen.append(event)
        if isinstance(event, MetricSample) and event.name == "bytes" and event.value > 300_000:
            return seen
    raise AssertionError(f"it ended before: {seen[-1]}")


def output(result: ExecutionResult) -> Any:
    assert isinstance(result.outcome, Succeeded), result.outcome
    return result.outcome.output


def handle_in(events: list[ExecutionEvent]) -> Handle:
    assert isinstance(events[0], Submitted)
    return events[0].handle


def check(extracted: Any) -> Any:
    """Run the template's own check: every flight of the source is in the target exactly once."""
    spec = importlib.util.spec_from_file_location("template_check", TEMPLATE / "check.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main(extracted, 27_004)


async def eventually(holds: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < until, f"never: {what}"
        await asyncio.sleep(0.05)


def test_the_first_run_installs_and_loads_every_row(first: tuple[list[ExecutionEvent], ExecutionResult]) -> None:
    events, result = first
    extracted = output(result)

    phases = [event.phase for event in events if isinstance(event, PhaseEntered)]
    assert phases == [Phase.START, Phase.RUN]
    assert Progress(None, "installing tap-flights, target-duckdb") in events
    assert extracted["rows"] == result.usage.rows == ROWS
    assert [(each["name"], each["rows"]) for each in extracted["streams"]] == [("airlines", 16), ("flights", 27_004)]
    assert extracted["bytes"] > 1_900_000
    assert extracted["state_before"] is None
    assert extracted["state_after"]["bookmarks"]["flights"]["replication_key_value"] == 27_004
    assert not extracted["incremental"]
    assert [
        (each["bookmark_before"], each["bookmark_after"]["replication_key_value"]) for each in extracted["streams"]
    ] == [
        (None, 16),
        (None, 27_004),
    ]
    assert (extracted["plugins"]["tap-flights"]["rows"], extracted["plugins"]["target-duckdb"]["rows"]) == (ROWS, None)
    assert extracted["plugins"]["target-duckdb"]["output_location"] == extracted["output_location"]
    assert check(extracted)["rows"] == 27_004


async def test_the_second_run_is_incremental_and_says_so(site: Site, first: object) -> None:
    events, result = await run(site.runtime(), site.request("first"))
    extracted = output(result)

    assert (extracted["rows"], extracted["incremental"]) == (0, True)
    assert extracted["state_before"] == extracted["state_after"]
    assert not any(isinstance(event, PhaseEntered) and event.phase is Phase.START for event in events)
    assert check(extracted)["rows"] == 27_004


async def test_parallel_runs_of_one_tap_never_collide(site: Site, first: object) -> None:
    runtime = site.runtime()

    results = await asyncio.gather(*(result_of(runtime, site.request(f"side{number}")) for number in range(3)))

    assert [output(result)["rows"] for result in results] == [ROWS] * 3
    assert [check(output(result))["rows"] for result in results] == [27_004] * 3


async def test_the_same_state_id_waits_for_the_run_that_holds_it(site: Site, first: object) -> None:
    runtime = site.runtime()
    holder = runtime.execute(site.request("same"))
    await until_rows_flow(holder)

    events, result = await run(runtime, site.request("same"))

    assert any(isinstance(event, PhaseEntered) and event.phase is Phase.QUEUE for event in events)
    assert (output(result)["rows"], output(result)["incremental"]) == (0, True)
    await holder.aclose()


async def test_a_detached_run_goes_on_is_listed_and_is_adopted_with_its_totals(site: Site, first: object) -> None:
    request = site.request("adopted")
    before = site.runtime().execute(request)
    seen = await until_rows_flow(before)
    await before.aclose()
    listed = await site.runtime().cleanup(Survey(site.installation))
    read = [event for event in seen if isinstance(event, LogChunk) and event.stream is LogStream.STDERR]
    offset = read[-1].offset + len(read[-1].data) if read else 0
    again = replace(request, handle=handle_in(seen), log_offsets={LogStream.STDERR: offset})

    events, result = await run(site.runtime(), again)

    assert listed.attempts[handle_in(seen).name] == request.id
    assert events[0] == Submitted(handle_in(seen), adopted=True, prepares=True)
    chunks = [event for event in events if isinstance(event, LogChunk) and event.stream is LogStream.STDERR]
    assert chunks[0].offset == offset
    assert output(result)["rows"] == ROWS
    assert output(result)["state_before"] is None
    assert check(output(result))["rows"] == 27_004


async def test_a_finished_run_gives_the_same_result_again_until_it_is_removed(
    site: Site, first: tuple[list[ExecutionEvent], ExecutionResult]
) -> None:
    runtime, request = site.runtime(), site.request("failing", config={"tap-flights": {"files": []}})
    events, result = await run(runtime, request)

    again, same = await run(runtime, request)
    listed = await runtime.cleanup(Survey(site.installation))
    removed = await runtime.cleanup(ExecutionScope(execution=request.id.execution, grace=GRACE))
    gone = await result_of(runtime, replace(request, handle=handle_in(events)))

    assert again[0] == Submitted(handle_in(events), adopted=True, prepares=True)
    assert same == result
    assert listed.attempts[handle_in(events).name] == request.id
    assert removed.gone == {handle_in(events).name}
    assert isinstance(gone.outcome, Failed)
    assert gone.outcome.failure.error_class is ErrorClass.LOST
    assert handle_in(events).name not in (await runtime.cleanup(Survey(site.installation))).pending
    assert (await runtime.cleanup(Survey("ins_other"))).pending == frozenset()


async def test_cancel_ends_tap_and_target_and_the_next_run_repairs_the_target(site: Site, first: object) -> None:
    runtime, request = site.runtime(), site.request("cancelled")
    async with aclosing(runtime.execute(request)) as events:
        name = handle_in(await until_rows_flow(events)).name
        assert len(owned_processes(name)) >= 4

        report = await runtime.cleanup(AttemptScope(id=request.id, grace=GRACE))
        rest = [event async for event in events]

    assert report.gone == {name}
    assert isinstance(rest[-1], Finished)
    assert isinstance(rest[-1].result.outcome, Failed)
    assert rest[-1].result.outcome.failure.error_class is ErrorClass.CANCELLED
    assert not owned_processes(name)
    assert check(output(await result_of(runtime, site.request("cancelled"))))["rows"] == 27_004


async def test_a_run_killed_with_its_shim_is_lost_and_does_not_block_its_state_id(site: Site, first: object) -> None:
    runtime, request = site.runtime(), site.request("killed")
    async with aclosing(runtime.execute(request)) as events:
        name = handle_in(await until_rows_flow(events)).name
        for pid in owned_processes(name) | {shim_pid(site, name)}:
            with suppress(ProcessLookupError):  # the tap dies of its pipe
                os.kill(pid, signal.SIGKILL)
        rest = [event async for event in events]

    assert isinstance(rest[-1], Finished)
    assert isinstance(rest[-1].result.outcome, Failed)
    assert rest[-1].result.outcome.failure.error_class is ErrorClass.LOST
    await eventually(lambda: not owned_processes(name), "nothing of the killed run is left")
    started = time.monotonic()
    assert check(output(await result_of(runtime, site.request("killed"))))["rows"] == 27_004
    assert time.monotonic() - started < 60  # Meltano alone refuses for five minutes


def shim_pid(site: Site, name: str) -> int:
    """Read which process is the shim of an attempt."""
    record = find(site.home / "runtimes" / "meltano" / "attempts" / name).record
    assert record is not None
    return record.pid


async def test_a_half_done_installation_is_done_again(site: Site, first: object) -> None:
    plugin = site.folder / "meltano" / ".meltano" / "extractors" / "tap-flights"
    (plugin / MARKER).unlink()
    shutil.rmtree(next((plugin / "venv" / "lib").glob("python*")) / "site-packages" / "singer_sdk")

    events, result = await run(site.runtime(), site.request("first"))

    assert Progress(None, "installing tap-flights") in events
    assert output(result)["incremental"]


@pytest.mark.parametrize(
    ("parameters", "words", "hint"),
    [
        ({"tap": "tap-nothing"}, "no extractor 'tap-nothing'", "tap-flights"),
        ({"project": "./elsewhere"}, "no Meltano project", "meltano.yml"),
        ({"config": {"tap-flights": {"fiels": []}}}, "no setting 'fiels'", "files"),
        ({"taps": ["a"]}, "either tap or taps", ""),
    ],
)
async def test_what_cannot_work_is_refused_before_anything_starts(
    site: Site, parameters: dict[str, Any], words: str, hint: str
) -> None:
    events, result = await run(site.runtime(), site.request("refused", **parameters))

    assert len(events) == 1
    assert isinstance(result.outcome, Failed)
    assert result.outcome.failure.error_class is ErrorClass.INPUT
    assert words in result.outcome.failure.message
    assert hint in result.outcome.failure.hint


async def test_a_secret_in_the_command_line_is_refused(site: Site) -> None:
    parameters = {"project": "./meltano", "args": ["invoke", "tap-flights", "--token=hunter2"]}
    request = replace(site.request("x"), kind=StepKind.MELTANO, parameters=parameters, secrets=("hunter2",))

    events, result = await run(site.runtime(), request)

    assert len(events) == 1
    assert isinstance(result.outcome, Failed)
    assert "hunter2" not in str(result.outcome.failure)


async def test_a_tap_that_fails_is_named_with_its_last_words_but_no_secret(site: Site, first: object) -> None:
    files = [{"stream": "x", "path": "data/hunter2.csv", "key": "id", "columns": {"id": "integer"}}]
    request = replace(site.request("failing", config={"tap-flights": {"files": files}}), secrets=("hunter2",))

    result = await result_of(site.runtime(), request)

    assert isinstance(result.outcome, Failed)
    assert (result.outcome.failure.error_class, result.outcome.failure.name) == (ErrorClass.USER, "tap-flights exit 1")
    assert "No such file or directory: 'data/***.csv'" in result.outcome.failure.message


async def test_the_time_limit_ends_the_run(site: Site, first: object) -> None:
    request = replace(site.request("late"), deadline=datetime.now(UTC) + timedelta(seconds=1))

    events, result = await run(site.runtime(), request)

    assert isinstance(result.outcome, Failed)
    assert result.outcome.failure.error_class is ErrorClass.TIMEOUT
    assert not owned_processes(handle_in(events).name)


async def test_other_meltano_commands_give_what_they_print(site: Site, first: object) -> None:
    parameters = {"project": "./meltano", "args": ["invoke", "tap-flights", "--about", "--format=json"]}
    request = replace(site.request("other"), kind=StepKind.MELTANO, parameters=parameters)

    result = await result_of(site.runtime(), request)

    assert "tap-flights" in str(output(result))


async def test_a_new_deployed_version_keeps_plugins_and_bookmarks(site: Site, tmp_path: Path) -> None:
    results = []
    for version in ("v1", "v2"):
        folder = tmp_path / ".flexcore" / "bundles" / version
        shutil.copytree(TEMPLATE, folder, ignore=shutil.ignore_patterns(".meltano", "*.duckdb", "__pycache__"))
        deployed = Site(tmp_path / ".flexcore", folder)
        results.append(output(await result_of(deployed.runtime(), deployed.request("deployed"))))

    assert [each["rows"] for each in results] == [ROWS, 0]
    assert results[1]["incremental"]
    assert results[0]["output_location"] == results[1]["output_location"]
    assert not (tmp_path / ".flexcore" / "bundles" / "v1" / "meltano" / ".meltano").exists()
    assert check(results[1])["rows"] == 27_004
