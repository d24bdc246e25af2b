"""From parameters to argv, environment, locks and installations; and what is refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flexcore_meltano.client import Executable, NoMeltano, find_executable
from flexcore_meltano.config import DbtParameters, MeltanoParameters, SingerParameters
from flexcore_meltano.place import place_of
from flexcore_meltano.prepare import Asked, Parameters, Prepared, Refused, prepare
from flexcore_meltano.project import BadProject, Plugin, Project
from pydantic import ValidationError

TAP = Plugin(name="tap-a", type="extractors", pip_url="tap-a", settings=frozenset({"files", "url"}))
TARGET = Plugin(name="target-b", type="loaders", pip_url="target-b", settings=frozenset({"path", "on"}))
TAP_C = Plugin(name="tap-c", type="extractors", pip_url="tap-c")
TARGET_D = Plugin(name="target-d", type="loaders", pip_url="target-d")
MAPPER = Plugin(name="mapper-e", type="mappers", pip_url="mapper-e", mappings=("hide", "seek-not"))
DBT = Plugin(name="dbt-duckdb", type="utilities", pip_url="dbt-core dbt-duckdb")


def asked(root: Path, parameters: Parameters, *, deployed: bool = False, env: dict[str, str] | None = None) -> Asked:
    project = Project(
        root=root / "p",
        plugins=(TAP, TARGET, DBT, TAP_C, TARGET_D, MAPPER),
        environment="dev",
        environments=("dev",),
        jobs={"nightly": ("tap-a", "target-b", "tap-c", "hide", "target-d")},
    )
    return Asked(
        name="fx-name",
        parameters=parameters,
        project=project,
        place=place_of(
            project, state_folder=root / "state", deployed=deployed, beside=root, names=("default", "w", "p")
        ),
        executable=Executable(Path("/bin/meltano"), "a test", "4.4.1"),
        work=root / "work",
        env=env or {},
        time_limit_s=None,
        grace_s=30.0,
    )


def singer(root: Path, **more: Any) -> Prepared:
    return prepare(asked(root, SingerParameters(project="p", tap="tap-a", target="target-b", **more)))


def test_a_singer_step_is_a_meltano_run(tmp_path: Path) -> None:
    order = singer(tmp_path, state="nightly", full_refresh=True).order

    assert order["argv"][:4] == ["/bin/meltano", "--log-format", "json", "run"]
    assert order["argv"][-5:] == ["--state-id-suffix", "nightly", "--full-refresh", "tap-a", "target-b"]
    assert [each["id"] for each in order["states"]] == ["dev:tap-a-to-target-b:nightly"]


def test_the_state_id_is_meltanos_own_when_no_suffix_is_given(tmp_path: Path) -> None:
    order = singer(tmp_path).order

    assert [each["id"] for each in order["states"]] == ["dev:tap-a-to-target-b"]
    assert "--state-id-suffix" not in order["argv"]


def test_settings_travel_in_the_environment_and_never_in_argv(tmp_path: Path) -> None:
    config = {"tap-a": {"url": "https://user:hunter2@host", "files": [{"a": 1}]}, "target-b": {"on": True}}

    prepared = singer(tmp_path, config=config, select=["s.*", "!s.secret"])

    assert prepared.env["TAP_A_URL"] == "https://user:hunter2@host"
    assert json.loads(prepared.env["TAP_A_FILES"]) == [{"a": 1}]
    assert prepared.env["TARGET_B_ON"] == "true"
    assert json.loads(prepared.env["TAP_A__SELECT"]) == ["s.*", "!s.secret"]
    assert "hunter2" not in json.dumps([prepared.order, prepared.notes])


def test_the_output_folder_is_filled_in_and_told(tmp_path: Path) -> None:
    prepared = singer(tmp_path, config={"target-b": {"path": "$FLEXCORE_OUTPUT/x.db"}})

    assert prepared.env["TARGET_B_PATH"] == str(tmp_path / "output" / "x.db")
    assert prepared.notes["output_locations"] == {"target-b": str(tmp_path / "output" / "x.db")}


def test_a_url_is_not_told_as_a_location(tmp_path: Path) -> None:
    notes = singer(tmp_path, config={"target-b": {"path": "md:db?token=x"}}).notes

    assert notes["output_locations"] == {"target-b": None}


@pytest.mark.parametrize(
    ("config", "words"),
    [({"tap-z": {}}, "names tap-z"), ({"tap-a": {"fiels": 1}}, "no setting 'fiels'")],
)
def test_settings_that_meltano_would_ignore_are_refused(tmp_path: Path, config: dict[str, Any], words: str) -> None:
    with pytest.raises(Refused, match=words):
        singer(tmp_path, config=config)


def test_a_plugin_that_declares_no_settings_takes_none(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="target-d has no setting 'path'") as refused:
        prepare(
            asked(
                tmp_path,
                SingerParameters(project="p", tap="tap-a", target="target-d", config={"target-d": {"path": "x"}}),
            )
        )

    assert "meltano.yml has to list them" in refused.value.failure.hint


def test_plugins_of_one_system_folder_are_installed_together(tmp_path: Path) -> None:
    groups = singer(tmp_path).order["installs"]

    assert [[each["name"] for each in group["plugins"]] for group in groups] == [["tap-a", "target-b"]]


def test_a_deployed_project_installs_each_plugin_by_its_fingerprint(tmp_path: Path) -> None:
    parameters = SingerParameters(project="p", tap="tap-a", target="target-b")

    order = prepare(asked(tmp_path, parameters, deployed=True)).order

    roots = {group["root"] for group in order["installs"]}
    assert len(roots) == 2
    assert all(Path(root).is_relative_to(tmp_path / "state" / "projects") for root in roots)
    assert {Path(link).name for link, _ in order["links"]} == {"tap-a", "target-b"}


def test_install_never_insists_on_an_installation(tmp_path: Path) -> None:
    with pytest.raises(Refused, match="tap-a, target-b: not installed"):
        singer(tmp_path, install="never")


def test_every_run_has_a_system_folder_of_its_own_and_the_shared_database(tmp_path: Path) -> None:
    prepared = singer(tmp_path)

    assert prepared.order["system_root"] == str(tmp_path / "work" / "meltano")
    assert prepared.env["MELTANO_DATABASE_URI"] == f"sqlite:///{tmp_path / 'p' / '.meltano' / 'meltano.db'}"


def test_a_meltano_run_takes_the_locks_of_its_pipelines(tmp_path: Path) -> None:
    args = ["run", "--state-id-suffix=x", "tap-a", "target-b", "dbt-duckdb:run"]

    order = prepare(asked(tmp_path, MeltanoParameters(project="p", args=args))).order

    assert [each["id"] for each in order["states"]] == ["dev:tap-a-to-target-b:x"]
    assert [each["name"] for group in order["installs"] for each in group["plugins"]] == [
        "tap-a",
        "target-b",
        "dbt-duckdb",
    ]


def test_a_dbt_step_invokes_the_projects_dbt_plugin(tmp_path: Path) -> None:
    parameters = DbtParameters.model_validate(
        {"project": "p", "command": "build --fail-fast", "select": "groups+", "vars": {"a": 1}, "target": "ci"}
    )

    prepared = prepare(asked(tmp_path, parameters))

    dbt = ["build", "--fail-fast", "--select", "groups+", "--vars", '{"a": 1}', "--target", "ci"]
    assert prepared.order["argv"][3:] == ["invoke", "dbt-duckdb", *dbt]
    assert prepared.env["DBT_TARGET_PATH"] == str(tmp_path / "work" / "dbt")
    assert prepared.notes["output_folder"] == prepared.env["FLEXCORE_OUTPUT"] == str(tmp_path / "output")


def test_a_dbt_step_that_goes_on_retries(tmp_path: Path) -> None:
    before = asked(tmp_path, DbtParameters(project="p", command="build", select="a+"))

    order = prepare(replace(before, retry=tmp_path / "before")).order

    assert order["argv"][3:] == ["invoke", "dbt-duckdb", "retry", "--state", str(tmp_path / "before")]


def test_every_tap_goes_to_every_target_through_its_mappings(tmp_path: Path) -> None:
    parameters = SingerParameters(
        project="p", taps=["tap-a", "tap-c"], targets=["target-b", "target-d"], mappings={"tap-c": "hide"}, state="x"
    )

    prepared = prepare(asked(tmp_path, parameters))

    blocks = ["tap-a", "target-b", "tap-a", "target-d", "tap-c", "hide", "target-b", "tap-c", "hide", "target-d"]
    assert prepared.order["argv"][-len(blocks) :] == blocks
    assert [each["id"] for each in prepared.order["states"]] == [
        f"dev:{tap}-to-{target}:x" for tap in ("tap-a", "tap-c") for target in ("target-b", "target-d")
    ]
    assert {each["name"] for group in prepared.order["installs"] for each in group["plugins"]} == {
        "tap-a", "target-b", "tap-c", "mapper-e", "target-d",
    }  # fmt: skip


def test_patterns_may_be_for_one_of_several_taps(tmp_path: Path) -> None:
    parameters = SingerParameters(project="p", taps=["tap-a", "tap-c"], target="target-b", select={"tap-c": ["s.*"]})

    env = prepare(asked(tmp_path, parameters)).env

    assert (env["TAP_C__SELECT"], "TAP_A__SELECT" in env) == ('["s.*"]', False)


def test_a_state_id_in_full_needs_el(tmp_path: Path) -> None:
    order = singer(tmp_path, state={"id": "prod:crm"}, full_refresh=True).order

    assert order["argv"][3:6] == ["el", "--no-install", "--run-id"]
    assert order["argv"][-5:] == ["--state-id", "prod:crm", "--full-refresh", "tap-a", "target-b"]
    assert [each["id"] for each in order["states"]] == ["prod:crm"]


def test_an_unknown_mapping_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadProject, match="no mapping 'seek'"):
        singer(tmp_path, mappings="seek")


def test_a_job_takes_the_locks_of_its_pipelines(tmp_path: Path) -> None:
    order = prepare(asked(tmp_path, MeltanoParameters(project="p", args=["run", "nightly"]))).order

    assert [each["id"] for each in order["states"]] == ["dev:tap-a-to-target-b", "dev:tap-c-to-target-d"]
    assert order["argv"][3:] == ["run", "nightly"]


@pytest.mark.parametrize(
    "given",
    [
        {"target": "t"},
        {"tap": "a", "taps": ["a"], "target": "t"},
        {"taps": ["a", "a"], "target": "t"},
        {"taps": ["a", "b"], "target": "t", "state": {"id": "x"}},
        {"tap": "a", "target": "t", "state": {"id": "x"}, "mappings": ["m"]},
        {"tap": "a", "target": "t", "select": {"b": ["*"]}},
        {"tap": "a", "targets": [], "project": "p"},
        {"tap": "a", "target": "t", "state": "a b"},
        {"tap": "a", "target": "t", "colour": "red"},
    ],
)
def test_parameters_that_make_no_sense_are_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        SingerParameters.model_validate({"project": "p", **given})


def test_lists_of_one_are_accepted() -> None:
    parameters = SingerParameters(project="p", taps=["a"], targets=["b"])

    assert (parameters.extractors, parameters.loaders) == (["a"], ["b"])


def test_the_projects_own_meltano_comes_first(tmp_path: Path) -> None:
    own = tmp_path / ".venv" / "bin" / "meltano"
    own.parent.mkdir(parents=True)
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    (tmp_path / ".venv" / "lib" / "python3.11" / "site-packages" / "meltano-9.9.9.dist-info").mkdir(parents=True)

    found = find_executable(None, tmp_path)

    assert (found.path, found.version) == (own, "9.9.9")


def test_a_configured_executable_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(NoMeltano, match="cannot be run"):
        find_executable(tmp_path / "none")
