"""`flexcore workflow …`: definitions here, executions in `runs.py`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from flexcore.cli import deploying, runs, testing
from flexcore.cli.bundle import collect, pointing_at
from flexcore.cli.library import WORKFLOW_FILE, copy, template
from flexcore.cli.options import options_of
from flexcore.cli.reasons import expected_time, why
from flexcore.cli.render import clean, emit, listing, table
from flexcore.cli.resolve import bundle_limit, deployed, local_file
from flexcore.cli.session import settings_of, with_api
from flexcore.cli.starter import starter
from flexcore.model.errors import AlreadyExists, Diagnostic, InvalidDefinition, InvalidRequest, NotFound
from flexcore.model.ids import WORKFLOW_NAME
from flexcore.model.requests import ControlPlaneApi, Document

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Define and run workflows.")

app.command()(runs.execute)
app.command()(testing.test)

NameArgument = Annotated[str, typer.Argument(metavar="NAME")]
SourceArgument = Annotated[str, typer.Argument(metavar="NAME|FILE")]


@app.command()
def create(
    context: typer.Context,
    name: NameArgument,
    from_template: Annotated[str | None, typer.Option("--template", metavar="T", help="Copy this template.")] = None,
) -> None:
    """Write a small workflow to begin with: ./NAME.yaml, or a copy of a template in ./NAME."""
    if not WORKFLOW_NAME.fullmatch(name):
        raise InvalidRequest(f"'{name}' cannot be the name of a workflow", hint="a small letter, then a-z 0-9 _ -")
    if from_template is not None:
        copy(template(from_template, settings_of(options_of(context)).workflow_templates), Path(name), name)
        path = Path(name) / WORKFLOW_FILE
    else:
        path = Path(f"{name}.yaml")
        if path.exists():
            raise AlreadyExists(f"{path} is there already", hint="choose another name, or remove it first")
        path.write_text(starter(name), encoding="utf-8")
    text = f"wrote {path}; run it with: flexcore workflow execute {name}"
    emit(options_of(context), {"name": name, "file": str(path)}, text)


app.command()(deploying.deploy)


@app.command("list")
def list_(
    context: typer.Context,
    runtime: Annotated[str, typer.Option(metavar="R|all", help="Only those with steps for this runtime.")] = "all",
) -> None:
    """List the deployed workflows."""
    options = options_of(context)
    wanted = None if runtime == "all" else runtime
    items = with_api(options, lambda api: api.workflows(options.workspace, wanted))
    listing(options, items, ("name", "version", "runtimes", "description"), "no workflows are deployed")


@app.command()
def show(
    context: typer.Context, name: NameArgument, version: Annotated[str | None, typer.Option(metavar="V")] = None
) -> None:
    """Print a deployed workflow as it was written."""
    options = options_of(context)
    document = with_api(options, lambda api: api.workflow(name, version, options.workspace))
    emit(options, document, clean(str(document["text"])).rstrip("\n"))


@app.command()
def versions(context: typer.Context, name: NameArgument) -> None:
    """List the versions of a workflow, the newest first."""
    options = options_of(context)
    document = with_api(options, lambda api: api.workflow(name, None, options.workspace))
    columns = ("version", "created_at", "deployed_by", "current", "pinned")
    listing(options, document["versions"], columns, "no versions")


@app.command()
def pin(context: typer.Context, name: NameArgument, version: Annotated[str, typer.Argument(metavar="VERSION")]) -> None:
    """Have new executions take a version, whatever is deployed, until `unpin`; how it begins is enough."""
    options = options_of(context)
    document = with_api(options, lambda api: api.pin(name, version, options.workspace))
    emit(options, document, _standing(document))


@app.command()
def unpin(context: typer.Context, name: NameArgument) -> None:
    """Have new executions take the current version again."""
    options = options_of(context)
    document = with_api(options, lambda api: api.unpin(name, options.workspace))
    emit(options, document, _standing(document))


@app.command()
def rollback(
    context: typer.Context,
    name: NameArgument,
    version: Annotated[str | None, typer.Argument(metavar="[VERSION]", help="Instead of the one before.")] = None,
) -> None:
    """Make an older version the current one: the one deployed before it, or the one that is named."""
    options = options_of(context)
    document = with_api(options, lambda api: api.rollback(name, version, options.workspace))
    emit(options, document, _standing(document))


@app.command()
def validate(context: typer.Context, sources: Annotated[list[str], typer.Argument(metavar="FILE…")]) -> None:
    """Check workflow files and print every problem as file:line:column: message."""
    options = options_of(context)

    async def work(api: ControlPlaneApi) -> list[Diagnostic]:
        limit = bundle_limit(options)
        return [each for source in sources for each in await _problems(api, _existing(source), limit)]

    found = with_api(options, work)
    keys = ("file", "line", "column", "message", "code", "hint", "path")
    document = {"valid": not found, "diagnostics": [{key: getattr(each, key) for key in keys} for each in found]}
    emit(options, document, [str(each) for each in found] or [f"{each}: valid" for each in sources])
    raise typer.Exit(2 if found else 0)


@app.command()
def plan(
    context: typer.Context,
    name: SourceArgument,
    runtime: Annotated[str | None, typer.Option(help="Runtime for every step that it can run.")] = None,
) -> None:
    """Say where each step would go now, and why."""
    options = options_of(context)

    async def work(api: ControlPlaneApi) -> Document:
        workflow = await deployed(api, name, Path.cwd(), options)
        return await api.plan(workflow["name"], workflow["version"], runtime, options.workspace)

    document = with_api(options, work)
    hints = [f"hint: {clean(each)}" for each in document.get("hints", ())]
    emit(options, document, [*_planned(document["steps"]), *hints])


for _command in (runs.status, runs.logs, runs.wait, runs.cancel, runs.retry, runs.rerun, runs.resume):
    app.command()(_command)


@app.command()
def delete(context: typer.Context, name: NameArgument) -> None:
    """Take a workflow out of the list; its executions stay."""
    options = options_of(context)
    with_api(options, lambda api: api.delete_workflow(name, options.workspace))
    emit(options, {"name": name, "deleted": True}, f"deleted {name}")


def _planned(steps: Sequence[Document]) -> list[str]:
    """Lay out where steps would go; how long they would take only where something is known of that."""
    expected = [expected_time(each["placement"]) for each in steps]
    middle = [("EXPECTED", *expected)] if any(expected) else []
    columns = [
        ("STEP", *(each["path"] for each in steps)),
        ("TYPE", *(each["type"] for each in steps)),
        ("RUNTIME", *((each["placement"] or {}).get("chosen") for each in steps)),
        *middle,
        ("WHY", *(why(each["placement"]) for each in steps)),
    ]
    headers, *rows = zip(*columns, strict=True)
    return table(headers, rows)


def _existing(source: str) -> Path:
    path = local_file(source, Path())
    if path is None:
        raise NotFound(f"there is no workflow file {source}", hint=f"looked at {source} and {source}/{WORKFLOW_FILE}")
    return path


async def _problems(api: ControlPlaneApi, path: Path, limit: int) -> list[Diagnostic]:
    try:
        bundle = collect(path, limit)
    except InvalidDefinition as error:
        return list(error.diagnostics)
    return [pointing_at(each, path, bundle) for each in await api.validate(bundle)]


def _standing(document: Document) -> str:
    pinned = f"; pinned to {document['pinned']}, which new executions take" if document["pinned"] else ""
    return f"{document['name']}: current is {document['current']}{pinned}"
