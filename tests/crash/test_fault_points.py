"""Crashes at every named point of the engine's loop, and what is true once the next process has resumed."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from flexcore.engine.faultpoints import FaultPoint
from flexcore.testing import auditor

DIED = 77
VISITS = (1, 3, 7)
TASKS = """
from flexcore import task

@task
def double(n): return 2 * n
"""
WORKFLOW = """
name: w
inputs: {type: object, properties: {effects: {type: string}}}
steps:
  - {id: one, type: bash, with: {script: 'echo "$FLEXCORE_STEP $FLEXCORE_TOKEN" >> "$1"', args: ["${{ input.effects }}"]}}
  - {id: twice, type: function, with: {name: "tasks:double", args: {n: 4}}}
  - id: each
    type: foreach
    items: ${{ [1, 2, 3] }}
    parallelism: 2
    steps:
      - {id: write, type: bash, with: {script: 'echo "$FLEXCORE_STEP $FLEXCORE_TOKEN" >> "$1"', args: ["${{ input.effects }}"]}}
  - id: risky
    type: try
    steps:
      - {id: bad, type: bash, with: {script: 'echo "$FLEXCORE_STEP $FLEXCORE_TOKEN" >> "$1"; exit 3', args: ["${{ input.effects }}"]}}
    catch:
      - {id: tell, type: bash, with: {script: 'echo "$FLEXCORE_STEP $FLEXCORE_TOKEN" >> "$1"', args: ["${{ input.effects }}"]}}
  - {id: large, type: transform, with: {value: "${{ 'x'.repeat(300000) }}"}}
  - {id: size, type: transform, with: {value: "${{ results.large.length }}"}}
output: {size: "${{ results.size }}", twice: "${{ results.twice }}"}
"""
EFFECTS = {"one", "each[0].write", "each[1].write", "each[2].write", "risky.try.bad", "risky.catch.tell"}


@dataclass
class Place:
    """A folder with the workflow, and the process that forks the ones that crash."""

    folder: Path
    forker: "subprocess.Popen[str]"

    def play(self, act: str, point: FaultPoint | None = None, visit: int = 1) -> int:
        asked = {"folder": str(self.folder), "act": act, "point": point, "visit": visit}
        assert self.forker.stdin is not None
        assert self.forker.stdout is not None
        self.forker.stdin.write(json.dumps(asked) + "\n")
        self.forker.stdin.flush()
        return int(self.forker.stdout.readline())

    @property
    def database(self) -> Path:
        return self.folder / ".flexcore" / "flexcore.db"

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()


@pytest.fixture(scope="module")
def forker() -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, str(Path(__file__).with_name("fault_child.py"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        yield process


@pytest.fixture
def place(forker: "subprocess.Popen[str]", tmp_path: Path) -> Place:
    (tmp_path / "w.yaml").write_text(WORKFLOW)
    (tmp_path / "tasks.py").write_text(TASKS)
    return Place(tmp_path, forker)


def crash(place: Place, point: FaultPoint, visit: int) -> int:
    """Bring the loop to the point and let it die there; give the code."""
    if point is FaultPoint.TAKEN_UP:  # nothing is taken up before something else has died
        assert place.play("execute", FaultPoint.HEARD, visit) == DIED
        visit = 1
    first = "resume" if auditor.executions(place.database) else "execute"
    return place.play(first, point, visit)


def finish(place: Place) -> None:
    """Resume, or start what was never accepted."""
    act = "resume" if auditor.executions(place.database) else "execute"
    assert place.play(act) == 0, place.log


def judge(place: Place) -> None:
    told = auditor.executions(place.database)
    assert [each.status for each in told] == ["succeeded"], place.log
    assert list(auditor.store_problems(told)) == []
    lines = [line.split() for line in (place.folder / "effects").read_text().splitlines()]
    # Under a shim an attempt is found again, never started again: each effect is there exactly once, by its first try.
    assert sorted(lines) == sorted([path, "1"] for path in EFFECTS), place.log
    # The function host dies with its process: a call that was under way is made again, as a new attempt.
    attempts = [entry.path for entry in told[0].history if entry.kind == "StepDispatched"]
    assert {path for path in attempts if attempts.count(path) > 1} <= {"twice"}
    assert place.play("verify") == 0, place.log


def test_without_a_crash_there_is_nothing_to_resume(place: Place) -> None:
    assert place.play("execute") == 0
    assert place.play("resume") == 0

    judge(place)


@pytest.mark.parametrize("visit", VISITS)
@pytest.mark.parametrize("point", FaultPoint)
def test_a_crash_at_any_point_loses_and_doubles_nothing(place: Place, point: FaultPoint, visit: int) -> None:
    assert crash(place, point, visit) == DIED, f"{point} was not visited {visit} times: {place.log}"

    finish(place)

    judge(place)


@pytest.mark.campaign
@pytest.mark.parametrize("point", [each for each in FaultPoint if each is not FaultPoint.TAKEN_UP])
def test_a_crash_at_every_visit_of_a_point_one_after_the_other(
    forker: "subprocess.Popen[str]", tmp_path: Path, point: FaultPoint
) -> None:
    visit, code = 0, DIED
    while code == DIED:
        visit += 1
        folder = tmp_path / str(visit)
        folder.mkdir()
        (folder / "w.yaml").write_text(WORKFLOW)
        (folder / "tasks.py").write_text(TASKS)
        place = Place(folder, forker)
        code = crash(place, point, visit)
        finish(place)
        judge(place)
    assert code == 0
    assert visit > max(VISITS)
