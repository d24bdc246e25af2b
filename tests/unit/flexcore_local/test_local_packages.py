"""Steps with `packages` on the local runtime, with the real installer and an index of their own on this machine."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psutil
import pytest
from local_steps import Local, Seen, eventually
from package_index import PackageIndex, package_index

from flexcore.model.execution import Phase
from flexcore.model.failure import ErrorClass
from flexcore.model.ids import external_name
from flexcore.model.workflow import Requirements
from flexcore.runtime import shim
from flexcore.runtime.interface import (
    ExecutionRequest,
    Finished,
    LogChunk,
    LogStream,
    PhaseEntered,
    Submitted,
    Survey,
)

WAITS = "import os, time\ndef main():\n    while not os.path.exists('go'): time.sleep(0.01)\n    return 1"
VERSION = "def main():\n    import tiny\n    return tiny.VERSION"


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PackageIndex]:
    with package_index(tmp_path / "cache") as served:
        served.add("tiny")
        yield served


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    built = Local(tmp_path, slots=4)
    yield built
    await built.runtime.close()


def step(index: PackageIndex, script: str = VERSION, packages: tuple[str, ...] = ("tiny",), **more: Any) -> Any:
    return {"script": script, "packages": list(packages), "env": dict(index.env), **more}


def phases(seen: Seen) -> list[Phase]:
    return [event.phase for event in seen.events if isinstance(event, PhaseEntered)]


def builds(seen: Seen) -> int:
    return seen.log(LogStream.SYSTEM).count(b"flexcore: building")


def environments(local: Local) -> list[str]:
    return sorted(each.name for each in (local.state / "environments").glob("*") if not each.suffix)


def folder_of(local: Local, request: ExecutionRequest) -> Path:
    return local.state / "attempts" / external_name(local.installation, request.id)


async def test_a_python_step_gets_its_packages_in_a_phase_of_their_own(local: Local, index: PackageIndex) -> None:
    seen = await local.run("python", step(index))

    assert seen.output == "1.0"
    assert seen.submitted.prepares
    assert phases(seen) == [Phase.START, Phase.RUN]
    assert b"+ tiny==1.0" in seen.log(LogStream.SYSTEM)
    assert seen.log(LogStream.STDERR) == b""
    last = seen.events[-1]
    assert isinstance(last, Finished)
    assert set(last.result.phases) == {Phase.START, Phase.RUN}


async def test_an_environment_is_built_once_for_all_spellings(local: Local, index: PackageIndex) -> None:
    first = await local.run("python", step(index, packages=("tiny", "tiny>=0.5")))
    second = await local.run("python", step(index, packages=("Tiny >= 0.5", "TINY")))

    assert (first.output, second.output) == ("1.0", "1.0")
    assert (builds(first), builds(second)) == (1, 0)
    assert len(environments(local)) == 1


async def test_steps_at_the_same_time_build_it_once(local: Local, index: PackageIndex) -> None:
    index.open.clear()
    running = [asyncio.create_task(local.run("python", step(index))) for _ in range(3)]
    await eventually(lambda: bool(index.asked))
    index.open.set()
    seen = await asyncio.gather(*running)

    assert [each.output for each in seen] == ["1.0"] * 3
    assert sum(map(builds, seen)) == 1


async def test_a_step_sees_its_packages_and_nothing_of_flexcore(local: Local, index: PackageIndex) -> None:
    script = """
def main():
    import importlib.util, sys, tiny
    there = [name for name in ("flexcore", "msgspec", "pydantic", "pytest") if importlib.util.find_spec(name)]
    return {"there": there, "stdin": sys.stdin.read()}
