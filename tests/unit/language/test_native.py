"""The native format: what is read into the model, and that everything wrong is reported at once."""

import json
import subprocess
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexcore.language.native import check, named_files, parse, version_of
from flexcore.language.visibility import steps_in
from flexcore.model.errors import InvalidDefinition
from flexcore.model.failure import ErrorClass
from flexcore.model.template import Expression, Literal, MapTemplate, Text
from flexcore.model.values import JSON
from flexcore.model.workflow import Complexity, ForEach, OnError, Step, StepKind, Task, Wait, Workflow

CORPUS = Path(__file__).parents[2] / "corpus"
BAD = sorted((CORPUS / "bad").glob("*.yaml"))
GOOD = sorted((CORPUS / "good").glob("*.yaml"))
FUNCTION: dict[StepKind, dict[str, JSON]] = {
    StepKind.FUNCTION: {
        "type": "object",
        "additionalProperties": False,
        "required": ["name"],
        "properties": {"name": {"type": "string"}, "args": {"anyOf": [{"type": "object"}, {"type": "null"}]}},
    }
}
ONE_STEP = "name: w\nsteps:\n  - {id: a, type: transform, with: {value: 1}}\n"


def step(workflow: Workflow, id: str) -> Step:
    return next(each for each in steps_in(workflow) if each.id == id)


def one(lines: str) -> Step:
    return parse(f"name: w\nsteps:\n  - id: a\n{lines}", "w.yaml").steps[0]


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_a_bad_file_is_refused_with_exactly_its_problems(path: Path) -> None:
    text = path.read_text()
    expected = [line.removeprefix("# expect ") for line in text.splitlines() if line.startswith("# expect ")]

    workflow, problems = check(text, path.name, task_parameters=FUNCTION, files=lambda _: False)

    assert expected
    assert [f"{each.line}:{each.column}: {each.message}" for each in problems] == expected
    assert workflow is None


def test_what_is_named_by_a_pattern_is_checked_too() -> None:
    output = {"type": "object", "additionalProperties": False, "required": ["path"], "properties": {"path": {}}}
    schema: dict[str, JSON] = {"properties": {"outputs": {"patternProperties": {"^[a-z]+$": output}}}}
    given = "{a: {path: x, fmt: csv}, b: csv, c: {}, '1': 2}"
    text = f"name: w\nsteps:\n  - {{id: a, type: bash, with: {{script: 'true', outputs: {given}}}}}\n"

    _, problems = check(text, "w.yaml", task_parameters={StepKind.BASH: schema}, files=lambda _: True)

    assert [each.message.partition(" (")[0] for each in problems] == [
        "unknown key 'fmt' in `a`",
        "`b` must be a mapping, but is text",
        "`path` is missing in `c`",
    ]


def test_the_files_of_a_ray_step_have_to_be_there() -> None:
    text = "name: w\nsteps:\n  - {id: a, type: ray, with: {entrypoint: 'true', files: [gone.py]}}\n"

    _, problems = check(text, "w.yaml", task_parameters={}, files=lambda _: False)

    assert [each.message.partition(" (")[0] for each in problems] == ["there is no file or folder 'gone.py'"]


def test_the_corpus_of_bad_files_is_large() -> None:
    assert len(BAD) >= 60


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_a_good_file_is_read_the_same_each_time(path: Path) -> None:
    first, second = parse(path.read_text(), path.name), parse(path.read_bytes(), "other.yaml")

    assert first == second
    assert first.version == version_of(path.read_text())


def test_the_example_of_the_format_is_read_into_the_model() -> None:
    workflow = parse((CORPUS / "good" / "hybrid_pipeline.yaml").read_text(), "hybrid_pipeline.yaml")

    extract, train, fan, publish = workflow.steps
    assert isinstance(extract.action, Task)
    assert extract.action.kind is StepKind.SINGER
    assert isinstance(extract.action.parameters, MapTemplate)
    assert extract.requirements.data_size == 2 * 10**9
    assert extract.requirements.complexity is Complexity.SIMPLE
    assert (extract.retry.attempts, extract.retry.delay, extract.retry.max_delay) == (
        3,
        timedelta(seconds=2),
        timedelta(minutes=1),
    )
    assert extract.retry.on == (ErrorClass.DEPENDENCY, ErrorClass.TIMEOUT)
    assert extract.timeout == timedelta(minutes=30)
    assert train.requirements.memory == 2 * 10**9
    assert isinstance(fan.action, ForEach)
    assert fan.action.parallelism == 4
    assert fan.action.items == Expression(
        source="results.train.models", path=("results", "train", "models"), reads=(("results", "train"),)
    )
    assert publish.runtime == "kubernetes"
    assert publish.when is not None
    assert publish.when.source == "results.train.accuracy > 0.8"
    assert (publish.when.position.line, publish.when.position.column) == (29, 13)
    assert named_files(workflow) == ("meltano", "score.py", "train.py")


