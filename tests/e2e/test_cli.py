"""The command line as its users meet it: every command alone and against a server, with the same answers."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from e2e.cli_session import TOKEN, Session, server

from flexcore.testing.command import until

HELLO = """\
name: hello
description: Greets
inputs:
  type: object
  properties:
    who: {type: string, default: world}
    times: {type: integer, default: 1}
steps:
  - id: greet
    type: bash
    with: {script: 'echo "hello $1"; echo "{\\"who\\": \\"$1\\"}"', args: ["${{ input.who }}"]}
  - {id: shape, type: transform, with: {value: {who: "${{ results.greet.who }}", times: "${{ input.times }}"}}}
output: ${{ results.shape }}
"""
FAILS = """\
name: fails
steps:
  - {id: first, type: transform, with: {value: 1}}
  - {id: breaks, type: bash, with: {script: "echo about to break; exit 3"}, retry: {attempts: 2, delay: 10ms}}
  - {id: never, type: transform, with: {value: 2}}
"""
# Goes on until it is told to end, or ended.
WAITS = """\
name: waits
steps:
  - {id: nap, type: bash, with: {script: "echo napping; sleep 60"}}
"""
WRONG = """\
name: wrong
steps:
  - {id: a, type: bash, wiht: {script: "true"}}
"""


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with server(tmp_path_factory.mktemp("server"), FLEXCORE_SERVER__TOKEN=TOKEN) as running:
        yield running.grpc


@pytest.fixture(scope="module", params=["embedded", "server"])
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Session:
    folder = tmp_path_factory.mktemp(request.param)
    for text in (HELLO, FAILS, WAITS, WRONG):
        (folder / f"{text.split()[1]}.yaml").write_text(text)
    if request.param == "embedded":
        return Session(folder)
    return Session(folder, {"FLEXCORE_SERVER": request.getfixturevalue("address"), "FLEXCORE_TOKEN": TOKEN})


@pytest.fixture(scope="module")
def succeeded(cli: Session) -> Any:
    """Give the document of an execution that went well."""
    return cli.json("workflow", "execute", "hello.yaml")


@pytest.fixture(scope="module")
def failed(cli: Session) -> Any:
    """Give the document of an execution that did not."""
    return cli.json("workflow", "execute", "fails", code=1)


def is_server(cli: Session) -> bool:
    return "FLEXCORE_SERVER" in cli.environment


def steps_of(document: Any) -> dict[str, Any]:
    return {step["path"]: step for step in document["steps"]}


def test_a_file_is_executed_and_its_result_printed(cli: Session) -> None:
    done = cli("workflow", "execute", "hello.yaml", "-p", "who=you")

    assert done.code == 0
    assert re.search(r"hello  exe_\w+  succeeded in", done.out)
    assert '"who": "you"' in done.out
    assert "greet  started on local" in done.err
    assert "greet | hello you" in done.err


def test_the_execution_document_is_alone_on_stdout(succeeded: Any) -> None:
    step = steps_of(succeeded)["greet"]

    assert succeeded["status"] == "succeeded"
    assert succeeded["output"] == {"who": "world", "times": 1}
    assert (step["status"], step["runtime"], step["attempt"]) == ("succeeded", "local", 1)
    assert step["placement"]["chosen"] == "local"


@pytest.mark.parametrize(
    ("arguments", "output"),
    [
        (["-p", "who=4", "-p", "times=4"], {"who": "4", "times": 4}),
        (["--parameters", '{"who": "a", "times": 2}'], {"who": "a", "times": 2}),
        (["--parameters", "@input.json", "-p", "times=9"], {"who": "file", "times": 9}),
    ],
)
def test_input_is_given_as_pairs_as_json_and_as_a_file(cli: Session, arguments: list[str], output: Any) -> None:
    cli.write("input.json", '{"who": "file"}')

    assert cli.json("workflow", "execute", "hello", *arguments)["output"] == output


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["hello", "--parameters", "{oops"], ["--parameters", "not JSON", "column 2"]),
        (["hello", "--parameters", "@absent.json"], ["absent.json"]),
        (["hello", "-p", "times=many"], ["times", "integer"]),
        (["helo"], ["no workflow 'helo'", "hint:", "./helo.yaml"]),
        (["wrong.yaml"], ["wrong.yaml:3:", "wiht", "with"]),
        (["hello", "--runtime", "mars"], ["mars", "present:"]),
        (["hello", "--timeout", "soon"], ["--timeout"]),
    ],
)
def test_what_cannot_be_started_exits_with_2_and_says_why(cli: Session, arguments: list[str], words: list[str]) -> None:
    done = cli("workflow", "execute", *arguments)

    assert done.code == 2
    assert done.out == ""
    assert all(word in done.err for word in words), done.err


def test_a_refusal_is_a_document_where_one_is_asked_for(cli: Session) -> None:
    error = cli.json("workflow", "execute", "wrong.yaml", code=2)["error"]

    assert error["code"] == "invalid_definition"
    assert {(each["file"], each["line"]) for each in error["diagnostics"]} == {("wrong.yaml", 3)}


def test_a_failure_exits_with_1_and_shows_the_last_output(cli: Session) -> None:
    done = cli("workflow", "execute", "fails")

    assert done.code == 1
    assert "error in step breaks [user]" in done.out
    assert "    about to break\n" in done.out
    assert "flexcore workflow logs exe_" in done.out


def test_a_failure_keeps_what_finished(failed: Any) -> None:
    steps = steps_of(failed)

    assert (failed["status"], failed["error"]["class"], failed["error"]["step"]) == ("failed", "user", "breaks")
    assert (steps["first"]["result"], steps["never"]["status"]) == (1, "skipped")


def test_out_of_time_exits_with_4(cli: Session) -> None:
    document = cli.json("workflow", "execute", "waits", "--timeout", "500ms", code=4)

    assert document["error"]["class"] == "timeout"


def test_a_runtime_is_pinned(cli: Session) -> None:
    document = cli.json("workflow", "execute", "hello", "--runtime", "local")

    assert steps_of(document)["greet"]["placement"]["source"] == "pinned"


def test_a_key_starts_one_execution(cli: Session) -> None:
    first = cli.json("workflow", "execute", "hello", "--idempotency-key", "monday")
    again = cli.json("workflow", "execute", "hello", "--idempotency-key", "monday")
    other = cli("workflow", "execute", "hello", "-p", "who=else", "--idempotency-key", "monday")

    assert first["id"] == again["id"]
    assert other.code == 2
    assert first["id"] in other.err


def test_not_waiting_is_for_servers(cli: Session) -> None:
    done = cli("workflow", "execute", "hello", "--no-wait")

    if not is_server(cli):
        assert done.code == 2
        assert "flexcore server" in done.err
        return
    assert re.fullmatch(r"exe_\w+\n", done.out)
    assert cli.json("workflow", "wait", done.out.strip())["status"] == "succeeded"


def test_definitions_are_deployed_listed_shown_and_deleted(cli: Session) -> None:
    cli.write("extra.yaml", HELLO.replace("name: hello", "name: extra"))

    deployed = cli.json("workflow", "deploy", "extra.yaml")
    again = cli.json("workflow", "deploy", "extra.yaml")
    listed = {each["name"]: each for each in cli.json("workflow", "list")}
    shown = cli.json("workflow", "show", "extra")
    versions = cli.json("workflow", "versions", "extra")
    deleted = cli("workflow", "delete", "extra")
    gone = cli("workflow", "show", "extra")

    assert (deployed["name"], deployed["created"], again["created"]) == ("extra", True, False)
    assert listed["extra"]["version"] == deployed["version"]
    assert "name: extra" in shown["text"]
    assert [each["version"] for each in versions] == [deployed["version"]]
    assert (deleted.code, gone.code) == (0, 2)


def test_definitions_are_listed_by_runtime(cli: Session, succeeded: Any) -> None:
    def names(runtime: str) -> set[str]:
        return {each["name"] for each in cli.json("workflow", "list", "--runtime", runtime)}

    assert "hello" in names("all")
    assert "hello" not in names("kubernetes")


def test_a_deployed_workflow_runs_by_name_from_anywhere(cli: Session, succeeded: Any, tmp_path: Path) -> None:
    home = {} if is_server(cli) else {"FLEXCORE_HOME": str(cli.folder / ".flexcore")}
    elsewhere = Session(tmp_path, environment={**cli.environment, **home})

    assert elsewhere.json("workflow", "execute", "hello")["status"] == "succeeded"


def test_files_are_validated(cli: Session) -> None:
    good, bad = cli("workflow", "validate", "hello.yaml"), cli("workflow", "validate", "hello.yaml", "wrong.yaml")
    document = cli.json("workflow", "validate", "wrong.yaml", code=2)

    assert (good.code, good.out) == (0, "hello.yaml: valid\n")
    assert bad.code == 2
    assert re.search(r"^wrong\.yaml:3:\d+: .*wiht", bad.out, re.MULTILINE)
    assert not document["valid"]
    assert document["diagnostics"][0]["hint"]


def test_a_plan_says_where_steps_would_go(cli: Session) -> None:
    plan = cli.json("workflow", "plan", "hello")
    nowhere = cli.json("workflow", "plan", cli.write("far.yaml", HELLO.replace("hello", "far").replace(
        "type: bash", "type: bash\n    requirements: {gpu: 64}")))  # fmt: skip

    assert plan["workflow"] == "hello"
    assert [(each["path"], each["id"], each["type"]) for each in plan["steps"]] == [
        ("greet", "greet", "bash"),
        ("shape", "shape", "transform"),
    ]
    placement = plan["steps"][0]["placement"]
    assert placement["chosen"] == "local"
    assert {"source", "candidates", "rule_would_choose", "fallback_reason"} <= placement.keys()
    assert {each["runtime"] for each in placement["candidates"]} >= {"local", "meltano"}
    assert nowhere["steps"][0]["placement"]["chosen"] is None
    assert any(each["reasons"] for each in nowhere["steps"][0]["placement"]["candidates"])


def test_an_execution_is_looked_at(cli: Session, succeeded: Any) -> None:
    id = succeeded["id"]

    status, shown = cli("workflow", "status", id), cli.json("execution", "show", id)
    events = cli.json("execution", "events", id)
    explained = cli.json("execution", "explain", id, "greet")
    listed = cli.json("execution", "list", "--workflow", "hello", "--status", "succeeded", "--since", "1h")

    assert status.code == 0
    assert re.search(r"greet +succeeded +local", status.out)
    assert {key: shown[key] for key in ("id", "output")} == {key: succeeded[key] for key in ("id", "output")}
    assert [each["seq"] for each in events] == sorted(each["seq"] for each in events)
    assert {"ExecutionSucceeded", "StepDispatched"} <= {each["type"] for each in events}
    assert explained["sentences"]
    assert id in {each["id"] for each in listed}


def test_the_log_is_that_of_the_last_attempt(cli: Session, failed: Any) -> None:
    pieces = cli.json("workflow", "logs", failed["id"])

    assert [(each["path"], each["attempt"], each["text"]) for each in pieces] == [("breaks", 2, "about to break\n")]


def test_what_steps_wrote_is_kept(cli: Session, succeeded: Any) -> None:
    id = succeeded["id"]

    whole, one = cli("workflow", "logs", id), cli("workflow", "logs", id, "greet", "-f")
    pieces = cli.json("workflow", "logs", id, "greet")

    assert whole.out.startswith("greet | hello world\n")
    assert one.out.startswith("hello world\n")
    assert {(each["path"], each["attempt"], each["stream"]) for each in pieces} == {("greet", 1, "stdout")}
    assert "".join(each["text"] for each in pieces) == one.out


def test_json_log_lines_are_shown_as_their_message_and_kept_as_they_were(cli: Session) -> None:
    line = json.dumps({"event": "Beginning sync", "name": "tap-x", "level": "warning"})
    metric = json.dumps({"event": "METRIC: {}", "name": "tap-x", "level": "info"})
    text = f"name: logs\nsteps:\n  - id: a\n    type: bash\n    with:\n      script: |\n        echo '{line}'\n"
    done = cli("workflow", "execute", cli.write("logs.yaml", f"{text}        echo '{metric}'\n"))
    (id,) = set(re.findall(r"exe_\w+", done.err))

    logs, pieces = cli("workflow", "logs", id), cli.json("workflow", "logs", id)

    assert "a | warning: tap-x: Beginning sync\n" in done.err
    assert "METRIC" not in done.err
    assert "a | tap-x: METRIC: {}\n" in logs.out
    assert "".join(each["text"] for each in pieces) == f"{line}\n{metric}\n"


def test_an_execution_that_has_ended_is_waited_for_at_once(cli: Session, succeeded: Any, failed: Any) -> None:
    assert cli.json("workflow", "wait", succeeded["id"])["status"] == "succeeded"
    assert cli("workflow", "wait", failed["id"]).code == 1


@pytest.mark.parametrize("command", ["status", "cancel", "retry"])
def test_an_unknown_execution_exits_with_2(cli: Session, command: str) -> None:
    done = cli("workflow", command, "exe_00000000000000000000000000")

    assert (done.code, done.out) == (2, "")
    assert "exe_00000000000000000000000000" in done.err


def test_a_running_execution_is_cancelled_from_elsewhere(cli: Session) -> None:
    executing = cli.start("workflow", "execute", "waits", "--output", "json")
    told = until(lambda: "napping" in executing.err.read_text() and executing.err.read_text(), "the step's output")
    (started,) = set(re.findall(r"exe_\w+", told))

    cancelled = cli.json("workflow", "cancel", started)
    ended = executing.ended()

    assert cancelled["status"] == "cancelled"
    assert ended.code == 4
    assert ended.document["status"] == "cancelled"
    assert steps_of(ended.document)["nap"]["status"] == "cancelled"


def test_a_retry_is_a_new_execution_that_reuses_results(cli: Session, failed: Any) -> None:
    again = cli.json("workflow", "retry", failed["id"], code=1)
    whole = cli.json("workflow", "retry", failed["id"], "--from", "first", code=1)
    unknown = cli("workflow", "retry", failed["id"], "--from", "nothing")

    assert again["forked_from"] == whole["forked_from"] == failed["id"]
    assert again["id"] != failed["id"]
    assert steps_of(again)["first"]["result"] == 1
    assert unknown.code == 2


def test_there_is_nothing_to_resume(cli: Session) -> None:
    done = cli("workflow", "resume")

    assert (done.code, done.out) == (0, "")
    assert "nothing to resume" in done.err
    assert cli.json("workflow", "resume") == []


def test_runtimes_are_described(cli: Session) -> None:
    listed = {each["name"]: each for each in cli.json("runtime", "list")}
    health = cli.json("runtime", "health", "local")

    assert {"local", "meltano"} <= listed.keys()
    assert (health["name"], health["state"]) == ("local", "up")
    assert {each["name"] for each in cli.json("runtime", "health")} == set(listed)
    assert "bash" in cli.json("runtime", "capabilities", "local")["step_kinds"]
    assert cli("runtime", "health", "mars").code == 2


def test_one_task_runs_on_a_runtime(cli: Session) -> None:
    done = cli.json("runtime", "execute", "local", "--type", "bash", "--with", '{"script": "echo 5"}')
    wrong = cli("runtime", "execute", "meltano", "--type", "bash", "--with", '{"script": "echo 5"}')

    assert (done["status"], done["steps"][0]["result"]) == ("succeeded", 5)
    assert wrong.code == 2
    assert "meltano cannot run bash steps" in wrong.err


@pytest.mark.parametrize("arguments", [["--output", "json", "runtime", "list"], ["runtime", "--output=json", "list"]])
def test_common_options_stand_anywhere(cli: Session, arguments: list[str]) -> None:
    assert isinstance(cli(*arguments).document, list)


def test_workspaces_are_apart(cli: Session, succeeded: Any) -> None:
    assert cli.json("workflow", "list", "--workspace", "other") == []


def test_a_server_that_is_not_there_exits_with_3(tmp_path: Path) -> None:
    done = Session(tmp_path)("--server", "127.0.0.1:1", "workflow", "list", FLEXCORE_TOKEN=TOKEN)

    assert (done.code, done.out) == (3, "")
    assert "127.0.0.1:1" in done.err


def test_a_wrong_token_exits_with_5(tmp_path: Path, address: str) -> None:
    command = ("workflow", "list", "--server", address)

    wrong, none = Session(tmp_path)(*command, FLEXCORE_TOKEN="guessed"), Session(tmp_path)(*command)

    assert (wrong.code, none.code) == (5, 5)
    assert "FLEXCORE_TOKEN" in none.err
    assert "guessed" not in wrong.err
