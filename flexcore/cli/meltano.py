"""`flexcore meltano …`: what a Meltano project has, run as it is; its bookmarks are in `meltano_states.py`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from flexcore.cli.bundle import gather
from flexcore.cli.importing import MELTANO
from flexcore.cli.meltano_project import PROJECT_FILE, local_project, project_folder
from flexcore.cli.meltano_states import app as states
from flexcore.cli.options import options_of
from flexcore.cli.render import listing
from flexcore.cli.resolve import bundle_limit, deploy_bundle
from flexcore.cli.runs import duration_option, stay
from flexcore.cli.session import with_api
from flexcore.language.meltano_project import Pipelines
from flexcore.language.meltano_workflows import ImportedWorkflow, workflows_of
from flexcore.model.errors import NotFound
from flexcore.model.requests import ControlPlaneApi, StartRequest

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The jobs and bookmarks of Meltano."
)
app.add_typer(states, name="state")

_COLUMNS = ("name", "kind", "runs", "cron", "steps", "state_ids")
_ENVIRONMENT = "environment"


@app.command()
def jobs(
    context: typer.Context, project: Annotated[str, typer.Argument(metavar="[PROJECT]", help="Its folder.")] = "."
) -> None:
    """List the jobs and schedules of a project, and the state ids that they use."""
    options = options_of(context)
    found = local_project(project_folder(project, options) / PROJECT_FILE).pipelines
    items = [_job(each, found) for each in workflows_of(found, ".").workflows]
    listing(options, items, _COLUMNS, "the project has no jobs and no schedules")


@app.command()
def run(
    context: typer.Context,
    job: Annotated[str, typer.Argument(metavar="JOB", help="A job or a schedule of the project.")],
    project: Annotated[str, typer.Option(metavar="DIR", help="The project's folder.")] = ".",
    environment: Annotated[str | None, typer.Option(metavar="E", help="Environment of the project.")] = None,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="Time for the whole, such as 30m.")] = None,
) -> None:
    """Run a job of a project, as `flexcore import` would write it, without writing a file."""
    options = options_of(context)
    folder = project_folder(project, options)
    workflow = _chosen(folder, job)
    limit = None if timeout is None else duration_option(timeout, "--timeout")
    given = {_ENVIRONMENT: environment} if environment else None

    async def work(api: ControlPlaneApi) -> None:
        file = folder / f"{workflow.name}.yaml"
        bundle = gather(workflow.text, file, bundle_limit(options))
        version = await deploy_bundle(api, bundle, file, options)
        request = StartRequest(
            workflow=version["name"],
            version=version["version"],
            workspace=options.workspace,
            input=given,
            timeout=limit,
            labels={MELTANO: job},
        )
        await stay(api, await api.start(request), options, no_wait=False)

    with_api(options, work)


def _chosen(folder: Path, name: str) -> ImportedWorkflow:
    made = workflows_of(local_project(folder / PROJECT_FILE).pipelines, ".").workflows
    jobs = [each for each in made if not each.schedule]
    for each in [*jobs, *made]:
        if name in ((each.job if not each.schedule else each.schedule), each.name):
            return each
    present = ", ".join(dict.fromkeys(each.schedule or each.job for each in made)) or "none"
    raise NotFound(f"{folder / PROJECT_FILE} has no job '{name}'", hint=f"jobs and schedules there: {present}")


def _job(workflow: ImportedWorkflow, pipelines: Pipelines) -> dict[str, Any]:
    return {
        "name": workflow.schedule or workflow.job,
        "kind": "schedule" if workflow.schedule else "job",
        "runs": workflow.job if workflow.schedule else None,
        "cron": workflow.cron or None,
        "workflow": workflow.name,
        "steps": [str(each["id"]) for each in workflow.steps],
        "state_ids": [_state_id(each, pipelines) for each in workflow.pipes],
    }


def _state_id(pipe: Mapping[str, Any], pipelines: Pipelines) -> str:
    """Name the state that a pipe uses in the default environment, as Meltano does."""
    if "state" in pipe:
        return str(pipe["state"]["id"])
    environment = pipelines.default_environment or "ENVIRONMENT"
    suffix = pipelines.suffixes.get(environment)
    return f"{environment}:{pipe['tap']}-to-{pipe['target']}{f':{suffix}' if suffix else ''}"
