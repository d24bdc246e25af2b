"""Looking after an installation as its users do: deploy folders, pin, go back, collect, read the audit trail."""

import io
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import chdir, redirect_stderr, redirect_stdout
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest import mock

import httpx
import pytest
from e2e.cli_session import TOKEN, server

from flexcore.cli.app import run

ONE = """\
name: one
inputs: {type: object, properties: {secretive: {type: string, default: none}}}
steps:
  - {id: a, type: bash, with: {script: "echo FIRST"}}
  - {id: big, type: python, needs: [], with: {file: big.py}}
"""
BIG = "def main():\n    return 'x' * 400_000\n"
TWO = "name: two\nsteps: [{id: child, type: workflow, with: {name: one}}]\n"
HOUR = 3600


@dataclass(frozen=True)
class Commands:
    """Runs whole command lines in this process: starting one for each would take most of the time."""

    folder: Path
    environment: Mapping[str, str]

    def __call__(self, *arguments: str, **environment: str) -> "Done":
        """Run a command line."""
        out, err = io.StringIO(), io.StringIO()
        with (
            chdir(self.folder),
            mock.patch.dict(os.environ, {**self.environment, **environment}),
            redirect_stdout(out),
            redirect_stderr(err),
        ):
            code = run(list(arguments))
        return Done(code, out.getvalue(), err.getvalue())

    def json(self, *arguments: str) -> Any:
        """Run a command line that succeeds; give its document."""
        done = self(*arguments, "--output", "json")
        assert done.code == 0, done
        return json.loads(done.out)


