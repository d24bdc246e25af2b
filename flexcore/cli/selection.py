"""Which executions a command is about: the same options for listing, cancelling and running again."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated

import typer

from flexcore.cli.paging import gathered
from flexcore.model.errors import InvalidRequest
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.requests import ControlPlaneApi, Document, ExecutionQuery, labels_in
from flexcore.model.units import parse_duration

OfWorkflow = Annotated[str | None, typer.Option("--workflow", metavar="W", help="Only of this workflow.")]
OfStatus = Annotated[ExecutionStatus | None, typer.Option("--status", help="Only with this status.")]
Since = Annotated[str | None, typer.Option("--since", metavar="D", help="A duration back (2h), or a time.")]
Until = Annotated[str | None, typer.Option("--until", metavar="D", help="Before that: a duration back, or a time.")]
WithLabel = Annotated[list[str] | None, typer.Option("--label", metavar="KEY=VALUE", help="Only with this label.")]
Search = Annotated[str | None, typer.Option("--search", metavar="TEXT", help="Text in id, workflow or error.")]
FailedStep = Annotated[str | None, typer.Option("--failed-step", metavar="STEP", help="Only where it failed.")]


def selection(
    workspace: str,
    workflow: str | None,
    status: ExecutionStatus | None,
    times: tuple[str | None, str | None],
    labels: Sequence[str] | None,
    search: str | None,
    failed_step: str | None,
) -> ExecutionQuery:
    """Make a query of the options. `times` are `--since` and `--until`. Raises InvalidRequest."""
    since, until = times
    return ExecutionQuery(
        workspace=workspace,
        workflow=workflow,
        status=status,
        since=None if since is None else moment_option(since, "--since"),
        until=None if until is None else moment_option(until, "--until"),
        labels=labels_in(labels or ()),
        search=search,
        failed_step=failed_step,
    )


async def selected(api: ControlPlaneApi, query: ExecutionQuery, limit: int) -> list[Document]:
    """Give the executions of a query, the newest first, at most `limit`."""
    return await gathered(lambda most, cursor: api.executions(replace(query, limit=most, cursor=cursor)), limit)


def moment_option(text: str, option: str) -> datetime:
    """Read a time, or how long ago. Raises InvalidRequest."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        return _ago(text, option)
    try:
        return moment.astimezone(UTC)
    except (ValueError, OverflowError) as error:  # at the very ends of the calendar
        raise InvalidRequest(f"{option}: {text} is out of range") from error


def _ago(text: str, option: str) -> datetime:
    try:
        return datetime.fromtimestamp(time.time(), UTC) - parse_duration(text)
    except ValueError as error:
        raise InvalidRequest(f"{option}: {error}", hint="or a time such as 2026-12-01T00:00:00Z") from error
