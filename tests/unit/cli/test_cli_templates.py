"""Templates of the settings beside those of the library: listed, shown, copied, preset, refused."""

import json
from pathlib import Path

import pytest
from fake_control_plane import FakeControlPlane, last

from flexcore.cli.app import run
from flexcore.model.requests import StartRequest

Capture = pytest.CaptureFixture[str]

SETTINGS = """
workflow_templates:
  whole: {file: flows, runtime: meltano}
  single: {file: many/one.yaml}
  old: {file: gone.yaml, enabled: false}
  http_and_sql: {file: flows}
"""
SINGLE = """
name: single
description: Counts things
inputs: {type: object, properties: {limit: {type: integer, description: How many}}}
steps:
  - {id: count, type: python, with: {file: count.py}}
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("flows", "many"):
        (tmp_path / name).mkdir()
    (tmp_path / "flexcore.yaml").write_text(SETTINGS)
    (tmp_path / "flows" / "workflow.yaml").write_text("name: whole\nsteps: []\n")
    (tmp_path / "flows" / "template.yaml").write_text("summary: All of a folder\nrequires: [a robot]\n")
    (tmp_path / "many" / "one.yaml").write_text(SINGLE)
    (tmp_path / "many" / "two.yaml").write_text("name: two\nsteps: []\n")
    (tmp_path / "many" / "count.py").write_text("def main(): return 1\n")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_they_are_listed_with_their_origin_and_state(capsys: Capture) -> None:
    assert run(["template", "list"]) == 0

    rows = {line.split()[0]: line.split() for line in capsys.readouterr().out.splitlines()[1:]}
    assert rows["whole"][1:] == ["meltano", "All", "of", "a", "folder", "a", "robot", "settings", "ready"]
    assert rows["single"][1:] == ["Counts", "things", "settings", "ready"]
    assert rows["old"][1:] == ["settings", "disabled"]
    assert rows["data_pipeline"][-2:] == ["library", "ready"]
    assert rows["http_and_sql"][-2] == "settings"  # hides the one of the library


def test_a_template_for_a_runtime_that_is_not_configured_says_what_it_needs(folder: Path, capsys: Capture) -> None:
    assert run(["template", "list"]) == 0
    row = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("container_batch"))
    assert row.endswith("needs kubernetes")

    (folder / "flexcore.yaml").write_text("runtimes: {mine: {type: kubernetes}}\n")
    assert run(["template", "show", "container_batch", "--output", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["status"] == "ready"


def test_inputs_are_shown_as_the_workflow_declares_them(capsys: Capture) -> None:
    assert run(["template", "show", "single"]) == 0

    assert "limit  integer  required  How many" in capsys.readouterr().out


def test_a_folder_is_copied_whole_and_a_file_with_what_it_names(folder: Path) -> None:
    assert run(["template", "use", "whole", "a"]) == 0
    assert run(["template", "use", "single", "b"]) == 0

    assert sorted(path.name for path in (folder / "a").iterdir()) == ["template.yaml", "workflow.yaml"]
    assert sorted(path.name for path in (folder / "b").iterdir()) == ["count.py", "workflow.yaml"]


def test_the_runtime_is_preset_and_can_be_overruled() -> None:
    fake = FakeControlPlane()

    assert run(["workflow", "execute", "whole"], fake.connect) == 0
    preset = last(fake, StartRequest).runtime
    assert run(["workflow", "execute", "whole", "--runtime", "local"], fake.connect) == 0

    assert (preset, last(fake, StartRequest).runtime) == ("meltano", "local")


@pytest.mark.parametrize(
    "command", [["workflow", "execute"], ["template", "use"], ["workflow", "create", "x", "--template"]]
)
def test_a_disabled_one_is_refused(command: list[str], folder: Path, capsys: Capture) -> None:
    assert run([*command, "old"], FakeControlPlane().connect) == 2

    assert "template 'old' is disabled" in capsys.readouterr().err
    assert not (folder / "old").exists()


def test_a_missing_file_stops_every_command(folder: Path, capsys: Capture) -> None:
    (folder / "many" / "one.yaml").unlink()

    assert run(["workflow", "list"]) == 2

    assert (
        f"there is no file {folder}/many/one.yaml for the setting workflow_templates.single.file"
        in capsys.readouterr().err
    )
