"""Folders of workflows, versions, collecting and the audit trail on the command line."""

import json
import os
from datetime import timedelta
from pathlib import Path

import pytest
from fake_control_plane import FakeControlPlane, last

from flexcore.cli.app import run
from flexcore.cli.deploying import workflow_files
from flexcore.model.requests import AuditQuery, Bundle, Collectable, CollectRequest

Capture = pytest.CaptureFixture[str]


@pytest.fixture
def fake() -> FakeControlPlane:
    return FakeControlPlane()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    files = {
        "a.yaml": "name: a\nsteps: []\n",
        "deep/b.yml": "description: x\nname: b\nsteps:\n  - {}\n",
        "deep/c.json": '{"steps": [], name: c }',
        "deep/package.json": '{"name": "c"}',
        "dbt/schema.yml": "models:\n  - steps: 1\n",
        ".venv/d.yaml": "name: d\nsteps: []\n",
        "notes.txt": "steps: []\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def flexcore(fake: FakeControlPlane, line: str) -> int:
    return run(line.split(), fake.connect)


def test_workflow_files_are_those_with_steps(folder: Path) -> None:
    (folder / "bad.yaml").write_text("steps: [\nname: bad\n")
    os.mkfifo(folder / "pipe.yaml")
    (folder / "nowhere.yaml").symlink_to("gone.yaml")
    (folder / "deep" / "around").symlink_to(folder)

    found = [path.relative_to(folder).as_posix() for path in workflow_files(folder)]

    assert found == ["a.yaml", "bad.yaml", "deep/b.yml", "deep/c.json"]


def test_a_dry_run_deploys_nothing(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    assert flexcore(fake, "workflow deploy deep --dry-run") == 0

    out = capsys.readouterr().out
    assert fake.deployed == {}
    assert out.splitlines() == ["b  v-1  new", "c  v-1  new", "2 workflows: 2 new; nothing was deployed"]


def test_a_file_named_in_two_ways_is_deployed_once(fake: FakeControlPlane, folder: Path) -> None:
    assert flexcore(fake, "workflow deploy deep deep/../deep/b.yml ./deep/c.json") == 0

    assert set(fake.deployed) == {"b", "c"}


def test_the_same_name_twice_is_refused_before_anything_is_stored(
    fake: FakeControlPlane, folder: Path, capsys: Capture
) -> None:
    (folder / "again.yaml").write_text("name: a\nsteps: []\n")

    assert flexcore(fake, "workflow deploy .") == 2

    assert "are both named 'a'" in capsys.readouterr().err
    assert [each for each in fake.asked if isinstance(each, Bundle)] == []


def test_a_folder_without_workflows_is_refused(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    assert flexcore(fake, "workflow deploy dbt") == 2
    assert "there is no workflow in dbt" in capsys.readouterr().err


def test_deploying_shows_what_changes_and_the_pin(fake: FakeControlPlane, folder: Path, capsys: Capture) -> None:
    fake.deployed["a"], fake.pins["a"] = "name: a\nsteps: [1]\n", "v-0"

    assert flexcore(fake, "workflow deploy a.yaml") == 0

    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == ["a  v-1  changed", "    -before", "    +after"]
    assert lines[3].startswith("    pinned to v-0: new executions take that version")


def test_pin_unpin_and_rollback_say_what_is_in_force(fake: FakeControlPlane, capsys: Capture) -> None:
    for line in ("pin a v-7", "unpin a", "rollback a", "rollback a v-3"):
        assert flexcore(fake, f"workflow {line}") == 0

    assert capsys.readouterr().out.splitlines() == [
        "a: current is v-1; pinned to v-7, which new executions take",
        "a: current is v-1",
        "a: current is v-0",
        "a: current is v-3",
    ]


def test_gc_asks_for_what_was_said(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "gc --dry-run --older-than 0s --kind logs --kind audit") == 0

    kinds = frozenset({Collectable.LOGS, Collectable.AUDIT})
    assert last(fake, CollectRequest) == CollectRequest(kinds=kinds, older_than=timedelta(0), dry_run=True)
    assert capsys.readouterr().out.splitlines()[-1] == "2 things, 2.5MB would go"


@pytest.mark.parametrize("wrong", ["--older-than soon", "--older-than -1d", "--kind everything"])
def test_gc_refuses_what_it_does_not_understand(fake: FakeControlPlane, wrong: str) -> None:
    assert flexcore(fake, f"gc {wrong}") == 2
    assert [each for each in fake.asked if isinstance(each, CollectRequest)] == []


def test_audit_reads_page_after_page(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "audit --actor ann --subject w1 --since 1h --output json") == 0

    asked = last(fake, AuditQuery)
    assert [each["subject"] for each in json.loads(capsys.readouterr().out)] == ["w3", "w2", "w1"]
    assert (asked.actor, asked.subject, asked.since is not None) == ("ann", "w1", True)


def test_audit_is_a_table(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "audit --limit 1") == 0

    header, line = capsys.readouterr().out.splitlines()
    assert header.split() == ["AT", "ACTOR", "ACTION", "SUBJECT", "OUTCOME", "DETAILS"]
    assert line.split()[1:] == ["ann", "pin", "w3", "done", "version=v-1"]


def test_audit_shows_lists_in_a_line(fake: FakeControlPlane, capsys: Capture) -> None:
    fake.details = {"results_given_for": ["fan", "load"], "count": 2, "existing": True}

    assert flexcore(fake, "audit --limit 1") == 0

    assert capsys.readouterr().out.rstrip().endswith("results_given_for=fan,load count=2 existing=true")


def test_cleanup_only_lists_until_it_is_told_to_remove(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "runtime cleanup ray") == 0

    out = capsys.readouterr().out
    assert fake.asked[-1] == ("cleanup", "ray", True)
    assert "ray: 2 orphans would go; 2 in flight left alone; meant to stay: fx-served" in out
    assert "flexcore runtime cleanup ray --orphans" in out


def test_cleanup_says_what_is_still_there(fake: FakeControlPlane, capsys: Capture) -> None:
    assert flexcore(fake, "runtime cleanup ray --orphans") == 1

    out = capsys.readouterr().out
    assert fake.asked[-1] == ("cleanup", "ray", False)
    assert "still there: it is still ending" in out
    assert "ray: 1 orphan removed" in out
