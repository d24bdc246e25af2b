"""The program that looks at and changes states, on a database as Meltano makes it."""

import fcntl
import json
import sqlite3
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flexcore_meltano.place import Place
from flexcore_meltano.states import answer

ID = "dev:tap-a-to-target-x"
STATE = {"bookmarks": {"orders": {"replication_key": "id", "replication_key_value": 27}}}
SCHEMA = """
create table state (state_id varchar not null primary key, updated_at datetime, partial_state varchar, completed_state varchar);
create table runs (id integer primary key, job_name varchar, run_id char(32), state varchar, started_at datetime, last_heartbeat_at datetime);
"""  # noqa: E501 (as Meltano writes it)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project whose runs have left one state."""
    (tmp_path / "meltano.yml").write_text("default_environment: dev\nenvironments: [{name: dev}]\n")
    (tmp_path / ".meltano").mkdir()
    execute(tmp_path, SCHEMA)
    put(tmp_path, ID, STATE)
    return tmp_path


def execute(project: Path, script: str) -> None:
    connection = sqlite3.connect(project / ".meltano" / "meltano.db")
    connection.executescript(script)
    connection.close()


def put(project: Path, id: str, completed: Any, partial: Any = None) -> None:
    connection = sqlite3.connect(project / ".meltano" / "meltano.db")
    texts = [None if each is None else json.dumps({"singer_state": each}) for each in (partial, completed)]
    connection.execute("insert into state values (?, null, ?, ?)", (id, *texts))
    connection.commit()
    connection.close()


def ask(project: Path, action: str, **request: Any) -> dict[str, Any]:
    return answer({"action": action, "project": str(project), **request})


def lock_of(project: Path, id: str) -> Path:
    system = project / ".meltano"
    return Place(system=system, output=project, database_uri="", shared_plugins=True).lock(id)


def test_states_are_listed_and_read(project: Path) -> None:
    put(project, "dev:b", {"bookmarks": {"x": {"n": 1}}}, {"bookmarks": {"x": {"n": 2}}})

    assert ask(project, "list")["states"] == [{"id": "dev:b", "busy": False}, {"id": ID, "busy": False}]
    assert ask(project, "get", id=ID)["state"] == STATE
    assert ask(project, "preview", id="dev:b")["starts"][0]["value"] == 2


def test_a_project_that_never_ran_has_no_states(tmp_path: Path) -> None:
    (tmp_path / "meltano.yml").write_text("plugins: {}\n")

    assert ask(tmp_path, "list") == {"states": []}
    assert ask(tmp_path, "get", id=ID)["error"]["code"] == "not_found"
    assert not (tmp_path / ".meltano").exists()


def test_a_change_is_shown_first_and_changes_nothing(project: Path) -> None:
    shown = ask(project, "rewind", id=ID, stream="orders", value="5", key=None)

    assert shown["changes"] == [{"where": "bookmarks.orders.replication_key_value", "before": 27, "after": 5}]
    assert not shown["applied"]
    assert ask(project, "get", id=ID)["state"] == STATE


def test_a_change_keeps_what_was_there_in_a_file_that_set_takes_back(project: Path) -> None:
    request = {"id": ID, "stream": "orders", "value": "5", "apply": True, "expected": STATE}

    made = ask(project, "rewind", **request)
    restored = ask(project, "set", id=ID, state=json.loads(Path(made["backup"]).read_text()), apply=True)

    assert made["applied"]
    assert made["after"]["bookmarks"]["orders"]["replication_key_value"] == 5
    assert restored["before"] == made["after"]
    assert ask(project, "get", id=ID)["state"] == STATE


def test_what_an_interrupted_run_reached_is_replaced_too(project: Path) -> None:
    put(project, "dev:b", {"bookmarks": {"x": {"n": 1}}}, {"bookmarks": {"x": {"n": 2}}})

    ask(project, "rewind", id="dev:b", stream="x", value="0", apply=True)

    assert ask(project, "get", id="dev:b")["state"] == {"bookmarks": {"x": {"n": 0}}}


def test_copy_and_clear(project: Path) -> None:
    copied = ask(project, "copy", **{"id": "dev:new", "from": ID, "apply": True})
    cleared = ask(project, "clear", id=ID, apply=True)

    assert (copied["before"], copied["after"], copied["backup"]) == (None, STATE, None)
    assert cleared["after"] is None
    assert [each["id"] for each in ask(project, "list")["states"]] == ["dev:new"]


def test_a_state_that_a_run_holds_is_left_alone(project: Path) -> None:
    lock_of(project, ID).parent.mkdir()
    with lock_of(project, ID).open("w") as holder:
        fcntl.flock(holder, fcntl.LOCK_EX)

        refused = ask(project, "clear", id=ID, apply=True)
        listed = ask(project, "list")["states"]

    assert refused["error"]["code"] == "conflict"
    assert "in use by a run" in refused["error"]["message"]
    assert listed == [{"id": ID, "busy": True}]
    assert ask(project, "clear", id=ID, apply=True)["applied"]


