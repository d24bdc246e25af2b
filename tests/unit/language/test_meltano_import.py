"""A Meltano project as workflows: what is made of each word, and that nothing is lost in silence."""

from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from flexcore.language.meltano_project import Source, included, looks_like_project, read_pipelines
from flexcore.language.meltano_workflows import Fidelity, Imported, workflows_of
from flexcore.language.native import check
from flexcore.model.errors import InvalidDefinition

PLUGINS = """
plugins:
  extractors: [{name: tap-a}, {name: tap-b, inherit_from: tap-a}]
  loaders: [{name: target-x}]
  mappers: [{name: mapper, mappings: [{name: hide}]}]
  utilities:
  - {name: dbt-duckdb, commands: {nightly: {args: "build --select tag:nightly"}, plain: "test", own: "run $X"}}
  - {name: lint}
"""


def imported(text: str, *further: str, project: str = ".") -> Imported:
    sources = [Source("meltano.yml", text), *(Source(f"more{n}.yml", each) for n, each in enumerate(further))]
    return workflows_of(read_pipelines(sources), project)


def steps_of(tasks: str) -> list[tuple[str, str, dict[str, Any]]]:
    (workflow,) = imported(f"{PLUGINS}\njobs: [{{name: job, tasks: {tasks}}}]").workflows
    return [
        (str(each["id"]), each["type"], {key: value for key, value in each["with"].items() if key != "project"})
        for each in workflow.steps
    ]


def told(found: Imported, fidelity: Fidelity) -> list[str]:
    return [str(each) for each in found.notes if each.fidelity is fidelity]


@pytest.mark.parametrize(
    ("tasks", "steps"),
    [
        ("[tap-a target-x]", [("tap_a_to_target_x", "singer", {"tap": "tap-a", "target": "target-x"})]),
        ("tap-b target-x", [("tap_b_to_target_x", "singer", {"tap": "tap-b", "target": "target-x"})]),
        (
            "[[tap-a, hide, target-x], [lint]]",
            [
                ("tap_a_to_target_x", "singer", {"tap": "tap-a", "target": "target-x", "mappings": ["hide"]}),
                ("lint", "meltano", {"args": ["invoke", "lint"]}),
            ],
        ),
        (
            "[dbt-duckdb:run dbt-duckdb:nightly, 'dbt-duckdb:run']",
            [
                ("dbt_run", "dbt", {"command": "run"}),
                ("dbt_nightly", "dbt", {"command": "build --select tag:nightly"}),
                ("dbt_run_2", "dbt", {"command": "run"}),
            ],
        ),
        ("[dbt-duckdb:plain]", [("dbt_plain", "dbt", {"command": "test"})]),
        ("[dbt-duckdb:own]", [("dbt_duckdb_own", "meltano", {"args": ["invoke", "dbt-duckdb:own"]})]),
        ("[lint:fix]", [("lint_fix", "meltano", {"args": ["invoke", "lint:fix"]})]),
        ("[tap-a]", [("tap_a", "meltano", {"args": ["run", "tap-a"]})]),
        ("[what]", [("what", "meltano", {"args": ["run", "what"]})]),
    ],
)
def test_every_word_of_a_job_becomes_a_step(tasks: str, steps: list[Any]) -> None:
    assert steps_of(tasks) == steps


def test_what_is_made_is_a_valid_workflow_with_the_environment_as_input() -> None:
    found = imported(
        f"{PLUGINS}\ndefault_environment: dev\nenvironments: [{{name: dev}}, {{name: prod}}]\n"
        "jobs: [{name: Orders, Load, tasks: [tap-a target-x]}]".replace("Orders, Load", "'Orders: Load!'"),
        project="./etl",
    )

    (workflow,) = found.workflows
    document = yaml.safe_load(workflow.text)
    assert check(workflow.text, "orders-load.yaml", files=lambda name: name == "etl")[1] == []
    assert workflow.name == "orders-load"
    assert document["inputs"]["properties"]["environment"]["enum"] == ["dev", "prod"]
    assert document["inputs"]["properties"]["environment"]["default"] == "dev"
    assert document["env"] == {"MELTANO_ENVIRONMENT": "${{ input.environment }}"}
    assert "called 'orders-load'" in told(found, Fidelity.CHANGED)[0]


def test_without_a_default_environment_the_input_is_required() -> None:
    (workflow,) = imported(f"{PLUGINS}\nenvironments: [{{name: prod}}]\njobs: [{{name: a, tasks: [lint]}}]").workflows

    assert yaml.safe_load(workflow.text)["inputs"]["required"] == ["environment"]


