"""Workflows played with mocked tasks in virtual time."""

import re
import textwrap
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from time import monotonic

import pytest

from flexcore.language.native import check
from flexcore.model.errors import InvalidDefinition, NotFound
from flexcore.testing.workflow.junit import junit
from flexcore.testing.workflow.session import Outcome, chosen, run
from flexcore.testing.workflow.stand_ins import Kinds
from flexcore.testing.workflow.suite import files_about, read_suite

ETL = """
name: etl
inputs: {type: object, properties: {limit: {type: integer, default: 7}}}
env: {REGION: eu}
steps:
  - id: extract
    type: python
    with: {script: "def main(limit): ...", args: {limit: "${{ input.limit }}"}}
    retry: {attempts: 3, delay: 10s, factor: 2, on: [dependency]}
  - id: load
    type: http
    with:
      url: "https://example.org/${{ env.REGION }}"
      headers: {Authorization: "Bearer ${{ secrets.TOKEN }}"}
      json: {rows: "${{ results.extract.rows }}"}
    timeout: 10m
on_failure:
  - {id: tell, type: bash, with: {script: "echo", args: ["${{ error.message }}"]}}
output: {rows: "${{ results.extract.rows }}", loaded: "${{ results.load }}"}
"""
LOOPS = """
name: loops
steps:
  - id: fan
    type: foreach
    items: [a, b, c]
    parallelism: 3
    on_error: continue
    steps: [{id: score, type: bash, with: {script: "echo", args: ["${{ iter.value }}"]}}]
  - id: poll
    type: while
    condition: "${{ !(results.look?.done) }}"
    steps:
      - {id: look, type: bash, with: {script: "echo"}}
      - {id: pause, type: wait, with: {for: 6h}}
  - {id: child, type: workflow, with: {name: part, input: {n: 1}}}
output: {fan: "${{ results.fan }}", child: "${{ results.child }}"}
"""
PART = """
name: part
inputs: {type: object, required: [n], properties: {n: {type: integer}}}
steps: [{id: work, type: bash, with: {script: "echo", args: ["${{ input.n }}"]}}]
output: ${{ results.work }}
"""
EVERYTHING = """
name: everything
timeout: 2h
inputs: {type: object, properties: {mode: {type: string, default: a}}}
steps:
  - {id: kid, type: workflow, with: {name: part}, timeout: 10m, on_error: continue}
  - id: both
    type: parallel
    branches:
      - {id: one, steps: [{id: quick, type: bash, with: {script: x}}]}
      - {id: two, on_error: continue, steps: [{id: slow, type: bash, with: {script: x}}]}
  - id: risky
    type: try
    steps: [{id: boom, type: bash, with: {script: x}}]
    catch: [{id: rescue, type: bash, with: {script: x, args: ["${{ error.message }}"]}}]
    finally: [{id: close, type: bash, with: {script: x}}]
  - id: pick
    type: branch
    branches: [{if: "${{ input.mode == 'a' }}", steps: [{id: aa, type: bash, with: {script: x}}]}]
    default: [{id: bb, type: bash, with: {script: x}}]
  - {id: c1, type: bash, with: {script: x}, cache: {ttl: 1h}}
  - {id: until, type: wait, with: {until: "2026-01-01T01:00:00Z"}}
"""
LOOP_MOCKS = """
    fan.score: {result: 1}
    poll.look: {result: {done: false}}
    poll[2].look: {result: {done: true}}
"""


async def outcomes(folder: Path, workflow: str, tests: str, **files: str) -> list[Outcome]:
    (folder / "workflow.yaml").write_text(workflow)
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    (folder / "test.yaml").write_text(textwrap.dedent(tests))
    suite = read_suite(folder / "test.yaml", Kinds())
    return [each async for each in run([suite], Kinds())]


async def problems(folder: Path, workflow: str, tests: str, **files: str) -> list[str]:
    return [line for each in await outcomes(folder, workflow, tests, **files) for line in each.problems]