def test_code_is_never_templated() -> None:
    task = one("    type: bash\n    with: {script: 'echo ${{ x ', args: ['${{ input.a }}']}\n").action

    assert isinstance(task, Task)
    assert isinstance(task.parameters, MapTemplate)
    assert dict(task.parameters.items)["script"] == Literal("echo ${{ x ")


def test_a_secret_alone_in_its_string_stays_a_reference() -> None:
    task = one("    type: http\n    with: {url: '${{ secrets.URL }}'}\n").action

    assert isinstance(task, Task)
    assert isinstance(task.parameters, MapTemplate)
    assert isinstance(dict(task.parameters.items)["url"], Text)


def test_requirements_are_taken_over_from_around() -> None:
    workflow = parse((CORPUS / "good" / "control_kinds.yaml").read_text(), "w.yaml")

    inner = step(workflow, "one").requirements
    assert (inner.cpu, inner.memory, inner.deadline) == (1, 2**30, timedelta(hours=2))
    assert step(workflow, "each").on_error is OnError.CONTINUE


def test_a_step_overrides_what_it_takes_over() -> None:
    text = "name: w\nrequirements: {cpu: 1, tags: [a]}\nsteps:\n"
    text += "  - {id: a, type: python, with: {script: x}, requirements: {cpu: 2}}\n"

    assert parse(text, "w").steps[0].requirements.cpu == 2
    assert parse(text, "w").steps[0].requirements.tags == ("a",)


def test_words_are_those_of_yaml_1_2() -> None:
    values = parse((CORPUS / "good" / "words_of_yaml.yaml").read_text(), "w").vars

    assert values == {
        "on": "yes",
        "no": "off",
        "date": "2026-12-01",
        "octal": 15,
        "zip": 1234,
        "large": "1_000",
        "shared": {"a": 1},
        "again": {"a": 1},
    }


def test_needs_null_is_after_the_previous_and_empty_is_at_once() -> None:
    assert one("    type: transform\n    needs:\n    with: {value: 1}\n").needs is None
    assert one("    type: transform\n    needs: []\n    with: {value: 1}\n").needs == ()


def test_a_wait_may_be_computed() -> None:
    action = one("    type: wait\n    with: {for: '${{ input.pause }}'}\n").action

    assert isinstance(action, Wait)
    assert isinstance(action.duration, Expression)


def test_json_with_surrogate_pairs_and_tabs_is_read() -> None:
    workflow = parse((CORPUS / "good" / "as_json.yaml").read_text(), "w.json")

    assert "\U0001f600" in str(workflow.steps[0].action)


def test_json_written_by_a_program_is_the_same_workflow() -> None:
    text = json.dumps({"name": "w", "steps": [{"id": "a", "type": "transform", "with": {"value": 1}}]})

    assert parse(text, "w.json") == parse(ONE_STEP, "w.yaml")


def test_the_version_ignores_format_and_covers_files() -> None:
    noisy = "# hello\nsteps:\n- with: {value: 1}\n  type: 'transform'\n  id: a\nname: w\n"

    assert version_of(noisy) == version_of(ONE_STEP)
    assert version_of(ONE_STEP, {"a.py": "sha256-1"}) != version_of(ONE_STEP, {"a.py": "sha256-2"})
    assert version_of(ONE_STEP).startswith("v-")
    with pytest.raises(InvalidDefinition):
        version_of("a: [")


def test_problems_carry_a_code_a_hint_and_the_step() -> None:
    text = "name: w\nsteps:\n  - {id: a, type: transform, tmeout: 1s, with: {value: 1}}\n"

    with pytest.raises(InvalidDefinition) as caught:
        parse(text, "dir/w.yaml")

    (problem,) = caught.value.diagnostics
    assert (problem.code, problem.path) == ("unknown-key", "a")
    assert str(caught.value) == "dir/w.yaml:3:30: unknown key 'tmeout' (did you mean 'timeout'?)"


