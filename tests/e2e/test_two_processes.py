"""Several processes on one store: no work is done twice, and what one asks for reaches the one that owns it."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from flexcore.testing import auditor
from flexcore.testing.command import Running, Site, until

EFFECT = 'echo "$FLEXCORE_EXECUTION $FLEXCORE_TOKEN" >> "$1"'
# Goes on until a file appears, so that a test says when it ends.
WAITING = f"""
name: waiting
inputs: {{type: object, properties: {{folder: {{type: string}}}}}}
steps:
  - id: work
    type: bash
    with:
      script: '{EFFECT}; echo begun; while [ ! -e "$MARKED/go" ]; do sleep 0.05; done'
      args: ["${{{{ input.folder }}}}/effects"]
      env: {{MARKED: "${{{{ input.folder }}}}"}}
  - {{id: after, type: transform, with: {{value: done}}}}
"""
MANY = f"""
name: many
inputs: {{type: object, properties: {{folder: {{type: string}}}}}}
steps:
  - id: each
    type: foreach
    items: ${{{{ [1, 2, 3] }}}}
    parallelism: 2
    steps:
      - {{id: write, type: bash, with: {{script: '{EFFECT}', args: ["${{{{ input.folder }}}}/effects"]}}}}
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    folder = tmp_path / "site"
    folder.mkdir()
    (folder / "waiting.yaml").write_text(WAITING)
    (folder / "many.yaml").write_text(MANY)
    yield Site(folder)
    for pid in auditor.processes_of(folder):  # only what this very test has started can name its folder
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def execute(site: Site, workflow: str, *more: str) -> Running:
    return site.start("--output", "json", "workflow", "execute", workflow, "-p", f"folder={site.folder}", *more)


def begun(site: Site, count: int = 1) -> list[str]:
    """Wait until so many steps have begun; give their executions."""
    lines = until(lambda: len(found := effects(site)) >= count and found, f"{count} steps have begun")
    return [execution for execution, _ in lines]


def effects(site: Site) -> list[tuple[str, str]]:
    file = site.folder / "effects"
    return [(line.split()[0], line.split()[1]) for line in file.read_text().splitlines()] if file.exists() else []


def status_of(site: Site, execution: str) -> str:
    return next(told.status for told in auditor.executions(site.database) if told.id == execution)


def go(site: Site) -> None:
    (site.folder / "go").touch()


def assert_sound(site: Site) -> None:
    assert list(auditor.store_problems(auditor.executions(site.database))) == []
    verified = site.run("verify")
    assert verified.code == 0, verified.out
    until(lambda: not auditor.processes_of(site.folder), "no process is left")


def test_two_processes_execute_side_by_side_and_a_third_has_nothing_to_resume(site: Site) -> None:
    first, second = execute(site, "waiting"), execute(site, "waiting")
    ids = begun(site, 2)

    idle = site.run("--output", "json", "workflow", "resume")
    listed = site.ask("execution", "list")
    shown = site.ask("workflow", "status", ids[0])
    told = until(lambda: site.run("workflow", "logs", ids[0]).out, "the log can be read")
    go(site)

    assert (idle.code, idle.document) == (0, [])
    assert "nothing to resume" in idle.err
    items = listed["items"] if isinstance(listed, dict) else listed
    assert {each["id"] for each in items} == set(ids)
    assert {each["status"] for each in items} == {"running"}
    assert shown["steps"][0]["status"] == "running"
    assert "begun" in told
    assert (first.ended().code, second.ended().code) == (0, 0)
    assert len(set(ids)) == 2
    assert len(effects(site)) == 2
    assert_sound(site)


def test_many_executions_of_two_processes_run_each_step_once(site: Site) -> None:
    running = [execute(site, "many") for _ in range(4)]

    codes = [each.ended().code for each in running]

    assert codes == [0, 0, 0, 0]
    counted = effects(site)
    assert len(counted) == 12
    assert len(set(counted)) == 4
    assert {token for _, token in counted} == {"1"}
    assert_sound(site)