async def test_a_test_that_holds_has_no_problems(tmp_path: Path) -> None:
    found = await problems(
        tmp_path,
        ETL,
        """
        tests:
          - name: all is well
            input: {limit: 3}
            secrets: {TOKEN: abcdef123}
            env: {REGION: us}
            mocks: {extract: {result: {rows: 3}}, load: {result: {status: 200}}}
            expect:
              output: {rows: 3, loaded: {status: 200}}
              path: [extract, load]
              steps:
                extract: {status: succeeded, attempts: 1, runtime: local, parameters_contains: {args: {limit: 3}}}
                load:
                  parameters:
                    url: https://example.org/us
                    headers: {Authorization: "Bearer ${{ secrets.TOKEN }}"}
                    json: {rows: 3}
                tell: {status: waiting}
              placements: {load: local}
              duration: 0s
        """,
    )

    assert found == []


async def test_retries_take_their_pauses_in_virtual_time(tmp_path: Path) -> None:
    begun = monotonic()
    found = await problems(
        tmp_path,
        ETL,
        """
        tests:
          - name: the source is down twice
            secrets: {TOKEN: abcdef123}
            mocks:
              extract:
                - {error: {class: dependency, message: "503"}, takes: 1m}
                - {error: {class: dependency, message: "503"}}
                - {result: {rows: 1}}
              load: {result: null, takes: 5m}
            expect:
              steps: {extract: {attempts: 3, duration: 1m30s}, load: {result: null}}
              duration: 6m30s
        """,
    )

    assert found == []
    assert monotonic() - begun < 20


async def test_a_time_limit_ends_a_mock_that_takes_longer(tmp_path: Path) -> None:
    found = await problems(
        tmp_path,
        ETL,
        """
        tests:
          - name: the target hangs
            secrets: {TOKEN: abcdef123}
            mocks:
              extract: {result: {rows: 1}}
              load: {result: null, takes: 10m1s}
              on_failure.tell: {result: null}
            expect:
              error: {step: load, class: timeout}
              path: [extract, load, on_failure.tell]
              duration: 10m
          - name: and one that takes exactly as long is done
            secrets: {TOKEN: abcdef123}
            mocks: {extract: {result: {rows: 1}}, load: {result: null, takes: 10m}}
            expect: {duration: 10m}
        """,
    )

    assert found == []


async def test_iterations_have_mocks_of_their_own_and_hours_of_waiting_pass_at_once(tmp_path: Path) -> None:
    found = await problems(
        tmp_path,
        LOOPS,
        f"""
tests:
- name: the second item fails and the third look finds it done
  start: 2027-05-01T00:00:00Z
  mocks:{LOOP_MOCKS}
    fan[1].score: {{error: {{class: user, message: bad b}}}}
    child: {{result: whole}}
  expect:
    path: [score, score, score, fan, look, pause, look, pause, look, pause, poll, child]
    output_contains: {{fan: [1, {{error: {{class: user, message: bad b}}}}, 1], child: whole}}
    steps:
      fan.score: {{parameters_contains: {{args: []}}}}
      fan[1].score: {{status: failed, parameters_contains: {{args: [b]}}}}
      poll[2].look: {{status: succeeded}}
    duration: 18h
""",
    )

    assert found == []


async def test_a_sub_workflow_runs_from_its_file_or_is_mocked_as_a_whole(tmp_path: Path) -> None:
    found = await problems(
        tmp_path,
        LOOPS,
        f"""
tests:
- name: its own step is mocked
  mocks:{LOOP_MOCKS}
    child.work: {{result: 5}}
  expect:
    output_contains: {{child: 5}}
    steps: {{child.work: {{status: succeeded, parameters_contains: {{args: [1]}}}}}}
- name: it fails as a whole
  mocks:{LOOP_MOCKS}
    child: {{error: {{class: dependency, message: gone}}}}
  expect: {{error: {{step: child, class: dependency, message: gone}}}}
""",
        part=PART,
    )

    assert found == []


