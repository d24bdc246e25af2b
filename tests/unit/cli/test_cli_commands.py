import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from fake_control_plane import PLACEMENT, FakeControlPlane, execution, history, last, step

from flexcore.cli import bulk
from flexcore.cli.app import run
from flexcore.cli.options import Options, Output
from flexcore.cli.summary import headline
from flexcore.model.errors import (
    AlreadyExists,
    Diagnostic,
    NoFeasibleRuntime,
    PermissionDenied,
    StoreUnavailable,
)
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import Bundle, ExecutionQuery, LogPage, RetryRequest, StartRequest, TaskRequest

WORKFLOW = """\
name: etl
inputs:
  type: object
  properties:
    n: {type: integer}
    text: {type: string}
    either: {type: [string, "null"]}
steps: []
"""

Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    for name in ("FLEXCORE_SERVER", "FLEXCORE_OUTPUT", "FLEXCORE_WORKSPACE", "FLEXCORE_DEBUG"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "etl.yaml").write_text(WORKFLOW)
    return tmp_path


@pytest.fixture
def fake() -> FakeControlPlane:
    return FakeControlPlane()


def flexcore(fake: FakeControlPlane, line: str, *more: str) -> int:
    return run([*line.split(), *more], fake.connect)


def test_execute_prints_the_summary_on_stdout_and_progress_on_stderr(fake: FakeControlPlane, capsys: Capture) -> None:
    code = flexcore(fake, "workflow execute etl")

    out, err = capsys.readouterr()
    assert code == 0
    assert "etl  exe_1  succeeded in 2.00s" in out
    assert "fetch  succeeded  local          1  1.50s" in out
    assert "fetch ran on local: meltano cannot run python steps" in out
    assert '"n": 1' in out
    assert "fetch  started on local" in err
    assert "fetch | hello" in err
    assert "fetch  succeeded in 2.00s, 27,004 rows" in err
    assert "\x1b" not in out + err


def test_what_never_began_took_no_time() -> None:
    assert headline(execution(status="cancelled", duration_s=None)) == "etl  exe_1  cancelled"


def test_execute_as_json_prints_the_document_alone(fake: FakeControlPlane, capsys: Capture) -> None:
    flexcore(fake, "workflow execute etl --output json")

    assert json.loads(capsys.readouterr().out) == execution()


def test_yaml_is_a_form_of_output(fake: FakeControlPlane, capsys: Capture) -> None:
    flexcore(fake, "workflow status exe_1 --output=yaml")

    assert yaml.safe_load(capsys.readouterr().out)["id"] == "exe_1"


@pytest.mark.parametrize(("status", "code"), [("succeeded", 0), ("failed", 1), ("cancelled", 4)])
def test_the_end_of_the_execution_is_the_exit_code(fake: FakeControlPlane, status: str, code: int) -> None:
    fake.documents["exe_1"] = execution(status=status)

    assert flexcore(fake, "workflow execute etl") == code
    assert flexcore(fake, "workflow wait exe_1") == code
    assert flexcore(fake, "runtime execute local --type bash") == code


def test_a_failure_shows_the_error_and_how_to_see_more(fake: FakeControlPlane, capsys: Capture) -> None:
    error = {"class": "user", "name": "ValueError", "message": "no", "step": "fetch", "hint": "`logs ID fetch` has it"}
    fake.documents["exe_1"] = execution(status="failed", error=error, steps=[step("fetch", "failed")])

    flexcore(fake, "execution show exe_1")

    out = capsys.readouterr().out
    assert "error in step fetch [user] ValueError: no" in out
    assert "hint: `logs exe_1 fetch` has it" in out


def test_out_of_time_as_a_whole_exits_with_4_and_a_step_out_of_time_with_1(fake: FakeControlPlane) -> None:
    error = {"class": "timeout", "name": "Timeout", "message": "late", "step": None}
    fake.documents["exe_1"] = execution(status="failed", error=error)
    fake.documents["exe_2"] = execution("exe_2", status="failed", error={**error, "step": "fetch"})

    assert flexcore(fake, "workflow wait exe_1") == 4
    assert flexcore(fake, "workflow wait exe_2") == 1


