"""Templates named in the settings: what is read, what is refused, and how the environment changes it."""

from pathlib import Path

import pytest

from flexcore.model.errors import InvalidSettings
from flexcore.settings import TemplateSettings, load


def templates(folder: Path, text: str, **environ: str) -> dict[str, TemplateSettings]:
    (folder / "flexcore.yaml").write_text(text)
    return dict(load(folder, environ=environ).settings.workflow_templates)


def refusal(folder: Path, text: str, **environ: str) -> str:
    with pytest.raises(InvalidSettings) as refused:
        templates(folder, text, **environ)
    return f"{refused.value} ({refused.value.hint})"


@pytest.fixture(autouse=True)
def workflow(tmp_path: Path) -> Path:
    path = tmp_path / "flows" / "workflow.yaml"
    path.parent.mkdir()
    path.write_text("name: flow\nsteps: []\n")
    return path


def test_a_template_is_read_with_its_defaults(tmp_path: Path, workflow: Path) -> None:
    found = templates(tmp_path, "workflow_templates: {mine: {file: flows/workflow.yaml}}")

    assert found == {"mine": TemplateSettings(file=str(workflow), runtime="", enabled=True)}


def test_a_folder_means_the_workflow_in_it(tmp_path: Path, workflow: Path) -> None:
    text = "workflow_templates: {mine: {file: flows, runtime: local}}"

    assert templates(tmp_path, text) == {"mine": TemplateSettings(file=str(workflow), runtime="local")}


def test_a_missing_file_is_named_with_its_setting(tmp_path: Path) -> None:
    said = refusal(tmp_path, "\nworkflow_templates: {mine: {file: flows/other.yaml}}")

    assert f"{tmp_path}/flexcore.yaml:2: there is no file {tmp_path}/flows/other.yaml" in said
    assert "workflow_templates.mine.file" in said


def test_a_disabled_template_may_be_missing(tmp_path: Path) -> None:
    text = "workflow_templates: {mine: {file: nothing.yaml, enabled: false}}"

    assert not templates(tmp_path, text)["mine"].enabled


def test_the_environment_changes_and_adds_templates(tmp_path: Path, workflow: Path) -> None:
    text = "workflow_templates: {my-flow: {file: flows}}"
    environ = {
        "FLEXCORE_WORKFLOW_TEMPLATES__MY_FLOW__ENABLED": "false",
        "FLEXCORE_WORKFLOW_TEMPLATES__OTHER__FILE": "flows",
    }

    found = templates(tmp_path, text, **environ)

    assert found["my-flow"] == TemplateSettings(file=str(workflow), enabled=False)
    assert found["other"] == TemplateSettings(file=str(workflow))


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("workflow_templates: {mine: {fiel: flows}}", "unknown setting workflow_templates.mine.fiel"),
        ("workflow_templates: [{name: mine, file: flows}]", "a mapping of names to file, runtime, enabled"),
        ("workflow_templates: {mine: {runtime: local}}", "workflow_templates.mine.file is missing"),
        ("workflow_templates: {mine: }", "workflow_templates.mine.file is missing"),
        ("workflow_templates: {mine: {file: flows, runtime: moon}}", "names no runtime: moon"),
        ("workflow_templates: {Mine: {file: flows}}", "not the name of a workflow"),
        ("workflow_templates: {mine: {file: flows, enabled: perhaps}}", "workflow_templates.mine.enabled"),
    ],
)
def test_what_is_wrong_is_refused_by_name(tmp_path: Path, text: str, said: str) -> None:
    assert said in refusal(tmp_path, text)


def test_no_templates_is_no_error(tmp_path: Path) -> None:
    assert templates(tmp_path, "workflow_templates: {}") == {}
    assert templates(tmp_path, "workflow_templates:\n") == {}