async def test_everything_that_the_engine_does_itself_happens_for_real(tmp_path: Path) -> None:
    found = await problems(
        tmp_path,
        EVERYTHING,
        """
        tests:
          - name: a sub-workflow and a branch that are given up, a failure that is caught, a wait until a time
            mocks:
              kid.work: {result: 1, takes: 1h}
              quick: {result: 1, takes: 5s}
              both.two.slow: {error: {class: lost}, takes: 1m}
              boom: {error: {class: user, message: bang}}
              rescue: {result: 1}
              risky.finally.close: {result: 2}
              aa: {result: 5}
              c1: {result: 3}
            expect:
              path: [kid, quick, slow, both, boom, rescue, close, risky, aa, pick, c1, until]
              steps:
                kid: {status: failed, error: {class: timeout}, duration: 10m}
                kid.work: {status: cancelled}
                slow: {attempts: 4, status: failed}
                rescue: {parameters_contains: {args: [bang]}}
                pick.default.bb: {status: waiting}
              duration: 1h
          - name: the time limit of the whole
            mocks:
              kid: {result: 1, takes: 9m}
              quick: {result: 1, takes: 1d}
              slow: {result: 1}
            expect:
              error: {class: timeout}
              steps: {kid: {status: succeeded}, quick: {status: cancelled}}
              duration: 2h
        """,
        part=PART.replace("required: [n], ", ""),
    )

    assert found == []


async def test_steps_that_wait_for_a_place_get_it_when_one_is_free(tmp_path: Path) -> None:
    workflow = """
name: crowded
steps:
  - id: fan
    type: foreach
    items: [1, 2, 3, 4]
    parallelism: 4
    steps: [{id: call, type: bash, with: {script: x}, concurrency: {limit: 2}}]
"""

    found = await problems(
        tmp_path,
        workflow,
        """
        tests:
          - name: two at a time
            mocks: {fan.call: {result: 1, takes: 1h}}
            expect: {duration: 2h}
        """,
    )

    assert found == []


async def test_two_runs_of_a_test_are_the_same(tmp_path: Path) -> None:
    workflow = """
name: shaky
steps:
  - {id: try_it, type: bash, with: {script: x}, retry: {attempts: 9, delay: 1m, jitter: 0.9}}
"""
    tests = """
    tests:
      - name: eight failures
        mocks: {try_it: [{error: {class: user}}]}
        expect: {status: failed}
    """

    first, second = await outcomes(tmp_path, workflow, tests), await outcomes(tmp_path, workflow, tests)

    assert first[0].virtual == second[0].virtual
    assert first[0].steps == second[0].steps


async def test_a_step_without_a_mock_is_named_with_what_to_write(tmp_path: Path) -> None:
    (one,) = await outcomes(tmp_path, ETL, "tests: [{name: nothing is mocked}]")

    assert (
        "step 'extract' (python) has no mock: write `mocks: {extract: {result: …}}` to say what it gives"
        in one.problems
    )
    assert "step 'on_failure.tell' (bash) has no mock" in " ".join(one.problems)


async def test_a_mock_that_is_never_used_is_a_failure_unless_it_is_optional(tmp_path: Path) -> None:
    tests = """
    tests:
      - name: unused
        secrets: {TOKEN: abcdef123}
        mocks:
          extract: {result: {rows: 1}}
          load: {result: 1}
          tell: {result: 1%s}
    """

    failing = await problems(tmp_path, ETL, tests % "")
    passing = await problems(tmp_path, ETL, tests % ", optional: true")

    assert failing == [
        "the mock for 'tell' was never used: the step did not run; leave it out, or add `optional: true`"
    ]
    assert passing == []


async def test_what_is_not_as_expected_is_said_key_by_key(tmp_path: Path) -> None:
    found = await problems(
        tmp_path,
        ETL,
        """
        tests:
          - name: all wrong
            secrets: {TOKEN: abcdef123}
            mocks: {extract: {result: {rows: 3}}, load: {result: 200}}
            expect:
              status: failed
              output: {rows: 4, loaded: 200}
              path: [load]
              placements: {extract: meltano}
              steps: {load: {attempts: 2, status: skipped, skipped_reason_contains: extract}, tell: {attempts: 1}}
              error: {class: user}
              duration: 5s
        """,
    )

    assert found[:-1] == [
        "status: expected failed, was succeeded",
        "output.rows: expected 4, was 3",
        "error: expected a failure, but there was none",
        "path: expected load",
        "      was      extract → load",
        "duration: expected 5s, was 0s",
        "steps.load.status: expected skipped, was succeeded",
        "steps.load.attempts: expected 2, was 1",
        'steps.load.skipped_reason: expected to contain "extract", was null',
        "steps.tell: its turn never came",
    ]
    assert found[-1].startswith("placements.extract: expected meltano, was local: the rules (")