def test_an_existing_file_is_asked_for_in_normal_form() -> None:
    asked: list[str] = []

    def exists(path: str) -> bool:
        asked.append(path)
        return True

    text = "name: w\nsteps:\n  - {id: a, type: python, with: {file: ./lib//a.py}}\n"
    text += "  - {id: b, type: singer, with: {project: named_in_settings}}\n"

    assert named_files(parse(text, "w", files=exists)) == ("lib/a.py",)
    assert asked == ["lib/a.py"]


def test_more_files_of_a_step_are_looked_for_and_named() -> None:
    text = "name: w\nsteps:\n  - {id: a, type: bash, with: {script: x, files: [./data, table.csv, gone, /etc]}}\n"

    with pytest.raises(InvalidDefinition) as caught:
        parse(text, "w", files=lambda path: path != "gone")

    assert [problem.code for problem in caught.value.diagnostics] == ["missing-file", "path"]
    assert named_files(parse(text.replace(", gone, /etc", ""), "w")) == ("data", "table.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"name: \xff\xfe", "1:7: the file is not UTF-8"),
        (b"\x80", "1:1: the file is not UTF-8"),
        ("name: a\0b", "1:8: the character U+0000 is not allowed"),
        ("name: \ud800", "1:7: the character U+D800 is not allowed"),
        ('{"name": "a\\u0000b"}', "1:10: the text holds a character that cannot be stored"),
        ('{"name": "\\ud800"}', "not YAML"),
        ("", "1:1: the file is empty"),
        ("# nothing", "1:1: the file is empty"),
        ("\ufeff", "1:1: the file is empty"),
        ("%YAML 1.1\n---\n", "the file is empty"),
        ("a" * 1_000_001, "1:1: the file is too large"),
        ("- " * 10_000, "nested deeper than 64 levels"),
        ("[" * 500_000, "nested deeper than 64 levels"),
        ("{a: " * 100_000, "nested deeper than 64 levels"),
        ("? " * 100_000, "nested deeper than 64 levels"),
        ("name: &a [" + "*a, " * 100 + "]", "contains itself"),
    ],
    ids=range(16),
)
def test_what_is_no_document_is_refused_quickly(text: str | bytes, message: str) -> None:
    started = time.process_time()
    workflow, problems = check(text, "w.yaml")
    elapsed = time.process_time() - started

    assert workflow is None
    assert any(message in str(problem) for problem in problems)
    assert elapsed < 1


@pytest.mark.parametrize(
    "text",
    [
        "name: w\nsteps:\n" + "- {}\n" * 100_000,
        "name: w\nsteps:\n" + "".join(f"- {{id: s{n}, type: bash}}\n" for n in range(30_000)),
        "name: w\nvars: {" + "".join(f"k{n}: 1, " for n in range(80_000)) + "}\nsteps: 1\n",
        "name: w\nsteps:\n" + "".join(f"- {{id: s{n}, typo{n}: 1, type: x{n}}}\n" for n in range(9_000)),
        "name: w\nsteps:\n- id: a\n  type: transform\n  with:\n   value: >\n" + "    ${{ input.a }}\n" * 20_000,
        "name: w\nsteps:\n- id: a\n  type: transform\n  with:\n   value:\n"
        + ("   - >\n" + "    ${{ inptu.a }}\n" * 150) * 100,
        "name: w\na: &a [" + "x, " * 1000 + "]\nb: [" + "*a, " * 1000 + "]\n",
    ],
    ids=["empty_steps", "many_steps", "many_keys", "many_mistakes", "holes", "folded_holes", "aliases"],
)
def test_a_flood_is_refused_in_bounded_time(text: str) -> None:
    started = time.process_time()
    workflow, problems = check(text, "w.yaml")
    elapsed = time.process_time() - started

    assert workflow is None
    assert 0 < len(problems) <= 201
    assert elapsed < 5


