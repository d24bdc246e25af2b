"""`flexcore execution …`: executions in depth."""

from typing import Annotated

import typer

from flexcore.cli import bulk
from flexcore.cli.options import options_of
from flexcore.cli.reasons import why
from flexcore.cli.render import clean, emit, listing
from flexcore.cli.runs import ExecutionArgument
from flexcore.cli.selection import (
    FailedStep,
    OfStatus,
    OfWorkflow,
    Search,
    Since,
    Until,
    WithLabel,
    selected,
    selection,
)
from flexcore.cli.session import with_api
from flexcore.cli.summary import summary
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import ControlPlaneApi, Document

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Look at executions in depth."
)

_COLUMNS = ("id", "workflow", "status", "created_at", "duration_s")


@app.command("list")
def list_(
    context: typer.Context,
    workflow: OfWorkflow = None,
    status: OfStatus = None,
    since: Since = None,
    until: Until = None,
    label: WithLabel = None,
    search: Search = None,
    failed_step: FailedStep = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
) -> None:
    """List executions, the newest first."""
    options = options_of(context)
    query = selection(options.workspace, workflow, status, (since, until), label, search, failed_step)
    listing(options, with_api(options, lambda api: selected(api, query, limit)), _COLUMNS, "no executions")


@app.command()
def show(context: typer.Context, id: ExecutionArgument) -> None:
    """Print an execution with its steps and results."""
    options = options_of(context)
    document = with_api(options, lambda api: api.execution(ExecutionId(id)))
    emit(options, document, summary(document))


@app.command()
def events(
    context: typer.Context,
    id: ExecutionArgument,
    after: Annotated[int, typer.Option(min=0, help="Only entries behind this number.")] = 0,
) -> None:
    """Print the history of an execution."""
    options = options_of(context)

    async def work(api: ControlPlaneApi) -> list[Document]:
        found: list[Document] = []
        while True:
            page = await api.history(ExecutionId(id), found[-1]["seq"] if found else after)
            found += page.items
            if page.next is None or not page.items:
                return found

    listing(options, with_api(options, work), ("seq", "at", "type", "path", "runtime", "attempt"), "no events")


@app.command()
def explain(
    context: typer.Context,
    id: ExecutionArgument,
    step: Annotated[str, typer.Argument(metavar="STEP")],
    flips: Annotated[bool, typer.Option("--flips", help="And what would bring it elsewhere now.")] = False,
) -> None:
    """Say why a step went where it did, or why it waits."""
    options = options_of(context)
    document = with_api(options, lambda api: api.explain(ExecutionId(id), step, flips))
    emit(options, document, _explanation(document))


def _explanation(document: Document) -> list[str]:
    placement = document.get("placement") or {}
    lines = [f"{document['path']}: {placement.get('chosen') or 'not placed'}"]
    lines += [f"  {clean(str(each))}" for each in document.get("sentences") or [why(placement)] if each]
    if document.get("waiting_for"):
        lines.append(f"  waits for {clean(str(document['waiting_for']))}")
    lines += [f"  as things are now: {clean(str(each['text']))}" for each in document.get("flips") or ()]
    if document.get("flips") == []:
        lines.append("  as things are now, no single change of size, queue, price or health would bring it elsewhere")
    return lines


app.command()(bulk.cancel)
app.command()(bulk.retry)