def test_a_failure_that_was_followed_shows_the_last_output(fake: FakeControlPlane, capsys: Capture) -> None:
    error = {"class": "user", "name": "exit 1", "message": "no", "step": "fetch", "hint": ""}
    fake.documents["exe_1"] = execution(status="failed", error=error, steps=[step("fetch", "failed")])

    flexcore(fake, "workflow wait exe_1")

    assert "[user] exit 1: no\n  its last output:\n    hello\n" in capsys.readouterr().out


def test_steps_that_did_not_go_to_the_runtime_asked_for_are_listed(fake: FakeControlPlane, capsys: Capture) -> None:
    reason = {"code": "kind", "reason": "meltano cannot run python steps"}
    refused = {**PLACEMENT, "candidates": [{"runtime": "meltano", "feasible": False, "reasons": [reason]}]}
    pinned = {**PLACEMENT, "chosen": "meltano", "source": "pinned"}
    steps = [step("load", placement=pinned), step("check", placement=refused), step("own", placement=PLACEMENT)]
    fake.documents["exe_1"] = execution(steps=steps)

    flexcore(fake, "workflow execute etl --runtime meltano")

    out = capsys.readouterr().out
    assert "not on meltano, in spite of --runtime: check: meltano cannot run python steps" in out
    assert "not on meltano, in spite of --runtime: own: the step names its runtime" in out


def test_a_summary_of_many_steps_stays_short(fake: FakeControlPlane, capsys: Capture) -> None:
    fake.documents["exe_1"] = execution(steps=[step(f"each[{number}].go") for number in range(5000)])

    flexcore(fake, "execution show exe_1")

    out = capsys.readouterr().out
    assert "and 4,900 more steps" in out
    assert "each[0].go, each[1].go, each[2].go and 4997 more ran on local" in out


def test_a_singer_step_shows_its_streams(fake: FakeControlPlane, capsys: Capture) -> None:
    result = {"streams": [{"name": "flights", "rows": 27004, "bytes": 2_000_000}], "state_before": {"a": 1}}
    fake.documents["exe_1"] = execution(steps=[step("load", type="singer", result=result)])

    flexcore(fake, "execution show exe_1")

    out = capsys.readouterr().out
    assert "load: incremental" in out
    assert "flights  27,004    2MB" in out


@pytest.mark.parametrize(
    "arguments",
    [
        ["--output", "json", "--workspace", "w", "workflow", "list"],
        ["workflow", "--output=json", "list", "--workspace", "w"],
        ["workflow", "list", "--output", "json", "--workspace=w"],
    ],
)
def test_common_options_stand_anywhere(fake: FakeControlPlane, arguments: list[str]) -> None:
    assert run(arguments, fake.connect) == 0

    options = last(fake, Options)
    assert (options.output, options.workspace) == (Output.JSON, "w")


def test_a_common_option_behind_two_dashes_is_an_argument(fake: FakeControlPlane) -> None:
    assert flexcore(fake, "workflow show -- --output") == 2

    assert last(fake, Options).output is Output.TEXT


@pytest.mark.parametrize(
    "line",
    [
        "--output xml version",
        "version --output",
        "nonsense",
        "workflow execute",
        "workflow x",
        "execution list --label a=1 --label a=2",
    ],
)
def test_wrong_usage_exits_with_2(fake: FakeControlPlane, line: str) -> None:
    assert flexcore(fake, line) == 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("gc --kind nothing", "'nothing' is not one of"),
        ("workflow show", "Missing argument 'NAME'"),
        ("workflow list --colour", "No such option"),
        ("workflw list", "Did you mean 'workflow'?"),
        ("workflow", "Usage: flexcore workflow"),
        ("--server", "--server needs a value"),
    ],
)
def test_wrong_usage_is_one_document_where_json_is_asked_for(
    fake: FakeControlPlane, capsys: Capture, line: str, message: str
) -> None:
    assert flexcore(fake, "--output json", *line.split()) == 2

    out, err = capsys.readouterr()
    error = json.loads(out)["error"]
    assert (error["code"], message in error["message"], "\n" in error["message"]) == ("invalid_request", True, False)
    assert error["hint"]
    assert message in err


def test_acting_on_many_gives_each_its_own_key(fake: FakeControlPlane) -> None:
    fake.documents = {"exe_1": execution("exe_1", "failed")}

    flexcore(fake, "execution retry --workflow etl --yes")

    assert last(fake, RetryRequest) == RetryRequest(id=ExecutionId("exe_1"), idempotency_key="retry of exe_1")