"""
    seen = await local.run("python", step(index, script))

    assert seen.output == {"there": [], "stdin": ""}


async def test_what_steers_the_installer_does_not_reach_the_step(
    tmp_path: Path, index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_INDEX_MINE_PASSWORD", "hunter2")
    monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
    local = Local(tmp_path, slots=1)
    script = "import os\ndef main():\n    os.lseek(0, 0, 0)\n    return [dict(os.environ), os.read(0, 99999).decode()]"

    seen = await local.run("python", {"script": script, "packages": ["tiny"]})

    assert "hunter2" not in str(seen.output)
    assert "UV_DEFAULT_INDEX" not in str(seen.output)


async def test_a_bash_step_finds_the_programs_of_its_packages(local: Local, index: PackageIndex) -> None:
    script = 'tiny; [ "$1" = "a b" ]; python -c "import tiny, json; print(json.dumps(tiny.VERSION))"'

    seen = await local.run("bash", step(index, script, args=["a b"]))

    assert seen.output == "1.0"
    assert seen.log() == b'tiny 1.0\n"1.0"\n'


@pytest.mark.parametrize(
    ("packages", "name", "words"),
    [
        (("no-such-one",), "NoSuchPackage", "no-such-one was not found"),
        (("tiny==1.0", "needs"), "Conflict", "needs"),
        (("tiny==7",), "Conflict", "tiny==7"),
    ],
)
async def test_what_cannot_be_installed_is_the_authors_to_change(
    local: Local, index: PackageIndex, packages: tuple[str, ...], name: str, words: str
) -> None:
    index.add("needs", requires="tiny>=2")
    seen = await local.run("python", step(index, packages=packages))

    assert (seen.failure.error_class, seen.failure.name) == (ErrorClass.USER, name)
    assert words in seen.failure.message
    assert seen.failure.hint
    assert phases(seen) == [Phase.START]
    assert environments(local) == []


async def test_no_network_is_not_the_authors_fault(local: Local, index: PackageIndex) -> None:
    env = {**index.env, "UV_DEFAULT_INDEX": "http://127.0.0.1:9/simple", "UV_HTTP_RETRIES": "0"}

    seen = await local.run("python", {"script": VERSION, "packages": ["tiny"], "env": env})

    assert (seen.failure.error_class, seen.failure.name) == (ErrorClass.DEPENDENCY, "NoPackageIndex")


async def test_without_the_installer_the_failure_says_what_is_missing(
    local: Local, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flexcore_local.preparation.find_uv", lambda: None)

    seen = await local.run("python", {"script": VERSION, "packages": ["tiny"]})

    assert (seen.failure.error_class, seen.failure.name) == (ErrorClass.DEPENDENCY, "NoInstaller")
    assert "uv" in seen.failure.hint


async def test_options_and_secrets_in_packages_are_refused(local: Local) -> None:
    option = await local.run("python", {"script": VERSION, "packages": ["--pre"]})
    secret = await local.run(
        "python", {"script": VERSION, "packages": ["a @ https://example.org/hunter2/a.whl"]}, secrets=("hunter2",)
    )

    assert option.failure.error_class is ErrorClass.INPUT
    assert secret.failure.error_class is ErrorClass.INPUT
    assert "hunter2" not in secret.failure.message
    assert len(option.events) == len(secret.events) == 1


async def test_the_time_limit_does_not_count_the_build(local: Local, index: PackageIndex) -> None:
    index.open.clear()
    limit = timedelta(seconds=3)
    request = local.request("python", step(index), deadline=datetime.now(UTC) + limit)
    running = asyncio.create_task(local.execute(request))
    await eventually(lambda: bool(index.asked))
    await asyncio.sleep(limit.total_seconds())  # what is tested is that this much time changes nothing
    index.open.set()

    assert (await running).output == "1.0"


async def test_the_time_limit_counts_from_the_first_line_of_the_step(local: Local, index: PackageIndex) -> None:
    script = "def main():\n    import time\n    time.sleep(60)"
    request = local.request("python", step(index, script), deadline=datetime.now(UTC) + timedelta(seconds=0.3))

    seen = await local.execute(request)

    assert seen.failure.error_class is ErrorClass.TIMEOUT
    assert phases(seen) == [Phase.START, Phase.RUN]


async def test_memory_of_the_build_is_not_the_steps(local: Local, index: PackageIndex) -> None:
    script = "def main():\n    import time\n    x = b'x' * (300 << 20)\n    time.sleep(60)"
    few = Requirements(memory=60 << 20)

    fine = await local.run("python", step(index), requirements=few)
    greedy = await local.run("python", step(index, script), requirements=few)

    assert fine.output == "1.0"
    assert greedy.failure.error_class is ErrorClass.OOM


async def test_a_build_that_takes_too_long_is_ended(tmp_path: Path, index: PackageIndex) -> None:
    index.open.clear()
    local = Local(tmp_path, slots=1, packages_timeout=0.5)

    seen = await local.run("python", step(index), grace=timedelta(seconds=1))

    assert (seen.failure.error_class, seen.failure.name) == (ErrorClass.DEPENDENCY, "EnvironmentTimeout")
    assert environments(local) == []


async def test_cancel_during_the_build_ends_the_installer(local: Local, index: PackageIndex) -> None:
    index.open.clear()
    request = local.request("python", step(index))
    running = asyncio.create_task(local.execute(request))
    await eventually(lambda: bool(index.asked))
    name = external_name(local.installation, request.id)
    programs = {psutil.Process(pid).name() for pid in shim.owned_processes(name)}

    await local.cancel(request)

    assert "uv" in programs
    assert (await running).failure.error_class is ErrorClass.CANCELLED
    assert shim.owned_processes(name) == set()
    index.open.set()
    assert (await local.run("python", step(index))).output == "1.0"


async def test_an_attempt_that_is_adopted_in_the_middle_of_its_build_goes_on(local: Local, index: PackageIndex) -> None:
    index.open.clear()
    request = local.request("python", step(index))
    handle = await local.submit(request)
    await eventually(lambda: bool(index.asked))

    later = ExecutionRequest(**{**_fields(request), "handle": handle})
    running = asyncio.create_task(local.execute(later, local.another()))
    index.open.set()
    seen = await running

    assert seen.output == "1.0"
    assert seen.submitted.adopted
    assert seen.submitted.prepares
    assert phases(seen) == [Phase.RUN]
    assert builds(seen) == 1


async def test_an_attempt_adopted_after_its_build_is_known_to_run(local: Local, index: PackageIndex) -> None:
    script = WAITS
    request = local.request("python", step(index, script))
    handle = await local.submit(request)
    await eventually((folder_of(local, request) / "begun").exists)
    told = await _size_when_still(folder_of(local, request) / "system")

    later = ExecutionRequest(**{**_fields(request), "handle": handle, "log_offsets": {LogStream.SYSTEM: told}})
    events = local.another().execute(later)
    first = [await anext(events), await anext(events)]
    (local.folder / "go").touch()
    rest = [event async for event in events]

    assert isinstance(first[0], Submitted)
    assert isinstance(first[1], PhaseEntered)
    assert not [event for event in rest if isinstance(event, LogChunk)]
    assert Seen(rest).output == 1


async def test_a_build_killed_with_its_shim_is_made_again(local: Local, index: PackageIndex) -> None:
    index.open.clear()
    request = local.request("python", step(index))
    running = asyncio.create_task(local.execute(request))
    await eventually(lambda: bool(index.asked))
    record = shim.find(folder_of(local, request)).record
    assert record is not None
    os.kill(record.pid, signal.SIGKILL)
    lost = await running
    index.open.set()

    seen = await local.run("python", step(index))

    assert lost.failure.error_class is ErrorClass.LOST
    assert seen.output == "1.0"
    assert builds(seen) == 1
    assert len(environments(local)) == 1


async def test_a_survey_removes_what_is_unused_and_spares_what_runs(tmp_path: Path, index: PackageIndex) -> None:
    index.add("other")
    local = Local(tmp_path, slots=4, packages_keep="1h")
    script = WAITS.replace("return", "import tiny; return")
    await local.run("bash", step(index, "true", ("other",)))
    request = local.request("python", step(index, script))
    running = asyncio.create_task(local.execute(request))
    await eventually((folder_of(local, request) / "begun").exists)
    for each in (local.state / "environments").glob("*.use"):
        os.utime(each, (1000, 1000))

    await local.runtime.cleanup(Survey(local.installation))
    left = environments(local)
    (local.folder / "go").touch()

    assert (await running).output == 1
    assert len(left) == 1
    await local.runtime.cleanup(Survey(local.installation))
    assert environments(local) == []


def _fields(request: ExecutionRequest) -> dict[str, Any]:
    return {name: getattr(request, name) for name in ExecutionRequest.__dataclass_fields__}


async def _size_when_still(path: Path) -> int:
    await eventually(lambda: path.read_bytes().endswith(b"\n") and b"running in" in path.read_bytes())
    return path.stat().st_size
