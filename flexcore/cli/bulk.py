"""Acting on many executions: each is cancelled or run again by itself, and what became of each is told.

Which ones is settled before the first is touched; a refusal of one does not stop the others.
"""

import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Annotated

import typer

from flexcore.cli.follow import follow
from flexcore.cli.options import Options, options_of
from flexcore.cli.render import listing, say
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
from flexcore.cli.summary import exit_code_of
from flexcore.model.errors import FlexCoreError, InvalidRequest, LimitExceeded
from flexcore.model.ids import ExecutionId
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.requests import ControlPlaneApi, Document, ExecutionQuery, RetryRequest

Yes = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Only say which executions it is about.")]

_MOST = 10_000
_AT_A_TIME = 20  # embedded, this process does all the work
_COLUMNS = ("id", "workflow", "status", "outcome")
_OF_A_DRY_RUN = ("id", "workflow", "status", "created_at")

Act = Callable[[ControlPlaneApi, Document], Awaitable[str]]


def cancel(
    context: typer.Context,
    workflow: OfWorkflow = None,
    status: OfStatus = None,
    since: Since = None,
    until: Until = None,
    label: WithLabel = None,
    search: Search = None,
    reason: Annotated[str, typer.Option(help="Kept in every history.")] = "cancelled together with others",
    all_: Annotated[bool, typer.Option("--all", help="All that have not ended.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Cancel every execution that fits and has not ended."""
    options = options_of(context)
    query = selection(options.workspace, workflow, status, (since, until), label, search, None)
    if not (all_ or workflow or status or since or until or label or search):
        raise InvalidRequest("which executions?", hint="give a condition such as --workflow, or --all")
    if status is not None and status.is_terminal:
        raise InvalidRequest(f"what is {status.value} has ended and cannot be cancelled")

    async def one(api: ControlPlaneApi, document: Document) -> str:
        await api.cancel(ExecutionId(document["id"]), reason)
        return "cancel requested"

    async def work(api: ControlPlaneApi) -> None:
        found = await _all(api, replace(query, unfinished=True))
        if not _settled(options, found, "cancel", yes, dry_run):
            return
        outcomes = [await _outcome(api, each, one) for each in found]
        told = [each for each in outcomes if each["error"] is None]
        ended = await follow(api, [ExecutionId(each["id"]) for each in told], options) if told else []
        became = {each.document["id"]: each.document["status"] for each in ended}
        for each in told:
            each["status"] = became[each["id"]]
        listing(options, outcomes, _COLUMNS, "no executions")
        raise typer.Exit(2 if len(told) < len(outcomes) else 0)

    with_api(options, work)


def retry(
    context: typer.Context,
    workflow: OfWorkflow = None,
    status: OfStatus = ExecutionStatus.FAILED,
    since: Since = None,
    until: Until = None,
    label: WithLabel = None,
    search: Search = None,
    failed_step: FailedStep = None,
    everything: Annotated[bool, typer.Option("--everything", help="Use no result again.")] = False,
    yes: Yes = False,
    dry_run: DryRun = False,
) -> None:
    """Run every execution again that fits and has failed, each as a new, linked one, and stay until they have ended."""
    options = options_of(context)
    query = selection(options.workspace, workflow, status, (since, until), label, search, failed_step)
    if not (workflow or since or until or label or search or failed_step):
        raise InvalidRequest("which executions?", hint="give a condition such as --workflow W or --since 1d")

    async def one(api: ControlPlaneApi, document: Document) -> str:
        # Another process may be at the same at this moment: the second gets what the first has started.
        id, key = ExecutionId(document["id"]), f"retry of {document['id']}"
        return (await api.retry(RetryRequest(id=id, everything=everything, idempotency_key=key))).id

    async def work(api: ControlPlaneApi) -> None:
        found = await _not_retried(api, query)
        if _settled(options, found, "run again", yes, dry_run):
            await _run_again(api, found, one, options)

    with_api(options, work)


async def _not_retried(api: ControlPlaneApi, query: ExecutionQuery) -> list[Document]:
    """Leave out what has been run again already: if that failed too, it is among the executions itself."""
    found = await _all(api, query)
    if not found:
        return []
    begun = datetime.fromisoformat(found[-1]["created_at"])
    later = await _all(api, ExecutionQuery(workspace=query.workspace, workflow=query.workflow, since=begun))
    run_again = {each["forked_from"] for each in later}
    return [each for each in found if each["id"] not in run_again]


async def _all(api: ControlPlaneApi, query: ExecutionQuery) -> list[Document]:
    """Give every execution of a query: acting on some of them would leave the rest out in silence."""
    found = await selected(api, query, _MOST + 1)
    if len(found) > _MOST:
        raise LimitExceeded(
            "too many executions at once", limit=_MOST, actual=len(found), hint="ask for fewer by --since and --until"
        )
    return found


async def _run_again(api: ControlPlaneApi, found: Sequence[Document], one: Act, options: Options) -> None:
    outcomes: list[Document] = []
    ended: list[Document] = []
    for begin in range(0, len(found), _AT_A_TIME):
        started = [await _outcome(api, each, one) for each in found[begin : begin + _AT_A_TIME]]
        ids = [ExecutionId(each["outcome"]) for each in started if each["error"] is None]
        ended += [each.document for each in await follow(api, ids, options)] if ids else []
        outcomes += started
    became = {document["id"]: document["status"] for document in ended}
    for each in outcomes:
        each["outcome"] = f"{became[each['outcome']]}: {each['outcome']}" if each["error"] is None else each["outcome"]
    listing(options, outcomes, _COLUMNS, "no executions")
    refused = any(each["error"] for each in outcomes)
    raise typer.Exit(exit_code_of(ended) or (2 if refused else 0))


async def _outcome(api: ControlPlaneApi, document: Document, act: Act) -> Document:
    line = {"id": document["id"], "workflow": document["workflow"], "status": document["status"]}
    try:
        return {**line, "outcome": await act(api, document), "error": None}
    except FlexCoreError as error:
        return {**line, "outcome": f"refused: {error.message}", "error": error.code}


def _settled(options: Options, found: Sequence[Document], verb: str, yes: bool, dry_run: bool) -> bool:
    """Say whether to go on: nobody acts on many executions by accident."""
    if dry_run or not found:
        listing(options, found, _OF_A_DRY_RUN, "no executions")
        return False
    if yes:
        return True
    if not sys.stdin.isatty():
        hint = "see which with --dry-run, then say --yes"
        raise InvalidRequest(f"this would {verb} {_counted(found)}, and nobody can be asked", hint=hint)
    for each in found[:10]:
        say(f"  {each['id']}  {each['workflow']}  {each['status']}")
    if not typer.confirm(f"{verb} {_counted(found)}?", err=True):
        raise InvalidRequest("nothing was done")
    return True


def _counted(found: Sequence[Document]) -> str:
    return f"{len(found)} execution" if len(found) == 1 else f"{len(found)} executions"
