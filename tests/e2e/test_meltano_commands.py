"""A Meltano project from the command line: its jobs run, imported as workflows, its bookmarks looked at and set back."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from e2e.cli_session import Session

from flexcore.testing.command import until

ROOT = Path(__file__).parents[2]
TEMPLATE = ROOT / "templates" / "singer_extraction" / "meltano"
SECOND = ROOT / "tests" / "projects" / "second"
LEFT_BEHIND = shutil.ignore_patterns(".meltano", "output", "out", "__pycache__", "*.duckdb")
STATE_ID = "dev:tap-flights-to-target-duckdb"
STEP = "tap_flights_to_target_duckdb"
JOBS = """
jobs:
- name: load
  tasks: [tap-flights target-duckdb]
schedules:
- {name: nightly, job: load, interval: "@daily"}
"""
LOAD = "jobs: [{name: load, tasks: [tap-a target-x]}]"
INSTALLING_SECONDS = 240.0


@pytest.fixture(scope="module")
def cli(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A folder with a project in it, as its author left it."""
    folder = tmp_path_factory.mktemp("author")
    shutil.copytree(TEMPLATE, folder / "etl", ignore=LEFT_BEHIND)
    main = folder / "etl" / "meltano.yml"
    main.write_text(main.read_text().replace("path: ../output/", "path: output/") + JOBS)
    return Session(folder)


@pytest.fixture(scope="module")
def loaded(cli: Session) -> Any:
    """The first run of the job, which installs."""
    done = cli.start("meltano", "run", "load", "--project", "etl", "--output", "json").ended(INSTALLING_SECONDS)
    assert done.code == 0, done
    return done.document


def starts(cli: Session) -> dict[str, Any]:
    found = cli.json("meltano", "state", "preview", STATE_ID, "--project", "etl")["starts"]
    return {each["stream"]: each["value"] for each in found}


def test_a_job_runs_without_a_file_being_written(cli: Session, loaded: Any) -> None:
    (step,) = loaded["steps"]

    assert (step["path"], step["type"], step["result"]["rows"]) == (STEP, "singer", 27_020)
    assert list((cli.folder / "etl").glob("*.yaml")) == []


def test_jobs_and_schedules_are_listed_with_their_state_ids(cli: Session) -> None:
    found = cli.json("meltano", "jobs", "etl")

    assert [(each["name"], each["kind"], each["cron"], each["state_ids"]) for each in found] == [
        ("load", "job", None, [STATE_ID]),
        ("nightly", "schedule", "0 0 * * *", [STATE_ID]),
    ]
    assert "no job 'other'" in cli("meltano", "run", "other", "--project", "etl").err


def test_a_stream_set_back_is_read_again_and_its_state_left_alone_meanwhile(cli: Session, loaded: Any) -> None:
    rewind = ("meltano", "state", "rewind", STATE_ID, "flights", "--to", "10000", "--project", "etl")
    asked = cli(*rewind)
    before = starts(cli)
    made = cli.json(*rewind, "--yes")
    after = starts(cli)
    imported = cli.json("import", "etl/meltano.yml", "--to", ".")

    running = cli.start("workflow", "execute", "load.yaml", "--output", "json")
    until(lambda: is_busy(cli), "the run holds its state", INSTALLING_SECONDS)
    refused = cli("meltano", "state", "clear", STATE_ID, "--yes", "--project", "etl")
    again = running.ended(INSTALLING_SECONDS).document

    assert asked.code == 2
    assert "- bookmarks.flights.replication_key_value: 27004\n" in asked.err
    assert (before["flights"], after["flights"]) == (27_004, 10_000)
    assert json.loads(Path(made["backup"]).read_text())["singer_state"] == made["before"]
    assert [each["name"] for each in imported["workflows"]] == ["load", "nightly"]
    assert again["steps"][0]["result"]["rows"] == 17_004
    assert refused.code == 2
    assert f"state id {STATE_ID} is in use by a run" in refused.err
    assert starts(cli) == before


def is_busy(cli: Session) -> bool:
    listed = cli.json("meltano", "state", "list", "--project", "etl")
    return any(each["busy"] for each in listed if each["id"] == STATE_ID)


def test_log_lines_keep_their_fields(cli: Session, loaded: Any) -> None:
    pieces = cli.json("workflow", "logs", loaded["id"], STEP)
    warnings = cli.json("workflow", "logs", loaded["id"], STEP, "--level", "warning")
    shown = cli("workflow", "logs", loaded["id"], STEP, "--level", "warning").out

    lines = [line for piece in pieces for line in piece.get("lines", ())]
    said = [line for line in lines if line["fields"].get("string_id") == "tap-flights"]
    assert {line["fields"]["stdio"] for line in said} == {"stderr"}
    assert all(line["time"] and line["level"] for line in said)
    assert "No state was found, complete import." in [line["message"] for line in warnings]
    assert {line["level"] for line in warnings} <= {"warning", "error", "critical"}
    assert "warning: No state was found, complete import.\n" in shown
    assert "Environment 'dev' is active" not in shown


def test_any_project_can_be_imported_and_what_is_made_of_it_is_valid(tmp_path: Path) -> None:
    cli = Session(tmp_path)
    shutil.copytree(SECOND, tmp_path / "second", ignore=LEFT_BEHIND)

    shown = cli.json("import", "second/meltano.yml", "--dry-run")
    nothing_written = list((tmp_path / "second").glob("*.yaml"))
    imported = cli("import", "second/meltano.yml")
    checked = cli("workflow", "validate", *(f"second/{each['name']}.yaml" for each in shown["workflows"]))
    again = cli("import", "second/meltano.yml")

    everything = yaml.safe_load((tmp_path / "second" / "everything.yaml").read_text())
    assert nothing_written == []
    assert (imported.code, checked.code, again.code) == (0, 0, 2)
    assert "second/meltano.yml:24: changed: schedule 'nightly-orders': not yet run by FlexCore" in imported.out
    assert [each["type"] for each in everything["steps"]] == ["singer", "dbt"]
    assert everything["inputs"]["properties"]["environment"] == {
        "type": "string",
        "enum": ["dev", "nightly"],
        "default": "dev",
        "description": "Environment of the Meltano project",
    }
    assert "there already; nothing was written" in again.err
    assert "wrote everything.yaml" in cli("import", "second", "--to", ".").out
    assert "a project lies in its workflow's folder" in cli("import", "second", "--to", "elsewhere").err
    assert cli("import", "second", "--force").code == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("gone.yml",), "there is no file gone.yml"),
        (("flow.json",), "cannot be imported yet"),
        (("meltano.yml", "--from", "openflow"), "format openflow cannot be imported yet"),
        (("meltano.yml", "--from", "other"), "there is no format 'other'"),
        (("meltano.yml",), "has no jobs and no schedules"),
        (("odd/meltano.yml",), "'/**x/*.yml' in `include_paths`"),
        (("one", "two", "--to", "."), "load.yaml: meant for more than one workflow"),
    ],
)
def test_what_cannot_be_imported_is_said(tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    cli = Session(tmp_path)
    cli.write("flow.json", '{"value": {}}')
    cli.write("meltano.yml", "plugins: {}\n")
    for name, text in {"odd": "include_paths: [/**x/*.yml]", "one": LOAD, "two": LOAD}.items():
        (tmp_path / name).mkdir()
        cli.write(f"{name}/meltano.yml", f"plugins: {{}}\n{text}\n")

    done = cli("import", *arguments)

    assert done.code == 2
    assert words in done.err
    assert list(tmp_path.glob("*.yaml")) == []
