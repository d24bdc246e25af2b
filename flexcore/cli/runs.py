"""The commands of `flexcore workflow` that start, follow and end executions."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from flexcore.cli.follow import finished, follow
from flexcore.cli.log_lines import LogLine, LogLines, records
from flexcore.cli.options import Options, Output, options_of
from flexcore.cli.parameters import json_argument, merged
from flexcore.cli.render import emit, say
from flexcore.cli.resolve import deployed
from flexcore.cli.session import settings_of, with_api
from flexcore.cli.summary import exit_code_of, headline, step_table, summary, waits
from flexcore.language.document import compose
from flexcore.language.findings import Findings
from flexcore.language.nodes import plain
from flexcore.model.errors import InvalidRequest
from flexcore.model.ids import ExecutionId
from flexcore.model.log_records import LogLevel, is_as_severe
from flexcore.model.requests import ControlPlaneApi, Document, RetryRequest, Started, StartRequest, labels_in
from flexcore.model.units import parse_duration
from flexcore.model.values import JSON

ExecutionArgument = Annotated[str, typer.Argument(metavar="ID", help="Id of an execution (exe_…).")]
NoWait = Annotated[bool, typer.Option("--no-wait", help="Give the id and do not follow it. Needs a server.")]


def execute(
    context: typer.Context,
    name: Annotated[str, typer.Argument(metavar="NAME|FILE", help="A file, a deployed workflow, or a template.")],
    parameter: Annotated[list[str] | None, typer.Option("-p", metavar="KEY=VALUE", help="One input value.")] = None,
    parameters: Annotated[str | None, typer.Option(metavar="JSON|@FILE", help="The whole input.")] = None,
    runtime: Annotated[str | None, typer.Option(help="Runtime for every step that it can run.")] = None,
    idempotency_key: Annotated[str | None, typer.Option(help="Starting again with this key starts nothing.")] = None,
    no_wait: NoWait = False,
    timeout: Annotated[str | None, typer.Option(metavar="DURATION", help="Time for the whole, such as 30m.")] = None,
    label: Annotated[list[str] | None, typer.Option(metavar="KEY=VALUE", help="To find the execution by.")] = None,
) -> None:
    """Run a workflow, showing how it goes, and print its result."""
    options = options_of(context)
    _can_leave(options, no_wait)
    whole = None if parameters is None else json_argument(parameters, "--parameters")
    limit = None if timeout is None else duration_option(timeout, "--timeout")
    labels = labels_in(label or ())
    preset = settings_of(options).workflow_templates.get(name)
    pinned = runtime or (preset.runtime if preset is not None else "") or None

    async def work(api: ControlPlaneApi) -> None:
        workflow = await deployed(api, name, Path.cwd(), options)
        request = StartRequest(
            workflow=workflow["name"],
            version=workflow["version"],
            workspace=options.workspace,
            input=merged(whole, parameter or [], _schema(workflow) if parameter else None),
            labels=labels,
            runtime=pinned,
            idempotency_key=idempotency_key,
            timeout=limit,
        )
        await stay(api, await api.start(request), options, no_wait, pinned)

    with_api(options, work)


def status(context: typer.Context, id: ExecutionArgument) -> None:
    """Say in short how an execution stands."""
    options = options_of(context)
    document = with_api(options, lambda api: api.execution(ExecutionId(id)))
    emit(options, document, [headline(document), "", *step_table(document), *waits(document)])


def logs(
    context: typer.Context,
    id: ExecutionArgument,
    step: Annotated[str | None, typer.Argument(metavar="[STEP]", help="Path of one step.")] = None,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay until the execution has ended.")] = False,
    level: Annotated[LogLevel | None, typer.Option(help="Only JSON log lines of this level or a higher one.")] = None,
) -> None:
    """Print what steps have written."""
    options = options_of(context)

    async def work(api: ControlPlaneApi) -> None:
        from flexcore.cli.output import pieces  # brings asyncio, which other commands may not need

        if options.output is not Output.TEXT:
            found = [piece async for piece in pieces(api, ExecutionId(id), step, follow)]
            emit(options, found if level is None else records(found, level), "")
            return
        output = LogLines()
        async for piece in pieces(api, ExecutionId(id), step, follow):
            _print(str(piece.get("path", "")), output.take(piece), step, level)
        for path in output.open_paths():
            _print(path, output.rest(path), step, level)

    with_api(options, work)


def wait(context: typer.Context, id: ExecutionArgument) -> None:
    """Follow an execution to its end; the exit code says how it ended."""
    options = options_of(context)
    with_api(options, lambda api: finished(api, ExecutionId(id), options))


def cancel(
    context: typer.Context,
    id: ExecutionArgument,
    reason: Annotated[str, typer.Option(help="Kept in the history.")] = "cancelled from the command line",
    no_wait: Annotated[bool, typer.Option("--no-wait", help="Do not wait for the end to be confirmed.")] = False,
) -> None:
    """End an execution: its running steps too. Waits until that is confirmed."""
    options = options_of(context)

    async def work(api: ControlPlaneApi) -> Document:
        await api.cancel(ExecutionId(id), reason)
        return await api.execution(ExecutionId(id)) if no_wait else await _end(api, ExecutionId(id), options)

    document = with_api(options, work)
    emit(options, document, headline(document))


def retry(
    context: typer.Context,
    id: ExecutionArgument,
    from_step: Annotated[str | None, typer.Option("--from", metavar="STEP", help="Where to begin again.")] = None,
    result: Annotated[
        list[str] | None, typer.Option("--set-result", metavar="STEP=JSON", help="Result of a step that failed.")
    ] = None,
    reason: Annotated[str, typer.Option(metavar="TEXT", help="Why a result is given by hand.")] = "",
    no_wait: NoWait = False,
) -> None:
    """Run again as a new, linked execution that reuses the results above the failed, or the given, step."""
    results = _results_given(result or ())
    _run_again(context, RetryRequest(id=ExecutionId(id), from_step=from_step, results=results, reason=reason), no_wait)


def rerun(
    context: typer.Context,
    id: ExecutionArgument,
    newest: Annotated[bool, typer.Option("--newest", help="With the version that new executions take.")] = False,
    no_wait: NoWait = False,
) -> None:
    """Run all of it again with the same input, as a new, linked execution."""
    _run_again(context, RetryRequest(id=ExecutionId(id), everything=True, newest=newest), no_wait)


def _results_given(pairs: Sequence[str]) -> dict[str, JSON]:
    results: dict[str, JSON] = {}
    for pair in pairs:
        step, equals, text = pair.partition("=")
        if not equals or not step:
            raise InvalidRequest(f"--set-result {pair} has no result", hint="write --set-result 'step={\"rows\": 3}'")
        if step in results:
            raise InvalidRequest(f"--set-result gives step '{step}' two results", hint="give it one")
        results[step] = json_argument(text, f"--set-result {step}")
    return results


def _run_again(context: typer.Context, request: RetryRequest, no_wait: bool) -> None:
    options = options_of(context)
    _can_leave(options, no_wait)

    async def work(api: ControlPlaneApi) -> None:
        await stay(api, await api.retry(request), options, no_wait)

    with_api(options, work)


def resume(context: typer.Context) -> None:
    """Take up every execution that was left unfinished and stay until they have ended."""
    options = options_of(context)

    async def work(api: ControlPlaneApi) -> None:
        ids = await api.resume()
        say(f"resuming {', '.join(ids)}" if ids else "nothing to resume")
        followed = await follow(api, ids, options) if ids else []
        documents = [each.document for each in followed]
        text = [line for each in followed for line in [*summary(each.document, each.tail), ""]]
        emit(options, documents, text)
        raise typer.Exit(exit_code_of(documents))

    with_api(options, work)


async def stay(
    api: ControlPlaneApi, started: Started, options: Options, no_wait: bool, pinned: str | None = None
) -> None:
    """Follow what was just started, or give its id and leave."""
    if started.existing:
        say(f"the idempotency key belongs to {started.id}, started before")
    if no_wait:
        emit(options, {"id": started.id, "existing": started.existing}, started.id)
        return
    await finished(api, started.id, options, pinned)


async def _end(api: ControlPlaneApi, id: ExecutionId, options: Options) -> Document:
    (followed,) = await follow(api, [id], options)
    return followed.document


def duration_option(text: str, option: str, *, zero: bool = False) -> Any:
    """Read the duration of an option. Raises InvalidRequest."""
    try:
        return parse_duration(text, zero=zero)
    except ValueError as error:
        raise InvalidRequest(f"{option}: {error}") from error


def _can_leave(options: Options, no_wait: bool) -> None:
    if no_wait and not options.server:
        raise InvalidRequest(
            "--no-wait needs a server: without one, this process does the work",
            hint="start `flexcore server` and give --server, or let the command run",
        )


def _schema(workflow: Document) -> Any:
    root, _ = compose(str(workflow.get("text", "")), Findings("workflow"))
    document = None if root is None else plain(root)
    schema = document.get("inputs") if isinstance(document, dict) else None
    return schema if isinstance(schema, dict) else None


def _print(path: str, lines: Sequence[LogLine], step: str | None, least: LogLevel | None) -> None:
    for line in lines:
        if least is None or is_as_severe(line.level, least):
            typer.echo(line.coloured() if step is not None else f"{path} | {line.coloured()}")