async def test_placement_is_the_real_one_among_the_runtimes_of_the_test(tmp_path: Path) -> None:
    workflow = """
name: placed
steps:
  - {id: move, type: singer, with: {project: warehouse, tap: tap-a, target: target-b}}
  - {id: train, type: python, with: {script: x}, requirements: {complexity: ml}}
"""
    found = await outcomes(
        tmp_path,
        workflow,
        """
        tests:
          - name: as the rules say
            mocks: {move: {result: 1}, train: {result: 1}}
            expect: {placements: {move: meltano, train: ray}}
          - name: ray is down
            runtimes: {local: up, meltano: degraded, ray: down}
            mocks: {move: {result: 1}, train: {result: 1}}
            expect: {placements: {move: meltano, train: local}}
          - name: only local is there
            runtimes: [local]
            mocks: {train: {result: 1, optional: true}}
            expect: {error: {step: move, name: NoFeasibleRuntime}}
          - name: meltano never comes back
            health: {meltano: down}
            mocks: {train: {result: 1, optional: true}}
        """,
    )

    assert [each.problems for each in found[:3]] == [(), (), ()]
    assert "the workflow never ends: step 'move' waits for a runtime" in found[3].problems[0]


async def test_an_input_that_does_not_fit_the_workflow_fails_the_test(tmp_path: Path) -> None:
    found = await problems(tmp_path, ETL, "tests: [{name: wrong, input: {limit: many}}]")

    assert "the input does not fit the workflow" in found[0]


async def test_parameters_are_checked_by_the_real_model(tmp_path: Path) -> None:
    workflow = "name: asks\nsteps: [{id: ask, type: http, with: {url: '${{ 1 + 1 }}'}}]"

    found = await problems(tmp_path, workflow, "tests: [{name: a, mocks: {ask: {result: 1, optional: true}}}]")

    assert "the parameters of the http step are not right" in found[0]


async def test_secrets_are_in_no_line_that_is_shown(tmp_path: Path) -> None:
    tests = """
    tests:
      - name: it leaks
        secrets: {TOKEN: abcdef123}
        mocks:
          extract: {result: {rows: abcdef123}}
          load: {error: {class: user, message: "no abcdef123"}}
          tell: {result: 1}
        expect: {output: 1}
    """

    (one,) = await outcomes(tmp_path, ETL, tests)

    assert one.problems
    assert "abcdef123" not in repr(one) + junit([one])


def invalid(folder: Path, tests: str) -> list[str]:
    (folder / "workflow.yaml").write_text(LOOPS)
    (folder / "test.yaml").write_text(textwrap.dedent(tests).lstrip())
    with pytest.raises(InvalidDefinition) as caught:
        read_suite(folder / "test.yaml", Kinds())
    return [str(each).removeprefix(f"{folder}/") for each in caught.value.diagnostics]


def test_everything_wrong_in_a_file_is_said_with_its_place(tmp_path: Path) -> None:
    found = invalid(
        tmp_path,
        """
        tests:
          - name: a
            inptu: {}
            mocks:
              fan.scor: {result: 1}
              fan: {result: 1}
              child: {result: 1, error: {class: user}}
              poll.look: {error: {class: gone}, takes: soon}
              poll.pause: {result: 1}
            expect: {steps: {fann: {}}, status: fine, path: [nobody]}
            health: {ray: down}
            env: {REGION: eu}
          - name: a
        """,
    )

    assert found == [
        "test.yaml:3:5: unknown key 'inptu' (did you mean 'input'?)",
        "test.yaml:5:7: unknown step 'fan.scor' (did you mean 'fan.score'?)",
        "test.yaml:6:7: a foreach step cannot be mocked: the engine does it itself "
        "(mock the steps inside it, such as 'fan.…')",
        "test.yaml:7:14: a mock has both `result` and `error` (give exactly one of them)",
        found[4],
        found[5],
        "test.yaml:9:7: a wait step cannot be mocked: the engine does it itself (leave it out)",
        *found[7:10],
        "test.yaml:11:14: there is no runtime 'ray' (known: local, meltano)",
        found[11],
        "test.yaml:13:5: there are two tests named 'a'",
    ]
    assert [each.split(":")[1] for each in found] == [
        "3",
        "5",
        "6",
        "7",
        "8",
        "8",
        "9",
        "10",
        "10",
        "10",
        "11",
        "12",
        "13",
    ]