@pytest.mark.parametrize(
    ("age_s", "holders", "busy"), [(1, "", True), (1, "old 00aa", False), (600, "", False)], ids=str
)
def test_a_run_by_hand_counts_while_its_heart_beats(project: Path, age_s: int, holders: str, busy: bool) -> None:
    beat = datetime.fromtimestamp(time.time() - age_s, UTC).strftime("%Y-%m-%d %H:%M:%S.%f")
    execute(project, f"insert into runs values (1, '{ID}', '00aa', 'RUNNING', '{beat}', '{beat}')")
    lock_of(project, ID).parent.mkdir()
    lock_of(project, ID).write_text(holders)

    made = ask(project, "clear", id=ID, apply=True)

    assert ("error" in made) == busy


def test_a_state_that_has_changed_since_it_was_shown_is_not_overwritten(project: Path) -> None:
    refused = ask(project, "clear", id=ID, apply=True, expected={"bookmarks": {}})

    assert "changed meanwhile" in refused["error"]["message"]
    assert ask(project, "get", id=ID)["state"] == STATE


@pytest.mark.parametrize(
    ("request_", "code", "words"),
    [
        ({"action": "get", "id": "dev:other"}, "not_found", "no state"),
        ({"action": "copy", "id": ID, "from": "dev:other"}, "not_found", "no state"),
        ({"action": "set", "id": ID, "state": [1]}, "invalid", "JSON object"),
        ({"action": "rewind", "id": ID, "stream": "x", "value": "1"}, "invalid", "no stream"),
        ({"action": "get", "id": ID, "environment": "prod"}, "invalid", "no environment"),
        ({"action": "dance", "id": ID}, "invalid", "no action"),
    ],
)
def test_what_cannot_be_done_is_said(project: Path, request_: dict[str, Any], code: str, words: str) -> None:
    error = answer({"project": str(project), **request_})["error"]

    assert error["code"] == code
    assert words in error["message"]


def test_other_backends_are_reached_through_meltano(project: Path) -> None:
    with (project / "meltano.yml").open("a") as file:
        file.write("state_backend: {uri: 's3://bucket'}\n")
    meltano = project / ".venv" / "bin" / "meltano"
    meltano.parent.mkdir(parents=True)
    meltano.write_text(
        "#!/bin/sh\n"
        'case "$2" in\n'
        "list) ls kept;;\n"
        'get) cat "kept/$3" 2>/dev/null || echo "{}";;\n'
        'set) cp "$5" "kept/$6";;\n'
        'clear) rm "kept/$4";;\n'
        "esac\n"
    )
    meltano.chmod(0o755)
    (project / "kept").mkdir()
    (project / "kept" / "a").write_text(json.dumps({"singer_state": STATE}))

    made = ask(project, "rewind", id="a", stream="orders", value="5", apply=True)
    ask(project, "copy", **{"id": "b", "from": "a", "apply": True})
    ask(project, "clear", id="a", apply=True)

    assert Path(made["backup"]).exists()
    assert [each["id"] for each in ask(project, "list")["states"]] == ["b"]
    assert ask(project, "get", id="b")["state"]["bookmarks"]["orders"]["replication_key_value"] == 5
    assert list((project / ".meltano" / "flexcore").glob("*.json")) == []


def test_a_database_that_is_none_and_an_empty_id_are_refused(project: Path) -> None:
    unnamed = ask(project, "set", id=" ", state={}, apply=True)
    (project / ".meltano" / "meltano.db").write_text("no database at all")
    broken = ask(project, "list")

    assert unnamed["error"]["code"] == "invalid"
    assert broken["error"]["code"] == "unavailable"


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("echo \"No module named 'boto3'\" >&2; echo '2026 [info     ] meltano  Need help?' >&2; exit 1", "boto3"),
        ("echo some warning; echo '{}'", "printed no state"),
    ],
)
def test_what_meltano_fails_with_is_told_and_nothing_is_written(project: Path, script: str, words: str) -> None:
    with (project / "meltano.yml").open("a") as file:
        file.write("state_backend: {uri: 's3://bucket'}\n")
    meltano = project / ".venv" / "bin" / "meltano"
    meltano.parent.mkdir(parents=True)
    meltano.write_text(f"#!/bin/sh\necho $2 >> asked\n{script}\n")
    meltano.chmod(0o755)

    error = ask(project, "set", id="a", state={}, apply=True)["error"]

    assert (error["code"], words in error["message"], "help" in error["message"]) == ("unavailable", True, False)
    assert (project / "asked").read_text() == "get\n"
