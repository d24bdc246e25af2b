"""Reading a project, and where it keeps what lasts."""

import json
from pathlib import Path

import pytest
from flexcore_meltano.place import fingerprint, is_deployed, place_of
from flexcore_meltano.project import BadProject, Plugin, Project, read_project

YAML = """
default_environment: dev
environments:
- name: dev
  config: {plugins: {extractors: [{name: tap-b, config: {limit: 5}}]}}
- name: prod
  state_id_suffix: p1
jobs:
- name: both
  tasks: [tap-a hide target-x, [tap-b, target-x]]
include_paths: [more/*.yml]
plugins:
  extractors:
  - name: tap-a
    pip_url: -e ./tap
    settings: [{name: path}, {name: nested.key}]
    config: {path: a.csv}
  - name: tap-b
    inherit_from: tap-a
    config: {path: b.csv}
  mappers:
  - {name: mapper-m, pip_url: m, mappings: [{name: hide, config: {}}]}
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "meltano.yml").write_text(YAML)
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "loaders.yml").write_text("plugins: {loaders: [{name: target-x, variant: v}]}")
    (tmp_path / "plugins" / "loaders").mkdir(parents=True)
    locked = {"name": "target-x", "pip_url": "target-x==1", "settings": [{"name": "destination_path"}]}
    (tmp_path / "plugins" / "loaders" / "target-x--v.lock").write_text(json.dumps(locked))
    (tmp_path / "tap").mkdir()
    (tmp_path / "tap" / "pyproject.toml").write_text("[project]")
    return tmp_path


def test_included_files_count(root: Path) -> None:
    assert {each.name for each in read_project(root).plugins} == {"tap-a", "tap-b", "mapper-m", "target-x"}


def test_an_heir_has_its_parents_settings_and_installation_and_the_environments_config(root: Path) -> None:
    heir = read_project(root).plugin("tap-b")

    assert heir.settings == {"path", "nested.key", "limit"}
    assert heir.config == {"path": "b.csv", "limit": 5}
    assert (heir.installed_as, heir.pip_url) == ("tap-a", "-e ./tap")


def test_a_locked_definition_fills_in(root: Path) -> None:
    target = read_project(root).plugin("target-x", "loaders")

    assert target.pip_url == "target-x==1"
    assert target.settings == {"destination_path"}


def test_an_unknown_plugin_is_refused_with_those_there_are(root: Path) -> None:
    with pytest.raises(BadProject, match="no extractor 'tap-z'") as refusal:
        read_project(root).plugin("tap-z", "extractors")

    assert refusal.value.hint == "extractors there: tap-a, tap-b"


def test_a_mapper_is_found_by_its_mappings(root: Path) -> None:
    project = read_project(root)

    assert project.mapper("hide").name == "mapper-m"
    assert project.find("hide") == project.plugin("mapper-m")


def test_the_state_id_is_meltanos_with_what_the_environment_adds(root: Path) -> None:
    dev, prod = read_project(root), read_project(root, environment="prod")

    assert dev.state_id("tap-a", "target-x") == "dev:tap-a-to-target-x"
    assert prod.state_id("tap-a", "target-x") == "prod:tap-a-to-target-x:p1"
    assert prod.state_id("tap-a", "target-x", "own") == "prod:tap-a-to-target-x:own"


def test_jobs_are_put_in_as_their_blocks(root: Path) -> None:
    blocks = read_project(root).blocks(["tap-a", "both", "tap-b"])

    assert list(blocks) == ["tap-a", "tap-a", "hide", "target-x", "tap-b", "target-x", "tap-b"]


def test_an_unknown_environment_is_refused(root: Path) -> None:
    with pytest.raises(BadProject, match="no environment 'test'"):
        read_project(root, environment="test")


@pytest.mark.parametrize("text", ["a: [", "- 1", "\x00"])
def test_a_broken_file_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "meltano.yml").write_text(text)

    with pytest.raises(BadProject):
        read_project(tmp_path)


def test_a_missing_project_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match="no Meltano project"):
        read_project(tmp_path / "none")


def test_settings_are_spelled_with_one_underscore() -> None:
    plugin = Plugin(name="tap-x", type="extractors")

    assert plugin.env_name("files") == "TAP_X_FILES"
    assert plugin.env_name("nested.some-key") == "TAP_X_NESTED_SOME_KEY"
    assert plugin.env_name("_select") == "TAP_X__SELECT"


def project(root: Path, **fields: str) -> Project:
    return Project(root=root, plugins=(), **fields)  # type: ignore[arg-type]  # only texts are given


def test_the_authors_project_keeps_its_own_system_folder(tmp_path: Path) -> None:
    place = place_of(
        project(tmp_path), state_folder=tmp_path / "state", deployed=False, beside=tmp_path, names=("w", "p")
    )

    assert place.system == tmp_path / ".meltano"
    assert place.database == tmp_path / ".meltano" / "meltano.db"
    assert place.output == tmp_path / "output"


def test_a_deployed_project_keeps_everything_outside_the_copy(tmp_path: Path) -> None:
    place = place_of(
        project(tmp_path / "v1"), state_folder=tmp_path / "s", deployed=True, beside=tmp_path, names=("w", "./p")
    )
    again = place_of(
        project(tmp_path / "v2"), state_folder=tmp_path / "s", deployed=True, beside=tmp_path, names=("w", "./p")
    )
    other = place_of(
        project(tmp_path / "v1"), state_folder=tmp_path / "s", deployed=True, beside=tmp_path, names=("w2", "./p")
    )

    assert place == again
    assert place.system.is_relative_to(tmp_path / "s" / "projects")
    assert place.system != other.system


def test_a_configured_database_is_respected(tmp_path: Path) -> None:
    uri = "postgresql://host/meltano"

    place = place_of(
        project(tmp_path, database_uri=uri), state_folder=tmp_path, deployed=True, beside=tmp_path, names=("w",)
    )

    assert (place.database_uri, place.database) == (uri, None)


def test_a_version_in_flexcores_home_is_a_deployed_one(tmp_path: Path) -> None:
    state = tmp_path / ".flexcore" / "runtimes" / "meltano"

    assert is_deployed(tmp_path / ".flexcore" / "bundles" / "v1", state)
    assert not is_deployed(tmp_path, state)


def test_the_fingerprint_follows_the_requirement_and_what_the_installation_depends_on(root: Path) -> None:
    where = project(root)
    editable, pinned = (Plugin(name="t", type="extractors", pip_url=url) for url in ("-e ./tap", "./tap"))
    before = fingerprint(editable, where), fingerprint(pinned, where)

    (root / "tap" / "code.py").write_text("1")
    code_changed = fingerprint(editable, where), fingerprint(pinned, where)
    (root / "tap" / "pyproject.toml").write_text("[project]\nname = 't'")
    build_changed = fingerprint(editable, where)

    assert before[0] == code_changed[0] != build_changed
    assert before[1] != code_changed[1]
