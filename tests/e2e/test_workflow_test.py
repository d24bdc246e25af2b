"""`flexcore workflow test` as it is typed."""

import json
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import jsonschema
import pytest
from e2e.cli_session import Session

from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain

ROOT = Path(__file__).parents[2]
WORKFLOW = """
name: nightly
inputs: {type: object, properties: {limit: {type: integer, default: 1}}}
steps:
  - {id: pause, type: wait, with: {for: 8h}}
  - {id: fetch, type: bash, with: {script: "echo", args: ["${{ input.limit }}"], env: {TOKEN: "${{ secrets.TOKEN }}"}}}
output: ${{ [input.limit, results.fetch] }}
"""
TESTS = """
tests:
  - name: it fetches after eight hours
    secrets: {TOKEN: not-for-your-eyes}
    mocks: {fetch: {result: [1, 2]}}
    expect: {output: [1, [1, 2]], duration: 8h}
  - name: it fails with what it was told
    secrets: {TOKEN: not-for-your-eyes}
    mocks: {fetch: {error: {class: dependency, message: "refused not-for-your-eyes"}}}
    expect: {output: 3}
"""


@pytest.fixture
def session(tmp_path: Path) -> Session:
    (tmp_path / "nightly.yaml").write_text(WORKFLOW)
    (tmp_path / "nightly.test.yaml").write_text(TESTS)
    return Session(tmp_path)


def test_a_failure_is_shown_with_what_was_expected_and_what_ran(session: Session) -> None:
    done = session("workflow", "test", "nightly", "--junit", "reports/junit.xml")

    assert done.code == 1
    lines = done.out.splitlines()
    assert lines[0] == "nightly.test.yaml"
    assert lines[1].startswith("  ok      it fetches after eight hours  (8h in ")
    assert lines[2].startswith("  failed  it fails with what it was told  (8h in ")
    assert "--- nightly.test.yaml: it fails with what it was told" in lines
    assert "  status: expected succeeded, was failed: step 'fetch' failed with dependency: refused ***" in lines
    assert "  output: expected 3, was null" in lines
    assert "    pause  succeeded, 8h" in lines
    assert lines[-1].startswith("1 failed, 1 passed in ")
    assert "not-for-your-eyes" not in done.out + done.err
    report = (session.folder / "reports" / "junit.xml").read_text()
    assert [len(list(each)) for each in ElementTree.fromstring(report).iter("testcase")] == [0, 1]
    assert "not-for-your-eyes" not in report
    assert not (session.folder / ".flexcore").exists()


def test_some_tests_with_another_input_as_a_document(session: Session) -> None:
    arguments = ("workflow", "test", "nightly.test.yaml", "--test", "it fetches*", "--parameters", '{"limit": 5}')

    found = session.json(*arguments, code=1)

    assert (found["passed"], found["failed"]) == (0, 1)
    (test,) = found["tests"]
    assert test["problems"] == ["output[0]: expected 1, was 5"]
    assert test["virtual_s"] == 8 * 3600


def test_a_bad_test_file_exits_with_2_and_the_places(session: Session) -> None:
    session.write("nightly.test.yaml", "tests:\n  - name: a\n    mocks: {fech: {result: 1}}\n")

    done = session("workflow", "test", "nightly")

    assert done.code == 2
    assert "nightly.test.yaml:3:13: unknown step 'fech' (did you mean 'fetch'?)" in done.err


def test_what_is_not_there_exits_with_2_and_says_where_it_was_looked_for(session: Session) -> None:
    session.write("lonely.yaml", WORKFLOW)

    assert "write lonely.test.yaml" in session("workflow", "test", "lonely").err
    assert "there is no test named 'x'" in session("workflow", "test", "nightly", "--test", "x").err


def test_a_template_is_copied_and_tested_as_it_ships(tmp_path: Path) -> None:
    done = Session(tmp_path)("workflow", "test", "singer_extraction")

    assert done.code == 0, done
    assert (tmp_path / "singer_extraction" / "workflow.yaml").is_file()


def test_the_schema_for_editors_accepts_the_test_files_that_ship(tmp_path: Path) -> None:
    schema = Session(tmp_path).json("schema", "test")

    validator = jsonschema.Draft202012Validator(schema)
    validator.check_schema(schema)
    for path in sorted((ROOT / "templates").glob("*/*test.yaml")):
        root, _ = compose(path.read_bytes(), Findings(path.name))
        assert root is not None
        assert [each.message for each in validator.iter_errors(plain(root))] == []
    wrong = json.loads('{"tests": [{"name": "a", "mocks": {"x": {"takes": "1s"}}, "expct": {}}]}')
    assert len(list(validator.iter_errors(wrong))) == 2