@dataclass(frozen=True)
class Done:
    """What a command line came to."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module", params=["embedded", "server"])
def cli(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Commands]:
    """Commands in a folder of workflows: on a store of their own, then on that of a server."""
    folder = tmp_path_factory.mktemp("upkeep")
    (folder / "flows" / "deep").mkdir(parents=True)
    (folder / "flows" / "one.yaml").write_text(ONE)
    (folder / "flows" / "big.py").write_text(BIG)
    (folder / "flows" / "deep" / "two.yaml").write_text(TWO)
    (folder / "flows" / "schema.yml").write_text("models: []\n")
    session = Commands(folder, {"FLEXCORE_HOME": str(folder / "home")})
    if request.param == "embedded":
        yield session
        return
    with server(folder, FLEXCORE_SERVER__TOKEN=TOKEN) as running:
        environment = {"FLEXCORE_SERVER": running.grpc, "FLEXCORE_TOKEN": TOKEN, "HTTP": running.http}
        yield replace(session, environment={**session.environment, **environment})


def result(cli: Commands, name: str) -> Any:
    document = cli.json("workflow", "execute", name)
    return next(each["result"] for each in document["steps"] if each["id"] == "a")["stdout"].strip()


def test_one_invalid_workflow_keeps_all_from_being_deployed(cli: Commands) -> None:
    broken = cli.folder / "flows" / "broken.yaml"
    broken.write_text("name: broken\nsteps: [{id: a, type: bsh}]\n")

    refused = cli("workflow", "deploy", "flows")
    broken.unlink()

    assert refused.code == 2
    assert "flows/broken.yaml:2:" in refused.err
    assert cli.json("workflow", "list") == []


def test_a_folder_is_compared_and_deployed_as_a_whole(cli: Commands) -> None:
    planned = cli.json("workflow", "deploy", "flows", "--dry-run")
    nothing = cli.json("workflow", "list")
    first = cli.json("workflow", "deploy", "flows")
    (cli.folder / "flows" / "one.yaml").write_text(ONE.replace("FIRST", "SECOND"))
    (cli.folder / "flows" / "big.py").write_text(BIG + "# more\n")
    second = cli("workflow", "deploy", "flows")

    assert nothing == []
    assert [(each["name"], each["change"]) for each in planned] == [("one", "new"), ("two", "new")]
    assert [each["created"] for each in first] == [True, True]
    assert '-  - {id: a, type: bash, with: {script: "echo FIRST"}}' in second.out
    assert "changed: big.py" in second.out
    assert second.out.splitlines()[-1] == "2 workflows: 1 changed, 1 unchanged"


def test_a_pin_holds_until_it_is_taken_out(cli: Commands) -> None:
    current, before = cli.json("workflow", "versions", "one")
    pinned = cli.json("workflow", "pin", "one", before["version"][2:8])
    deployed = cli("workflow", "deploy", "flows/one.yaml")
    versions = cli.json("workflow", "versions", "one")
    held, refused = result(cli, "one"), cli("workflow", "rollback", "one")
    unpinned = cli.json("workflow", "unpin", "one")

    assert (current["current"], before["current"], bool(current["deployed_by"])) == (True, False, True)
    assert (pinned["pinned"], pinned["current"]) == (before["version"], current["version"])
    assert f"pinned to {before['version']}" in deployed.out
    assert [each["pinned"] for each in versions] == [False, True]
    assert held == "FIRST"
    assert (refused.code, "pinned" in refused.err) == (2, True)
    assert (unpinned["pinned"], result(cli, "one")) == (None, "SECOND")


def test_going_back_takes_the_version_before(cli: Commands) -> None:
    newest, before = (each["version"] for each in cli.json("workflow", "versions", "one"))
    back = cli.json("workflow", "rollback", "one")
    was, no_further = result(cli, "one"), cli("workflow", "rollback", "one")
    forward = cli.json("workflow", "rollback", "one", newest[:9])
    unknown = cli("workflow", "rollback", "one", "v-0000")

    assert (back["current"], was) == (before, "FIRST")
    assert (no_further.code, "no version before" in no_further.err) == (2, True)
    assert forward["current"] == newest
    assert (unknown.code, "v-0000" in unknown.err) == (2, True)


def test_collecting_leaves_what_is_needed(cli: Commands) -> None:
    origin = cli.json("workflow", "execute", "one", "-p", "secretive=hunter22")["id"]
    parent = cli.json("workflow", "execute", "two")["id"]
    fork = cli.json("workflow", "retry", origin, "--from", "a")["id"]
    _age(cli.folder / "home" / "artifacts", 2 * HOUR)
    planned = cli.json("gc", "--older-than", "0s", "--dry-run")
    still = cli.json("execution", "show", origin)["id"]
    done = cli.json("gc", "--older-than", "0s")
    deleted, logs = cli("execution", "show", origin), cli.folder / "home" / "logs" / origin
    left, again = cli.json("execution", "list"), cli.json("gc", "--older-than", "0s")

    def counts(document: Any) -> dict[str, int]:
        return {each["kind"]: each["count"] for each in document["kinds"]}

    assert (still, planned["dry_run"], done["dry_run"]) == (origin, True, False)
    assert counts(planned) == counts(done)
    assert (counts(done)["artifacts"], again["count"]) == (1, 0)
    assert (deleted.code, "there is no execution" in deleted.err, logs.exists()) == (2, True, False)
    assert "retention.executions" in deleted.err
    assert left == [], (parent, fork)
    assert cli("verify", FLEXCORE_SERVER="").out == "no faults\n"
    assert result(cli, "one") == "SECOND"


def test_the_audit_trail_names_who_did_what(cli: Commands) -> None:
    lines = cli.json("audit", "--limit", "200")
    actor = "token" if "FLEXCORE_SERVER" in cli.environment else lines[0]["actor"]
    of_one = cli.json("audit", "--subject", "one", "--actor", actor, "--since", "1h")
    text = cli("audit").out

    assert {each["actor"] for each in lines} == {actor}
    assert {"deploy", "start", "retry", "pin", "unpin", "rollback", "collect"} <= {each["action"] for each in lines}
    assert {"done", "conflict", "not_found"} <= {each["outcome"] for each in lines}
    assert {"start", "pin"} <= {each["action"] for each in of_one}
    assert "hunter22" not in str(lines)
    assert text.startswith("AT ")


def test_http_has_it_all_too(cli: Commands) -> None:
    if "HTTP" not in cli.environment:
        return
    headers = {"Authorization": f"Bearer {TOKEN}"}
    base = f"http://{cli.environment['HTTP']}/api/v1"
    with httpx.Client(headers=headers, timeout=30, trust_env=False) as http:
        planned = http.post(
            f"{base}/store:collect", json={"dry_run": True, "older_than": "0s", "kinds": ["executions"]}
        )
        unknown = http.post(f"{base}/store:collect", json={"kinds": ["everything"]})
        audit = http.get(f"{base}/audit", params={"limit": 2}).json()
        rest = http.get(f"{base}/audit", params={"cursor": audit["next"], "limit": 1}).json()
        version = http.get(f"{base}/workflows/one").json()["versions"][-1]["version"]
        pinned = http.post(f"{base}/workflows/one:pin", json={"version": version}).json()
        body = {"text": ONE, "file_name": "one.yaml", "files": {}}
        invalid = http.post(f"{base}/workflows:diff", json=body)

    assert [each["count"] for each in planned.json()["kinds"]] == [1]
    assert (unknown.status_code, invalid.status_code) == (422, 422)
    assert (len(audit["items"]), len(rest["items"])) == (2, 1)
    assert audit["items"][1]["at"] >= rest["items"][0]["at"]
    assert pinned == {"name": "one", "current": pinned["current"], "pinned": version}


def _age(folder: Path, seconds: int) -> None:
    at = time.time() - seconds
    for file in folder.glob("??/*"):
        os.utime(file, (at, at))
