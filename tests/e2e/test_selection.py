"""Finding executions by what they carry, and acting on many of them at once: alone and beside a server."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from e2e.cli_session import TOKEN, Session, server
from e2e.embedded import plane

from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.requests import ExecutionQuery

MAYBE = """
name: maybe
labels: {kind: test}
inputs: {type: object, properties: {folder: {type: string}}}
steps:
  - {id: look, type: bash, with: {script: 'test -e "$1/fixed" || { echo "no Such THING: ÉTÉ" >&2; exit 1; }', args: ["${{ input.folder }}"]}}
"""
SLOW = "name: slow\nsteps: [{id: rest, type: wait, with: {for: 1h}}]\n"


@pytest.fixture
def cli(tmp_path: Path) -> Session:
    (tmp_path / "maybe.yaml").write_text(MAYBE)
    (tmp_path / "slow.yaml").write_text(SLOW)
    return Session(tmp_path)


def ids(found: Iterable[dict]) -> list[str]:
    return [each["id"] for each in found]


async def test_executions_are_found_by_label_text_time_and_failed_step(tmp_path: Path) -> None:
    async with plane(tmp_path) as here:
        given = {"folder": str(tmp_path)}
        first = (await here.execute(MAYBE, given, labels={"team": "data", "n": "1"}))["id"]
        (tmp_path / "fixed").touch()
        second = (await here.execute(MAYBE, given, labels={"team": "data", "n": "2"}))["id"]
        third = (await here.execute(MAYBE, given, labels={"team": "web"}))["id"]

        async def found(**query: object) -> list[str]:
            return ids((await here.installation.control_plane.executions(ExecutionQuery(**query))).items)

        assert await found(labels={"team": "data"}) == [second, first]
        assert await found(labels={"team": "data", "n": "1"}) == [first]
        assert await found(labels={"n": "1", "team": "web"}) == []
        assert await found(labels={"kind": "test"}, status=ExecutionStatus.SUCCEEDED) == [third, second]
        assert await found(labels={"kind": "test"}, limit=2) == [third, second]
        assert await found(failed_step="look") == [first]
        assert await found(search="EXIT") == [first]
        assert await found(search="such thing: ÉtÉ") == [first]
        assert await found(search=second) == [second]
        assert await found(search="mayb", status=ExecutionStatus.FAILED) == [first]
        now = datetime.now(UTC)
        assert await found(until=now - timedelta(hours=1)) == []
        assert await found(until=now, since=now - timedelta(hours=1), workflow="maybe") == [third, second, first]
        page = await here.installation.control_plane.executions(ExecutionQuery(labels={"kind": "test"}, limit=2))
        assert await found(labels={"kind": "test"}, limit=2, cursor=page.next) == [first]


def test_many_are_run_again_once(cli: Session) -> None:
    where = ("-p", f"folder={cli.folder}")
    failed = [cli.json("workflow", "execute", "maybe.yaml", *where, code=1)["id"] for _ in range(2)]

    asked = cli("execution", "retry", "--search", "mayb")
    looked = cli.json("execution", "retry", "--label", "kind=test", "--dry-run")
    (cli.folder / "fixed").touch()
    done = cli.json("execution", "retry", "--workflow", "maybe", "--yes")
    again = cli.json("execution", "retry", "--workflow", "maybe", "--yes")

    assert (asked.code, "--yes" in asked.err) == (2, True)
    assert sorted(ids(looked)) == sorted(failed) == sorted(ids(done))
    assert all(each["outcome"].startswith("succeeded: exe_") for each in done)
    assert again == []


@pytest.fixture
def served(cli: Session) -> Iterator[Session]:
    with server(cli.folder, FLEXCORE_SERVER__TOKEN=TOKEN) as running:
        yield Session(cli.folder, {"FLEXCORE_SERVER": running.grpc, "FLEXCORE_TOKEN": TOKEN})


def test_many_are_cancelled_on_a_server(served: Session) -> None:
    started = [
        served.json("workflow", "execute", "slow.yaml", "--no-wait", "--label", f"n={n % 2}")["id"] for n in range(4)
    ]

    nobody = served("execution", "cancel", "--yes")
    odd = served.json("execution", "cancel", "--label", "n=1", "--yes", "--reason", "odd")
    rest = served.json("execution", "cancel", "--all", "--yes")

    assert (nobody.code, "which executions" in nobody.err) == (2, True)
    assert sorted(ids(odd)) == sorted(started[1::2])
    assert {each["status"] for each in odd} == {"cancelled"}
    assert sorted(ids(rest)) == sorted(started[0::2])
    shown = served.json("execution", "list", "--status", "cancelled")
    assert sorted(ids(shown)) == sorted(started)