@pytest.mark.parametrize(
    "text", ["", "[]", "tests: 1", "tests: []", "tests: [1]", "tests:\n  - {input: 1}", "a: [", "\x00"]
)
def test_what_is_no_test_file_is_refused_with_its_place(tmp_path: Path, text: str) -> None:
    assert all(each.startswith("test.yaml:") for each in invalid(tmp_path, text))


def test_a_wrong_workflow_is_said_before_its_tests(tmp_path: Path) -> None:
    (tmp_path / "workflow.yaml").write_text("name: x\nsteps: [{id: a, type: bsh}]")
    (tmp_path / "test.yaml").write_text("tests: [{name: a}]")

    with pytest.raises(InvalidDefinition) as caught:
        read_suite(tmp_path / "test.yaml", Kinds())

    assert caught.value.diagnostics[0].file == str(tmp_path / "workflow.yaml")


@pytest.mark.parametrize("named", ["[1]", "gone.yaml"])
def test_a_workflow_that_is_not_there_is_said_where_it_is_named(tmp_path: Path, named: str) -> None:
    (tmp_path / "test.yaml").write_text(f"tests: [{{name: a}}]\nworkflow: {named}")

    with pytest.raises(InvalidDefinition) as caught:
        read_suite(tmp_path / "test.yaml", Kinds())

    (diagnostic,) = caught.value.diagnostics
    assert (diagnostic.line, diagnostic.column) == (2, 11)


@pytest.mark.parametrize("start", ["yesterday", "0001-01-01T00:00:00+12:00", "9999-12-31"])
def test_virtual_time_begins_at_a_time_that_can_go_on(tmp_path: Path, start: str) -> None:
    (found,) = invalid(tmp_path, f"tests:\n  - name: a\n    start: {start}\n")

    assert found.startswith("test.yaml:3:12:")


def test_brackets_in_the_name_of_a_test_mean_themselves(tmp_path: Path) -> None:
    (tmp_path / "workflow.yaml").write_text(ETL)
    (tmp_path / "test.yaml").write_text("tests: [{name: 'a [1] b'}, {name: a 1 b}]")
    suite = read_suite(tmp_path / "test.yaml", Kinds())

    assert [each.name for each in chosen(suite, "a [1]*")] == ["a [1] b"]


def test_test_files_are_found_by_their_names_and_by_the_workflow_they_name(tmp_path: Path) -> None:
    for name in ("workflow.yaml", "other.yaml"):
        (tmp_path / name).write_text(ETL)
    for name in ("test.yaml", "more.test.yaml", "other.test.yaml"):
        (tmp_path / name).write_text("tests: []")
    (tmp_path / "third.test.yaml").write_text("workflow: other.yaml\ntests: []")

    assert [each.name for each in files_about(tmp_path / "workflow.yaml")] == ["more.test.yaml", "test.yaml"]
    assert [each.name for each in files_about(tmp_path / "other.yaml")] == ["other.test.yaml", "third.test.yaml"]
    with pytest.raises(NotFound):
        files_about(tmp_path / "nobody.yaml")


async def test_results_are_valid_junit(tmp_path: Path) -> None:
    results = await outcomes(tmp_path, ETL, 'tests: [{name: "a <b> & \\u0007", mocks: {extract: {result: 1}}}]')

    root = ElementTree.fromstring(junit(results))

    assert root.attrib["tests"] == root.attrib["failures"] == "1"
    (case,) = root.iter("testcase")
    assert case.attrib["name"] == "a <b> & \N{REPLACEMENT CHARACTER}"
    (failure,) = case.iter("failure")
    assert "what ran:" in (failure.text or "")


async def test_the_examples_of_the_documentation_hold(tmp_path: Path) -> None:
    page = (Path(__file__).parents[3] / "docs" / "testing-workflows.md").read_text()
    workflow, tests = re.findall(r"^```yaml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "load.py").write_text("def main(region): ...")

    found = await outcomes(tmp_path, workflow, tests)

    assert [(each.name, each.problems) for each in found if each.problems] == []
    assert len(found) == 3


def test_the_workflows_of_these_tests_are_right() -> None:
    for text in (ETL, LOOPS, PART, EVERYTHING):
        assert check(text, "workflow.yaml")[1] == []
