"""`flexcore gc` and `flexcore audit`: what is old, and who changed what."""

from dataclasses import replace
from typing import Annotated, Any

import typer

from flexcore.cli.options import options_of
from flexcore.cli.paging import gathered
from flexcore.cli.render import clean, count, emit, pretty, size, table
from flexcore.cli.runs import duration_option
from flexcore.cli.selection import moment_option
from flexcore.cli.session import with_api
from flexcore.model.requests import AuditQuery, Collectable, CollectRequest, ControlPlaneApi, Document

app = typer.Typer(rich_markup_mode=None, add_completion=False)


@app.command("gc")
def collect(
    context: typer.Context,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would go.")] = False,
    older_than: Annotated[
        str | None, typer.Option(metavar="D", help="An age, such as 7d, instead of those in the settings.")
    ] = None,
    kind: Annotated[
        list[Collectable] | None, typer.Option(help="Only this kind; may be repeated. versions: only when named.")
    ] = None,
) -> None:
    """Remove what is old and needed by nobody: executions, logs, content, cached results, lines of the audit trail."""
    options = options_of(context)
    request = CollectRequest(
        kinds=frozenset(kind or ()),
        older_than=None if older_than is None else duration_option(older_than, "--older-than", zero=True),
        dry_run=dry_run,
    )
    document = with_api(options, lambda api: api.collect(request))
    rows = [
        (each["kind"], count(each["count"]), size(each["bytes"]), each["before"], each["note"])
        for each in document["kinds"]
    ]
    total = f"{count(document['count'])} things, {size(document['bytes'])}"
    lines = table(("KIND", "COUNT", "BYTES", "OLDER THAN", ""), rows, right=(1, 2))
    emit(options, document, [*lines, f"{total} would go" if dry_run else f"{total} are gone"])


@app.command()
def audit(
    context: typer.Context,
    since: Annotated[str | None, typer.Option(metavar="D", help="A duration back (2h), or a time.")] = None,
    actor: Annotated[str | None, typer.Option(metavar="A", help="Only what this actor did.")] = None,
    subject: Annotated[
        str | None, typer.Option(metavar="S", help="Only about this execution, or workflow with its executions.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many lines.")] = 50,
) -> None:
    """Say who changed what, the newest first."""
    options = options_of(context)
    after = None if since is None else moment_option(since, "--since")
    query = AuditQuery(workspace=options.workspace, since=after, actor=actor, subject=subject)

    async def work(api: ControlPlaneApi) -> list[Document]:
        return await gathered(lambda most, cursor: api.audit(replace(query, limit=most, cursor=cursor)), limit)

    lines = with_api(options, work)
    rows = [
        (each["at"], each["actor"], each["action"], each["subject"], each["outcome"], _details(each)) for each in lines
    ]
    header = ("AT", "ACTOR", "ACTION", "SUBJECT", "OUTCOME", "DETAILS")
    emit(options, lines, table(header, rows) if rows else "nothing was changed")


def _details(line: Document) -> str:
    return clean(" ".join(f"{name}={_detail(value)}" for name, value in line["details"].items()))


def _detail(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else pretty(value)
