"""`flexcore runtime …`: the places that run work."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer

from flexcore.cli import benchmarking
from flexcore.cli.options import options_of
from flexcore.cli.parameters import json_argument
from flexcore.cli.render import clean, emit, listing, painted, pretty, size
from flexcore.cli.runs import NoWait, duration_option, stay
from flexcore.cli.session import with_api
from flexcore.cli.sweeping import swept_lines
from flexcore.model.errors import InternalError, InvalidDefinition, InvalidInput, InvalidRequest, RuntimeUnavailable
from flexcore.model.requests import ControlPlaneApi, Document, TaskRequest

app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The places that run work.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of a runtime.")]
_SIZES = ("memory", "disk")
_COLUMNS = ("name", "type", "enabled", "priority", "health.state", "step_kinds", "health.reason")


@app.command("list")
def list_(context: typer.Context) -> None:
    """List the runtimes."""
    options = options_of(context)
    items = with_api(options, lambda api: api.runtimes())
    listing(options, items, _COLUMNS, "no runtimes are configured")


@app.command()
def health(context: typer.Context, name: Annotated[str | None, typer.Argument(metavar="[NAME]")] = None) -> None:
    """Ask runtimes how they are."""
    options = options_of(context)

    async def work(api: ControlPlaneApi) -> list[Document]:
        return [await api.runtime(name)] if name is not None else list(await api.runtimes())

    found = [{"name": each["name"], **_health(each)} for each in with_api(options, work)]
    lines = [
        f"{each['name']}: {painted(str(each.get('state')))}: {clean(str(each.get('reason', '')))}" for each in found
    ]
    emit(options, found[0] if name is not None else found, lines)


@app.command()
def capabilities(context: typer.Context, name: NameArgument) -> None:
    """Say what a runtime can do."""
    options = options_of(context)
    document = with_api(options, lambda api: api.runtime(name))
    found: Any = document.get("capabilities") or {}
    if error := found.get("error"):
        broken = error["code"] == InternalError.code
        raise (InternalError if broken else RuntimeUnavailable)(error["message"], hint=error["hint"])
    emit(options, found, _capabilities_text(found))


@app.command()
def execute(
    context: typer.Context,
    name: NameArgument,
    type: Annotated[str, typer.Option(metavar="T", help="Type of the step, such as bash.")],
    parameters: Annotated[str, typer.Option("--with", metavar="JSON|@FILE", help="The step's `with`.")] = "{}",
    no_wait: NoWait = False,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="Time limit, such as 30m.")] = None,
) -> None:
    """Run one task on one runtime, without a workflow file."""
    options = options_of(context)
    if no_wait and not options.server:
        raise InvalidRequest("--no-wait needs a server: without one, this process does the work", hint="give --server")
    given = json_argument(parameters, "--with")
    if not isinstance(given, dict):
        raise InvalidInput("--with is a JSON object", hint='for example \'{"script": "echo hi"}\'')
    limit = None if timeout is None else duration_option(timeout, "--timeout")
    request = TaskRequest(runtime=name, type=type, parameters=given, workspace=options.workspace, timeout=limit)

    async def work(api: ControlPlaneApi) -> None:
        try:
            started = await api.execute_task(request)
        except InvalidDefinition as error:
            raise _as_given(error) from error
        await stay(api, started, options, no_wait)

    with_api(options, work)


@app.command()
def cleanup(
    context: typer.Context,
    name: NameArgument,
    orphans: Annotated[bool, typer.Option("--orphans", help="End and remove them; without, they are listed.")] = False,
) -> None:
    """Find what attempts left on a runtime that nobody will ask for again, and with --orphans remove it."""
    options = options_of(context)
    document = with_api(options, lambda api: api.cleanup_runtime(name, dry_run=not orphans))
    emit(options, document, [*swept_lines(document)])
    if orphans and not all(each["gone"] for each in document["orphans"]):
        raise typer.Exit(1)


app.command()(benchmarking.benchmark)


@app.command()
def test(
    context: typer.Context,
    name: NameArgument,
    check: Annotated[str, typer.Option(metavar="GLOB", help="Only the checks whose names match.")] = "*",
) -> None:
    """Hold the conformance kit against a runtime: does it keep all rules?"""
    from flexcore.cli.certify import certify  # brings the kit

    if not certify(options_of(context), name, check):
        raise typer.Exit(1)


@app.command()
def serve(
    context: typer.Context,
    name: NameArgument,
    listen: Annotated[str, typer.Option(metavar="ADDR", help="Where to listen.")] = "127.0.0.1:9191",
    tls_cert: Annotated[Path | None, typer.Option(metavar="FILE", help="Certificate with its chain, PEM.")] = None,
    tls_key: Annotated[Path | None, typer.Option(metavar="FILE", help="Its key, PEM.")] = None,
    client_ca: Annotated[Path | None, typer.Option(metavar="FILE", help="Callers need a certificate by it.")] = None,
    token_file: Annotated[Path | None, typer.Option(metavar="FILE", help="Has the token that callers send.")] = None,
) -> None:
    """Let control planes elsewhere use a runtime of this machine, by their runtime of type `remote`."""
    from flexcore.cli import serving  # brings gRPC

    given = serving.Serving(
        listen=listen, certificate=tls_cert, key=tls_key, client_ca=client_ca, token_file=token_file
    )
    serving.serve(options_of(context), name, given)


def _as_given(error: InvalidDefinition) -> InvalidInput:
    """Name the option instead of a place in the workflow that was made of it."""
    told = [
        f"{'--type' if each.code == 'unknown-type' else '--with'}: {each.message}"
        + (f" ({each.hint})" if each.hint else "")
        for each in error.diagnostics
    ]
    return InvalidInput("; ".join(told))


def _health(runtime: Document) -> Document:
    found = runtime.get("health")
    return dict(found) if isinstance(found, dict) else {}


def _capabilities_text(found: Document) -> Iterator[str]:
    """Say for people what a runtime can do; remarks that adapters keep among the versions stand by themselves."""
    limits, told = dict(found.get("limits") or {}), dict(found.get("versions") or {})
    sizes = {key: size(limits[key]) for key in _SIZES if limits.get(key) is not None}
    notes = {key: value for key, value in told.items() if " " in value}
    versions = {key: value for key, value in told.items() if key not in notes}
    for key, value in {**found, "limits": {**limits, **sizes}, "versions": versions}.items():
        if value is not None:
            yield f"{key.replace('_', ' ')}: {_short(value)}"
    yield from (clean(f"note on {key}: {value}") for key, value in notes.items())


def _short(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items() if each is not None) or "none"
    return pretty(value)