def test_ten_thousand_steps_that_name_each_other_are_read_in_reasonable_time() -> None:
    steps = "".join(
        f'- {{id: s{n}, type: transform, with: {{value: "${{{{ results.s{max(0, n - 7)} }}}}"}}}}\n'
        for n in range(1, 10_000)
    )
    text = "name: w\nsteps:\n- {id: s0, type: transform, with: {value: 1}}\n" + steps

    started = time.process_time()
    workflow = parse(text, "w.yaml")
    elapsed = time.process_time() - started

    assert len(workflow.steps) == 10_000
    assert elapsed < 10


def test_ten_thousand_unknown_names_are_refused_in_bounded_time() -> None:
    steps = "".join(
        f'- {{id: s{n}, type: transform, with: {{value: "${{{{ results.s{n}x }}}}"}}}}\n' for n in range(10_000)
    )

    started = time.process_time()
    _, problems = check("name: w\nsteps:\n" + steps, "w.yaml")
    elapsed = time.process_time() - started

    assert problems[-1].code == "too-many-problems"
    assert elapsed < 10


def test_a_usual_file_is_read_within_milliseconds() -> None:
    text = "name: w\nsteps:\n" + "".join(
        f'- {{id: s{n}, type: python, with: {{script: x, args: {{a: "${{{{ input.a }}}}"}}}}}}\n' for n in range(10)
    )
    parse(text, "w")

    def once() -> float:
        started = time.process_time()
        parse(text, "w")
        return time.process_time() - started

    assert min(once() for _ in range(20)) < 0.005


def test_reading_a_file_without_expressions_loads_no_parser_of_javascript() -> None:
    code = (
        "import sys; from flexcore.language.native import parse;"
        f"parse({ONE_STEP!r}, 'w');"
        "sys.exit(any(name.startswith(('tree_sitter', 'jsonschema', 'grpc', 'pydantic')) for name in sys.modules))"
    )

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


LINES = [line for path in (*GOOD, *BAD) for line in path.read_text().splitlines() if len(line) < 300]
PIECES = ["${{", "}}", *"{}[]'\"|>\t\n#~", "- ", ": ", "&a ", "*a", "!!", "<<", "0x"]


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), path=st.sampled_from(GOOD))
def test_a_mutated_file_is_read_or_refused_but_never_crashes(data: st.DataObject, path: Path) -> None:
    lines = path.read_text().splitlines()
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(lines) - 1))
        match data.draw(st.sampled_from(["drop", "line", "piece", "indent", "cut"])):
            case "drop":
                del lines[at : at + 1]
                lines = lines or [""]
            case "line":
                lines.insert(at, data.draw(st.sampled_from(LINES)))
            case "piece":
                column = data.draw(st.integers(0, len(lines[at])))
                lines[at] = lines[at][:column] + data.draw(st.sampled_from(PIECES)) + lines[at][column:]
            case "indent":
                lines[at] = "  " + lines[at]
            case _:
                lines[at] = lines[at][: data.draw(st.integers(0, len(lines[at])))]
    text = "\n".join(lines)

    workflow, problems = check(text, "w.yaml", task_parameters=FUNCTION, files=lambda _: True)

    assert (workflow is None) == bool(problems)
    assert [(each.line, each.column) for each in problems] == sorted((each.line, each.column) for each in problems)
    assert all(each.line >= 1 and each.column >= 1 for each in problems)
    assert check(text, "w.yaml", task_parameters=FUNCTION, files=lambda _: True) == (workflow, problems)


@settings(max_examples=100, deadline=None)
@given(st.one_of(st.text(max_size=200), st.binary(max_size=200)))
def test_any_text_or_bytes_are_read_or_refused(text: str | bytes) -> None:
    try:
        parse(text, "w.yaml")
    except InvalidDefinition as error:
        assert error.diagnostics


SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**53), 2**53),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=10),
)
KEYS = st.text("abc", min_size=1, max_size=4)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=3), max_leaves=10
)


@settings(max_examples=100, deadline=None)
@given(VALUES)
def test_constants_survive_being_written_and_read(value: JSON) -> None:
    document = {"name": "w", "vars": {"v": value}, "steps": [{"id": "a", "type": "transform", "with": {"value": 1}}]}

    compact, wide = json.dumps(document), json.dumps(document, indent=2, ensure_ascii=False, sort_keys=True)

    assert parse(compact, "w").vars == {"v": value}
    assert version_of(compact) == version_of(wide)
