"""Steps with `packages`, through the engine and the command line: phases, time limits, kills, retries, a real registry."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from e2e.embedded import plane, step_of
from e2e.moved_clock import MovedClock
from package_index import PackageIndex, package_index

from flexcore.testing import auditor
from flexcore.testing.command import Site, until

STEP = """
name: scored
steps:
  - id: score
    type: python
    timeout: {timeout}
    retry: {{attempts: 3, delay: 10ms, on: [dependency]}}
    with:
      packages: [{packages}]
      env: {{UV_DEFAULT_INDEX: "{url}", UV_CACHE_DIR: "{cache}", MARKED: "{marked}"}}
      script: |
        import os
        def main():
            import tiny
            with open(os.path.join(os.environ["MARKED"], "effects"), "a") as file:
                file.write("ran\\n")
            return tiny.VERSION
output: ${{{{ results.score }}}}
"""


@pytest.fixture
def index(tmp_path: Path) -> Iterator[PackageIndex]:
    with package_index(tmp_path / "cache") as served:
        served.add("tiny")
        yield served


def workflow(index: PackageIndex, marked: Path, packages: str = "tiny", timeout: str = "1m") -> str:
    return STEP.format(packages=packages, timeout=timeout, url=index.url, cache=index.cache, marked=marked)


async def test_the_build_is_a_phase_and_outside_the_time_limit(
    tmp_path: Path, index: PackageIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = MovedClock(monkeypatch)
    index.open.clear()
    async with plane(tmp_path) as opened:
        id = await opened.start(workflow(index, tmp_path, timeout="1h"))
        await asyncio.to_thread(until, lambda: index.asked, "the installer asks")
        asked = clock.now()
        clock.move(timedelta(hours=2))  # longer than the step's time limit, which does not run yet
        waiting = await opened.installation.control_plane.execution(id)
        answered = clock.now()
        index.open.set()
        document = await opened.finish(id)
        over = clock.now()

    step = step_of(document, "score")
    assert document["status"] == "succeeded", document["error"]
    assert document["output"] == "1.0"
    assert step_of(waiting, "score")["status"] != "failed"
    assert step["attempt"] == 1
    assert step["phases"]["start_s"] > (answered - asked).total_seconds()
    assert step["phases"]["run_s"] < (over - answered).total_seconds()


async def test_a_missing_package_fails_once_and_is_told_by_its_name(tmp_path: Path, index: PackageIndex) -> None:
    async with plane(tmp_path) as opened:
        document = await opened.execute(workflow(index, tmp_path, "tiny, no-such-one"))

    assert document["status"] == "failed"
    assert document["error"]["class"] == "user"
    assert document["error"]["name"] == "NoSuchPackage"
    assert "no-such-one" in document["error"]["message"]
    assert document["error"]["hint"]
    assert step_of(document, "score")["attempt"] == 1


async def test_an_index_that_is_away_is_asked_again(tmp_path: Path, index: PackageIndex) -> None:
    away = (
        workflow(index, tmp_path)
        .replace(index.url, "http://127.0.0.1:9/simple")
        .replace("MARKED:", "UV_HTTP_RETRIES: 0, MARKED:")
    )
    async with plane(tmp_path) as opened:
        document = await opened.execute(away)

    assert document["error"]["class"] == "dependency"
    assert step_of(document, "score")["attempt"] == 3


@pytest.mark.parametrize("group", [False, True])
def test_a_command_killed_during_a_build_leaves_nothing_half_done(
    tmp_path: Path, index: PackageIndex, group: bool
) -> None:
    site = Site(tmp_path / "site")
    site.folder.mkdir()
    (site.folder / "scored.yaml").write_text(workflow(index, site.folder))
    index.open.clear()
    running = site.start("workflow", "execute", "scored")
    until(lambda: index.asked, "the installer asks")
    until(lambda: any(told.entries("StepSubmitted") for told in auditor.executions(site.database)), "it is submitted")

    running.kill(group=group)
    index.open.set()
    done = site.run("--output", "json", "workflow", "resume")

    assert done.code == 0, done.err
    assert done.document[0]["output"] == "1.0"
    assert (site.folder / "effects").read_text() == "ran\n"
    environments = site.folder / ".flexcore" / "runtimes" / "local" / "environments"
    assert [each.suffix for each in environments.iterdir() if each.is_dir()] == [""]
    assert auditor.processes_of(site.folder) == {}


def test_a_package_from_the_registry(tmp_path: Path) -> None:
    site = Site(tmp_path)
    (tmp_path / "real.yaml").write_text(
        "name: real\nsteps:\n"
        "  - id: say\n    type: python\n    with:\n      packages: ['iniconfig==2.0.0']\n"
        "      script: |\n        def main():\n            import importlib.metadata\n"
        "            return importlib.metadata.version('iniconfig')\n"
        "output: ${{ results.say }}\n"
    )

    assert site.ask("workflow", "execute", "real")["output"] == "2.0.0"