def test_a_schedule_is_a_workflow_that_says_it_is_not_yet_run() -> None:
    found = imported(
        f"{PLUGINS}\njobs: [{{name: load, tasks: [tap-a target-x]}}]\n"
        "schedules: [{name: load, job: load, interval: '@daily', env: {LIMIT: 1e3, WHERE: $HOME}}]"
    )

    _, schedule = found.workflows
    document = yaml.safe_load(schedule.text)
    assert (schedule.name, schedule.job, schedule.cron) == ("load-2", "load", "0 0 * * *")
    assert document["labels"]["meltano.cron"] == "0 0 * * *"
    assert document["env"]["WHERE"] == "$HOME"
    assert check(schedule.text, "load-2.yaml", files=lambda name: True)[1] == []
    assert "meltano.yml:11:13: changed: schedule 'load': not yet run by FlexCore (@daily, kept in its labels)" in told(
        found, Fidelity.CHANGED
    )
    assert any("WHERE has a '$'" in each for each in told(found, Fidelity.CHANGED))


def test_a_schedule_of_the_older_form_keeps_its_bookmarks() -> None:
    found = imported(
        f"{PLUGINS}\ndefault_environment: dev\nenvironments: [{{name: dev}}]\n"
        "schedules: [{name: old, extractor: tap-a, loader: target-x, transform: run, interval: '0 5 * * *'}]"
    )

    (workflow,) = found.workflows
    assert [each["type"] for each in workflow.steps] == ["singer", "dbt"]
    assert workflow.steps[0]["with"]["state"] == {"id": "old"}
    assert workflow.pipes[0]["tap"] == "tap-a"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("jobs: [{name: none}]", "job 'none'"),
        ("schedules: [{name: s, job: gone}]", "there is no job 'gone'"),
        ("schedules: [{name: s, interval: '@daily'}]", "it runs nothing"),
        ("a: 1\na: 2", "a"),
    ],
)
def test_what_cannot_be_expressed_is_noted_with_its_place(text: str, words: str) -> None:
    found = imported(text)

    (lost,) = told(found, Fidelity.LOST)
    assert words in lost
    assert lost.startswith("meltano.yml:")


def test_included_files_count() -> None:
    main = "include_paths: ['extra/*.yml']\nplugins: {extractors: [{name: tap-a}]}"

    found = imported(main, "plugins: {loaders: [{name: target-x}]}\njobs: [{name: a, tasks: [tap-a target-x]}]")

    assert included(Source("meltano.yml", main)) == ["extra/*.yml"]
    assert found.workflows[0].steps[0]["type"] == "singer"
    assert [each.place.file for each in found.notes] == ["more0.yml", "more0.yml"]


def test_a_project_is_told_from_a_workflow() -> None:
    assert looks_like_project(Source("x", PLUGINS))
    assert not looks_like_project(Source("x", "name: a\nsteps: []"))
    assert not looks_like_project(Source("x", "{broken"))


def test_what_is_no_yaml_is_refused_with_its_place() -> None:
    with pytest.raises(InvalidDefinition) as raised:
        imported("jobs: [")

    assert raised.value.diagnostics[0].line


NAMES = st.text("aZ9-_: ./ü", min_size=1, max_size=80)
WORDS = st.sampled_from(["tap-a", "tap-b", "target-x", "hide", "dbt-duckdb:run", "dbt-duckdb:own", "lint", "no", "9:x"])


@given(st.lists(st.tuples(NAMES, st.lists(WORDS, min_size=1, max_size=6)), min_size=1, max_size=4))
def test_whatever_the_jobs_are_called_and_do_the_workflows_are_valid_and_differ(jobs: list[Any]) -> None:
    document = {"jobs": [{"name": name, "tasks": words} for name, words in jobs]}

    found = imported(f"{PLUGINS}\n{yaml.safe_dump(document)}")

    assert len(found.workflows) == len(jobs) == len({each.name for each in found.workflows})
    for each in found.workflows:
        assert check(each.text, "x.yaml", files=lambda name: True)[1] == []


def test_a_job_without_a_name_takes_no_schedule_of_the_older_form() -> None:
    found = imported(f"{PLUGINS}\njobs: [{{tasks: []}}]\nschedules: [{{name: s, extractor: tap-a, loader: target-x}}]")

    assert [(each.name, len(each.steps)) for each in found.workflows] == [("s", 1)]


def test_what_would_mean_something_else_in_a_workflow_is_written_so_that_it_does_not() -> None:
    found = imported(
        f"{PLUGINS}\njobs: [{{name: test, tasks: [lint]}}]\n"
        "schedules: [{name: s, job: test, env: {A: '${{ secrets.X }}'}}]"
    )

    assert [each.name for each in found.workflows] == ["test-2", "s"]
    workflow, problems = check(found.workflows[1].text, "s.yaml")
    assert (workflow is not None, problems) == (True, [])