@pytest.mark.parametrize(
    ("arguments", "value"),
    [
        (["-p", "n=4"], {"n": 4}),
        (["-p", "text=4"], {"text": "4"}),
        (["-p", "either=4"], {"either": "4"}),
        (["-p", "either=null"], {"either": None}),
        (["-p", "other=4"], {"other": 4}),
        (["-p", "other=a=b"], {"other": "a=b"}),
        (["-p", "n=four"], {"n": "four"}),
        (["-p", "other=NaN"], {"other": "NaN"}),
        (["--parameters", '{"n": 1, "m": [2]}'], {"n": 1, "m": [2]}),
        (["--parameters", '{"n": 1, "m": 2}', "-p", "n=3"], {"n": 3, "m": 2}),
        (["--parameters", "@input.json"], {"from": "file"}),
        ([], None),
    ],
)
def test_the_input_is_typed(fake: FakeControlPlane, folder: Path, arguments: list[str], value: Any) -> None:
    (folder / "input.json").write_text('{"from": "file"}')

    assert flexcore(fake, "workflow execute etl", *arguments) == 0
    assert last(fake, StartRequest).input == value


def test_the_schema_of_a_deployed_workflow_counts(fake: FakeControlPlane, folder: Path) -> None:
    fake.deployed["there"] = WORKFLOW

    flexcore(fake, "workflow execute there -p text=4")

    assert last(fake, StartRequest).input == {"text": "4"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--parameters", '{"n": }'], "line 1 column 7"),
        (["--parameters", '{"n": NaN}'], "NaN"),
        (["--parameters", "@nowhere.json"], "nowhere.json"),
        (["--parameters", "[1]", "-p", "n=1"], "object"),
        (["-p", "n"], "-p n"),
        (["--timeout", "soon"], "--timeout"),
    ],
)
def test_a_wrong_input_exits_with_2(fake: FakeControlPlane, capsys: Capture, arguments: list[str], words: str) -> None:
    assert flexcore(fake, "workflow execute etl", *arguments) == 2
    assert words in capsys.readouterr().err


def test_every_option_of_execute_arrives(fake: FakeControlPlane) -> None:
    flexcore(fake, "workflow execute etl --runtime ray --idempotency-key k --timeout 1h30m --workspace w")

    request = last(fake, StartRequest)
    assert (request.workflow, request.version, request.workspace) == ("etl", "v-1", "w")
    assert (request.runtime, request.idempotency_key, request.timeout) == ("ray", "k", timedelta(minutes=90))


@pytest.mark.parametrize("line", ["workflow execute etl", "workflow retry exe_1", "runtime execute local --type bash"])
def test_no_wait_needs_a_server(fake: FakeControlPlane, capsys: Capture, line: str) -> None:
    assert flexcore(fake, f"{line} --no-wait") == 2
    assert "--server" in capsys.readouterr().err
    assert flexcore(fake, f"{line} --no-wait --server h:1 --output json") == 0
    assert json.loads(capsys.readouterr().out)["id"].startswith("exe_")


@pytest.mark.parametrize(
    ("error", "code", "words"),
    [
        (AlreadyExists("taken", hint="another"), 2, ["taken", "another"]),
        (PermissionDenied("no"), 5, ["no"]),
        (StoreUnavailable("away"), 3, ["away"]),
        (NoFeasibleRuntime("none", reasons={"ray": "no gpu"}), 2, ["ray: no gpu"]),
        (ZeroDivisionError("oops"), 1, ["internal error", "please report"]),
        (AlreadyExists("stream a\x1b[31m", hint="not \x1b]0;b\x07"), 2, ["stream a\n", "hint: not \n"]),
    ],
)
def test_errors_are_told_without_a_traceback(
    fake: FakeControlPlane, capsys: Capture, error: Exception, code: int, words: list[str]
) -> None:
    fake.error = error

    assert flexcore(fake, "workflow execute etl --output json") == code

    out, err = capsys.readouterr()
    assert [word for word in words if word not in err] == []
    assert "Traceback" not in err
    assert json.loads(out)["error"]["message"]