def test_an_idempotency_key_used_by_two_processes_at_once_gives_one_execution(site: Site) -> None:
    go(site)
    running = [execute(site, "waiting", "--idempotency-key", "once") for _ in range(3)]

    done = [each.ended() for each in running]

    assert [each.code for each in done] == [0, 0, 0], done
    assert len({each.document["id"] for each in done}) == 1
    assert len(effects(site)) == 1
    assert_sound(site)


def test_a_cancel_reaches_the_process_that_owns_the_execution(site: Site) -> None:
    owner = execute(site, "waiting")
    (execution,) = begun(site)

    cancelled = site.run("workflow", "cancel", execution, "--no-wait")
    until(lambda: status_of(site, execution) == "cancelled", "it is cancelled")
    until(lambda: not bashes(site), "the command is gone")

    assert cancelled.code == 0, cancelled.err
    assert owner.ended().code == 4
    assert_sound(site)


def test_a_cancel_of_a_dead_owners_execution_ends_the_work_that_goes_on(site: Site) -> None:
    owner = execute(site, "waiting")
    (execution,) = begun(site)
    until(lambda: "StepSubmitted" in kinds(site, execution), "the work is known to the store")
    owner.kill(group=True)
    assert bashes(site)

    cancelled = site.run("--output", "json", "workflow", "cancel", execution)

    assert cancelled.document["status"] == "cancelled"
    assert not bashes(site)
    assert_sound(site)


def test_a_cancel_sent_before_the_owner_died_is_not_forgotten_by_the_next_one(site: Site) -> None:
    owner = execute(site, "waiting")
    (execution,) = begun(site)
    owner.process.send_signal(signal.SIGSTOP)  # stopped, not dead: it holds its lock and hears nothing

    sent = site.run("workflow", "cancel", execution, "--no-wait")
    owner.kill(group=True)
    resumed = site.run("--output", "json", "workflow", "resume")

    assert sent.code == 0, sent.err
    assert resumed.code == 4, resumed.err
    assert status_of(site, execution) == "cancelled"
    assert_sound(site)


def test_a_command_line_beside_a_server_shares_its_store(site: Site) -> None:
    server = site.start("server", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", name="server")
    try:
        told = until(lambda: (text := server.err.read_text()).count("token") and text, "the server says its token")
        token = re.search(r"token, shown only now: (\S+)", told)
        address = re.search(r"gRPC on (\S+?);", told)
        assert token is not None
        assert address is not None
        client = Site(site.folder, {"FLEXCORE_TOKEN": token[1], "FLEXCORE_SERVER": address[1]})
        theirs = client.ask("workflow", "execute", "waiting", "-p", f"folder={site.folder}", "--no-wait")["id"]
        begun(site)
        ours = execute(site, "waiting")
        begun(site, 2)

        idle = site.run("workflow", "resume")
        cancelled = site.run("workflow", "cancel", theirs, "--no-wait")
        until(lambda: status_of(site, theirs) == "cancelled", "the server has cancelled")
        go(site)

        assert "nothing to resume" in idle.err
        assert cancelled.code == 0, cancelled.err
        assert ours.ended().code == 0
        assert len(effects(site)) == 2
    finally:
        server.process.terminate()
        server.ended()
    assert_sound(site)


def test_a_server_takes_over_what_a_killed_command_line_left(site: Site) -> None:
    owner = execute(site, "waiting")
    (execution,) = begun(site)
    owner.kill(group=False)
    server = site.start("server", "--http", "127.0.0.1:0", "--grpc", "127.0.0.1:0", name="server")
    try:
        go(site)

        until(lambda: status_of(site, execution) == "succeeded", "the server has finished it")

        assert effects(site) == [(execution, "1")]
    finally:
        server.process.terminate()
        server.ended()
    assert_sound(site)


def bashes(site: Site) -> list[str]:
    return [command for command in auditor.processes_of(site.folder).values() if command.startswith("bash")]


def kinds(site: Site, execution: str) -> list[str]:
    told = next(each for each in auditor.executions(site.database) if each.id == execution)
    return [entry.kind for entry in told.history]
