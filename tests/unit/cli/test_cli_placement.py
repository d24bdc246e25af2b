"""What the command line says of placement: the calm line, what was expected, and the benchmark of one step."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_control_plane import FakeControlPlane, execution, step

from flexcore.cli.app import run
from flexcore.cli.benchmarking import alone
from flexcore.cli.reasons import expected_time, why
from flexcore.cli.summary import summary
from flexcore.model.errors import InvalidRequest, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import Bundle, Document, Started, StartRequest

WORKFLOW = """\
name: etl
inputs: {type: object, properties: {n: {type: integer}}}
vars: {a: 1}
steps:
  - {id: load, type: python, with: {script: "def main(): pass"}, needs: [], retry: {attempts: 3}}
  - id: each
    type: foreach
    items: [1]
    steps: [{id: score, type: bash, runtime: ray, with: {script: "echo $1", args: ["${{ input.n }}"]}}]
"""
UNSUPPORTED = [{"code": "TYPE_UNSUPPORTED", "reason": "meltano cannot run python steps"}]
DOWN = [{"code": "UNHEALTHY", "reason": "ray is down: no answer"}]

Capture = pytest.CaptureFixture[str]


def candidate(runtime: str, reasons: Sequence[Document] = (), p50: float | None = None, n: int = 0) -> Document:
    """Make a candidate; with `p50`, one of which something is known."""
    times = {"p50_s": p50, "p90_s": 3.0, "mean_s": p50}
    prediction = {**dict.fromkeys(("wait", "start", "move", "exec", "total"), times), "cost": 0.5, "n": n}
    known = None if p50 is None else {**prediction, "evidence": "own"}
    return {"runtime": runtime, "feasible": not reasons, "reasons": list(reasons), "score": p50, "prediction": known}


def placement(*candidates: Document, **more: Any) -> Document:
    """Make a placement on `local` by the order of fallback."""
    base = {"chosen": "local", "source": "rule", "rule": "P4", "rule_would_choose": "meltano", "warnings": []}
    return {**base, "fallback_reason": "the rules would", "candidates": list(candidates), **more}


def test_a_choice_that_could_be_no_other_is_said_in_few_words() -> None:
    meltano = candidate("meltano", UNSUPPORTED)

    assert why(placement(candidate("local"), meltano)) == "the only runtime that can run it"
    assert why(placement(candidate("local"), candidate("ray"), meltano)) == "the first of those that can run it"


def test_the_only_choice_left_says_what_keeps_the_others_out() -> None:
    late = [{"code": "DEADLINE", "reason": "ray would take about 9 s, 5 s are left"}]
    down, meltano = candidate("kubernetes", DOWN), candidate("meltano", UNSUPPORTED)
    placed = placement(candidate("local"), candidate("ray", late), down, meltano)

    assert why(placed) == "the only runtime left; ray would take about 9 s, 5 s are left"
    assert why(placement(candidate("local"), down, meltano)) == "the only runtime that can run it"


def test_a_quicker_runtime_that_costs_more_is_said_to() -> None:
    cheap, quick = candidate("local", p50=8.0, n=4), candidate("ray", p50=1.5)
    cheap["prediction"]["cost"] = 0.1

    assert why(placement(quick, cheap, source="learned")) == (
        "about 8.00s expected, by 4 earlier runs there; 1.50s on ray, for more money"
    )


def test_a_choice_that_surprises_has_its_reason() -> None:
    ray = placement(candidate("local"), candidate("ray", DOWN), rule_would_choose="ray", fallback_reason="ray is down")

    assert why(ray) == "ray is down"
    assert why(ray | {"warnings": ["nothing makes the deadline"]}) == "ray is down; nothing makes the deadline"


def test_what_was_learned_is_said_with_its_figures() -> None:
    learned = placement(candidate("ray", p50=8.0), candidate("local", p50=1.5, n=4), source="learned")

    assert why(learned) == "about 1.50s expected, by 4 earlier runs there; 8.00s on ray"
    assert expected_time(learned) == "1.50s"


def test_steps_that_went_the_same_way_share_a_line() -> None:
    calm = placement(candidate("local"), candidate("meltano", UNSUPPORTED))
    document = execution(steps=[step(name, placement=calm) for name in ("a", "b", "c", "d")])

    assert "a, b, c and 1 more ran on local: the only runtime that can run it" in summary(document)


def test_a_step_is_taken_out_of_its_workflow_without_what_binds_it_to_others() -> None:
    bundle, chosen = alone(Bundle(text=WORKFLOW, files={"a.py": b""}), "score")

    text = json.loads(bundle.text)
    assert (text["name"], text["vars"], bundle.files) == ("etl-benchmark", {"a": 1}, {"a.py": b""})
    assert text["steps"] == [chosen]
    assert chosen.keys() == {"id", "type", "with"}


def test_which_step_must_be_said_where_there_are_several() -> None:
    with pytest.raises(InvalidRequest, match="has several steps: load, score"):
        alone(Bundle(text=WORKFLOW), None)
    with pytest.raises(NotFound, match="has no step 'each' that a runtime runs"):
        alone(Bundle(text=WORKFLOW), "each")


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        ("{a: '${{ results.load.rows }}'}", "reads results of 'load', which a benchmark does not run"),
        ("{args: ['x ${{ results.a }}', '${{ results.b.c + results.a }}']}", "reads results of 'a', 'b', which"),
        ("{a: '${{ iter.value }}'}", "reads the item of the loop around it"),
        ("{a: '${{ previous_result }}'}", "reads the result of the step before it"),
    ],
)
def test_a_step_that_needs_the_others_is_refused_before_anything_runs(reads: str, said: str) -> None:
    text = f"name: etl\nsteps:\n  - {{id: train, type: bash, with: {reads}}}\n"

    with pytest.raises(InvalidRequest, match=f"step 'train' {said}") as caught:
        alone(Bundle(text=text), "train")

    assert "flexcore workflow execute FILE --runtime R" in caught.value.hint


class TwoRuntimes(FakeControlPlane):
    """Runs a step at once, twice as quick on `ray` as on `local`, where it may fail."""

    def __init__(self, results: dict[str, Any], fails: str = "") -> None:
        super().__init__(documents={})
        self.results, self.fails = results, fails

    async def deploy(self, bundle: Bundle, workspace: str = "default") -> Document:
        name = json.loads(bundle.text)["name"]
        self.deployed[name] = bundle.text
        return {"name": name, "version": "v-1", "created": True, "pinned": None}

    async def plan(
        self, workflow: str, version: str | None = None, runtime: str | None = None, workspace: str = "default"
    ) -> Document:
        placed = placement(candidate("local"), candidate("ray"), candidate("meltano", UNSUPPORTED))
        if self.documents:
            placed["chosen"] = "ray"
        return {"workflow": workflow, "version": version, "steps": [{"path": "load", "placement": placed}]}

    async def start(self, request: StartRequest) -> Started:
        self.asked.append(request)
        runtime = str(request.runtime)
        id = f"exe_{len(self.documents)}"
        failed = runtime == self.fails
        phases = {"queue_s": None, "start_s": 0.5, "transfer_in_s": None, "run_s": {"local": 2.0}.get(runtime, 1.0)}
        found = step("load", "failed" if failed else "succeeded", result=self.results.get(runtime), phases=phases)
        error = {"message": "out of luck", "class": "user"} if failed else None
        self.documents[id] = execution(id, "failed" if failed else "succeeded", steps=[found], error=error)
        return Started(ExecutionId(id))


def benchmark(fake: FakeControlPlane, tmp_path: Path, *more: str) -> int:
    (tmp_path / "etl.yaml").write_text(WORKFLOW)
    line = ["runtime", "benchmark", str(tmp_path / "etl.yaml"), "--step", "load", *more]
    return run(line, fake.connect)


def test_a_benchmark_runs_the_step_on_every_runtime_that_can_and_compares(tmp_path: Path, capsys: Capture) -> None:
    fake = TwoRuntimes({"local": {"n": 1}, "ray": {"n": 1}})

    code = benchmark(fake, tmp_path, "--repeat", "2", "--output", "json")

    out, err = capsys.readouterr()
    found = json.loads(out)
    assert code == 0
    assert [each.runtime for each in fake.asked if isinstance(each, StartRequest)] == ["local", "ray"] * 2
    assert {each["runtime"]: (each["total_s"], each["succeeded"]) for each in found["runtimes"]} == {
        "local": (2.5, 2),
        "ray": (1.5, 2),
    }
    assert (found["winner"], found["results_equal"], found["placement_would_choose"]) == ("ray", True, "ray")
    assert found["excluded"] == [{"runtime": "meltano", "reasons": UNSUPPORTED}]
    assert "runs 2 times on each runtime" in err
    assert fake.deployed == {}


def test_a_benchmark_tells_of_failures_and_of_results_that_differ(tmp_path: Path, capsys: Capture) -> None:
    differing = benchmark(TwoRuntimes({"local": 1, "ray": 2}), tmp_path, "--repeat", "1", "--yes")
    out, err = capsys.readouterr()
    failing = benchmark(TwoRuntimes({}, fails="ray"), tmp_path, "--repeat", "1")

    assert (differing, failing) == (0, 1)
    assert "quickest: ray; the results differ; placement would choose ray" in out
    assert "times on each runtime" not in err
    assert "ray failed: out of luck" in capsys.readouterr().out