def test_a_traceback_is_there_for_who_asks(
    fake: FakeControlPlane, capsys: Capture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLEXCORE_DEBUG", "1")
    fake.error = ZeroDivisionError("oops")

    flexcore(fake, "workflow execute etl")

    assert "Traceback" in capsys.readouterr().err


def test_validate_points_at_the_file_as_given(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    (folder / "sub").mkdir()
    (folder / "sub" / "workflow.yaml").write_text(WORKFLOW)
    fake.problems = [Diagnostic("workflow.yaml", 3, 5, "unknown key", hint="did you mean steps?")]

    assert flexcore(fake, "workflow validate sub/workflow.yaml") == 2
    assert capsys.readouterr().out == "sub/workflow.yaml:3:5: unknown key (did you mean steps?)\n"
    assert flexcore(fake, "workflow execute sub") == 2
    assert "sub/workflow.yaml:3:5: unknown key" in capsys.readouterr().err


def test_validate_says_so_when_all_is_well(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "workflow validate etl.yaml --output json") == 0
    assert json.loads(capsys.readouterr().out) == {"valid": True, "diagnostics": []}


def test_a_file_that_is_not_utf8_is_a_diagnostic(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    (folder / "bad.yaml").write_bytes(b"name: \xff")

    assert flexcore(fake, "workflow validate bad.yaml etl.yaml") == 2
    assert capsys.readouterr().out.startswith("bad.yaml:1:1: the file is not UTF-8")


def test_plan_prints_the_placements(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "workflow plan etl") == 0
    out = capsys.readouterr().out
    assert "fetch  python  local    meltano cannot run python steps" in out
    assert out.endswith("hint: configure one\n")
    flexcore(fake, "workflow plan etl --output json")
    assert json.loads(capsys.readouterr().out)["steps"][0]["placement"]["chosen"] == "local"


def test_definitions_are_deployed_listed_shown_and_deleted(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "workflow deploy etl.yaml") == 0
    assert flexcore(fake, "workflow list --runtime all") == 0
    assert (("default", None)) in fake.asked
    assert flexcore(fake, "workflow list --runtime ray --output json") == 0
    assert ("default", "ray") in fake.asked
    assert flexcore(fake, "workflow show etl") == 0
    assert flexcore(fake, "workflow versions etl") == 0
    assert flexcore(fake, "workflow delete etl") == 0
    assert flexcore(fake, "workflow delete etl") == 2
    out = capsys.readouterr().out
    assert "etl  v-1  new" in out
    assert WORKFLOW in out
    assert "deleted etl" in out


def test_create_writes_a_workflow_once(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    assert flexcore(fake, "workflow create first") == 0
    assert "flexcore workflow execute first" in capsys.readouterr().out
    assert yaml.safe_load((folder / "first.yaml").read_text())["name"] == "first"
    assert flexcore(fake, "workflow create first") == 2
    assert flexcore(fake, "workflow create First!") == 2


def test_status_says_what_is_waited_for(fake: FakeControlPlane, capsys: Capture) -> None:
    fake.documents["exe_1"] = execution(status="running", steps=[step("a", "pending", waiting_for="runtime 'ray'")])

    assert flexcore(fake, "workflow status exe_1") == 0
    assert "a waits for runtime 'ray'" in capsys.readouterr().out


def test_an_unknown_execution_exits_with_2(fake: FakeControlPlane) -> None:
    assert flexcore(fake, "workflow status exe_9") == 2


def test_logs_are_read_to_their_end(fake: FakeControlPlane, capsys: Capture) -> None:
    pieces = [{"path": "a", "stream": "stdout", "offset": 0, "text": f"line {number}\n"} for number in (1, 2)]
    fake.pages = [
        LogPage(pieces=(pieces[0],), next="1", ended=False),
        LogPage(pieces=(pieces[1],), next="2", ended=True),
    ]

    assert flexcore(fake, "workflow logs exe_1") == 0
    assert capsys.readouterr().out == "a | line 1\na | line 2\n"
    assert flexcore(fake, "workflow logs exe_1 a --output json") == 0
    assert json.loads(capsys.readouterr().out) == pieces


def test_logs_can_be_followed(fake: FakeControlPlane, capsys: Capture) -> None:
    piece = {"path": "a", "stream": "stdout", "offset": 0, "text": "late\n"}
    fake.pages = [LogPage(pieces=(), next="1", ended=False), LogPage(pieces=(piece,), next="2", ended=True)]

    assert flexcore(fake, "workflow logs exe_1 a -f") == 0
    assert capsys.readouterr().out == "late\n"


def test_cancel_waits_for_the_end(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "workflow cancel exe_1 --reason enough") == 0

    assert ("cancel", "exe_1", "enough") in fake.asked
    assert "cancelled" in capsys.readouterr().out


def test_retry_runs_the_new_execution(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "workflow retry exe_1 --from fetch") == 0

    assert RetryRequest(id="exe_1", from_step="fetch") in fake.asked
    assert "exe_2  succeeded in 2.00s, a retry of exe_1" in capsys.readouterr().out


def test_resume_without_anything_to_do_succeeds(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "workflow resume") == 0
    assert "nothing to resume" in capsys.readouterr().err
    assert flexcore(fake, "workflow resume --output json") == 0
    assert json.loads(capsys.readouterr().out) == []


def test_resume_follows_all_and_exits_with_the_worst(fake: FakeControlPlane, capsys: Capture) -> None:
    fake.unfinished = ["exe_1", "exe_2", "exe_3"]
    fake.documents |= {"exe_2": execution("exe_2", "cancelled"), "exe_3": execution("exe_3", "failed")}

    assert flexcore(fake, "workflow resume") == 1

    out, err = capsys.readouterr()
    assert "resuming exe_1, exe_2, exe_3" in err
    assert [id for id in fake.unfinished if id not in out] == []


def test_executions_are_listed_page_by_page(fake: FakeControlPlane, capsys: Capture) -> None:
    fake.documents |= {"exe_2": execution("exe_2"), "exe_3": execution("exe_3")}

    assert flexcore(fake, "execution list --workflow etl --status failed --since 2h --limit 2 --output json") == 0

    assert [each["id"] for each in json.loads(capsys.readouterr().out)] == ["exe_1", "exe_2"]
    query = last(fake, ExecutionQuery)
    assert (query.workflow, query.status.value) == ("etl", "failed")
    assert query.since.tzinfo is not None


@pytest.mark.parametrize("verb", ["cancel", "retry"])
def test_more_than_can_be_acted_on_at_once_are_refused(
    fake: FakeControlPlane, monkeypatch: pytest.MonkeyPatch, verb: str
) -> None:
    monkeypatch.setattr(bulk, "_MOST", 2)
    fake.documents = {id: execution(id, "failed") for id in ("exe_1", "exe_2", "exe_3")}

    assert flexcore(fake, f"execution {verb} --workflow etl --yes") == 2

    assert last(fake, ExecutionQuery).unfinished == (verb == "cancel")
    assert not any(isinstance(each, RetryRequest) for each in fake.asked)


def test_since_is_a_duration_or_a_time(fake: FakeControlPlane) -> None:
    assert flexcore(fake, "execution list --since 2026-12-01T00:00:00Z") == 0
    assert flexcore(fake, "execution list --since yesterday") == 2
    assert flexcore(fake, "execution list --since 0001-01-01") == 2


def test_events_are_read_to_their_end(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "execution events exe_1 --output json") == 0
    assert [each["seq"] for each in json.loads(capsys.readouterr().out)] == [1, 2, 3]


def test_explain_prints_the_sentences(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "execution explain exe_1 fetch") == 0
    assert capsys.readouterr().out == "fetch: local\n  because\n"


def test_runtimes_are_described(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "runtime list") == 0
    assert "local  local  true" in capsys.readouterr().out
    assert flexcore(fake, "runtime health") == 0
    assert "local: up: 2 processes at a time" in capsys.readouterr().out
    assert flexcore(fake, "runtime capabilities local") == 0
    assert capsys.readouterr().out.splitlines() == [
        "step kinds: bash, python",
        "limits: cpu 2.0, memory 25GB",
        "versions: bash 5.2",
        "note on limits: memory by a watch",
    ]
    assert flexcore(fake, "runtime capabilities local --output json") == 0
    assert json.loads(capsys.readouterr().out)["limits"]["cpu"] == 2.0


def test_what_is_wrong_with_one_task_names_the_option(fake: FakeControlPlane, capsys: Capture) -> None:
    fake.problems = [
        Diagnostic("workflow.yaml", 1, 67, "`url` is missing"),
        Diagnostic("workflow.yaml", 1, 5, "unknown step type 'htp'", "unknown-type", hint="did you mean 'http'?"),
    ]

    assert flexcore(fake, "runtime execute ray --type htp --with {}") == 2

    said = "--with: `url` is missing; --type: unknown step type 'htp' (did you mean 'http'?)"
    assert capsys.readouterr().err == f"error: {said}\n"


def test_what_an_unreachable_runtime_can_do_is_an_error(fake: FakeControlPlane, capsys: Capture) -> None:
    fake.unreachable = True

    assert flexcore(fake, "runtime capabilities far --output json") == 3

    out, err = capsys.readouterr()
    assert json.loads(out) == {"error": {"code": "runtime_unavailable", "message": "nobody there", "hint": "start it"}}
    assert err == "error: nobody there\n  hint: start it\n"


def test_one_task_is_executed_on_a_runtime(fake: FakeControlPlane) -> None:
    assert flexcore(fake, "runtime execute local --type bash --with", '{"script": "true"}') == 0

    request = last(fake, TaskRequest)
    assert (request.runtime, request.type, request.parameters) == ("local", "bash", {"script": "true"})
    assert flexcore(fake, "runtime execute local --type bash --with", "[1]") == 2


def test_a_retry_and_a_wait_are_told_as_they_happen(fake: FakeControlPlane, capsys: Capture) -> None:
    failure = {"message": "refused\nmore", "error_class": "dependency"}
    fake.events = (
        history(0, "StepDispatched", path="a", runtime="local", attempt=1),
        history(1, "StepRetryScheduled", path="a", attempt=1, failure=failure, due_at="2026-01-02T12:00:05Z"),
        history(5, "StepDispatched", path="a", runtime="local", attempt=2),
        history(6, "StepSubmitted", path="a", adopted=True),
        history(7, "StepFailed", path="a", failure=failure),
        history(7, "StepSkipped", path="b", reason="a failed"),
        history(8, "StepUnplaced", path="c", waiting_for="runtime ray is down"),
        history(9, "CancelRequested", reason="enough"),
    )

    flexcore(fake, "workflow wait exe_1")

    lines = [line.partition("  ")[2] for line in capsys.readouterr().err.splitlines()[1:]]
    assert lines == [
        "a  started on local",
        "a  attempt 1 failed: refused; next at 12:00:05",
        "a  started on local, attempt 2",
        "a  found again, still running on local",
        "a  failed in 2.00s: refused",
        "b  skipped: a failed",
        "c  waits: runtime ray is down",
        "cancelling: enough",
    ]


def test_the_bundle_has_what_the_workflow_names_and_no_more(fake: FakeControlPlane, folder: Path) -> None:
    for name in ("a.py", "mod.py", "elsewhere.py", "proj/meltano.yml", "proj/.meltano/x", "proj/output/y", "proj/.env"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")
    (folder / "proj" / "outside").symlink_to("/etc")
    (folder / "proj" / "link.py").symlink_to("/etc/passwd")
    (folder / "w.yaml").write_text(
        "name: w\nsteps:\n"
        "- {id: a, type: python, with: {file: ./a.py}}\n"
        "- {id: f, type: foreach, steps: [{id: b, type: singer, with: {project: ./proj}}]}\n"
        "- {id: c, type: singer, with: {project: named}}\n"
        "- {id: d, type: function, with: {name: 'mod:go'}}\n"
        "- {id: e, type: python, with: {file: ../up.py}}\n"
    )

    flexcore(fake, "workflow deploy w.yaml")

    bundle = last(fake, Bundle)
    assert sorted(bundle.files) == ["a.py", "mod.py", "proj/meltano.yml"]
    assert bundle.origin == str(folder)


def test_a_bundle_that_is_too_large_is_refused(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    with (folder / "big.py").open("wb") as file:
        file.truncate(60_000_000)
    (folder / "w.yaml").write_text("name: w\nsteps: [{id: a, type: python, with: {file: big.py}}]\n")

    assert flexcore(fake, "workflow deploy w.yaml") == 2
    assert "big.py (60MB)" in capsys.readouterr().err


def test_how_large_a_bundle_may_be_is_a_setting(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    (folder / "flexcore.yaml").write_text("limits: {bundle_bytes: 2KiB}\n")
    (folder / "big.py").write_text("#" * 3000)
    (folder / "w.yaml").write_text("name: w\nsteps: [{id: a, type: python, with: {file: big.py}}]\n")

    assert flexcore(fake, "workflow deploy w.yaml") == 2
    assert "w.yaml and its files are larger than" in capsys.readouterr().err
