"""Staying with executions until they end, showing how they go; and what is said when the person leaves first."""

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

import typer

from flexcore.cli.options import Options
from flexcore.cli.progress import Display, display
from flexcore.cli.render import emit, say
from flexcore.cli.summary import exit_code_of, summary
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import ControlPlaneApi, Document


@dataclass(frozen=True, slots=True)
class Followed:
    """An execution that was watched to its end, and the last lines of the step that failed it."""

    document: Document
    tail: Sequence[str] = ()


async def follow(api: ControlPlaneApi, ids: Sequence[ExecutionId], options: Options) -> list[Followed]:
    """Watch executions to their ends. Cancelling this detaches."""
    try:
        with display(options) as shown:
            async with asyncio.TaskGroup() as group:
                for id in ids:
                    group.create_task(_watch(api, id, shown))
    except asyncio.CancelledError:
        say(_detached(ids, options))
        raise
    return [_followed(await api.execution(id), shown) for id in ids]


async def finished(api: ControlPlaneApi, id: ExecutionId, options: Options, pinned: str | None = None) -> None:
    """Follow one execution, print its result and exit with its code. `pinned` is the runtime that was asked for."""
    (followed,) = await follow(api, [id], options)
    emit(options, followed.document, summary(followed.document, followed.tail, pinned))
    raise typer.Exit(exit_code_of([followed.document]))


def _followed(document: Document, shown: Display) -> Followed:
    step = (document.get("error") or {}).get("step")
    return Followed(document, shown.tail(document["id"], step) if step else ())


async def _watch(api: ControlPlaneApi, id: ExecutionId, shown: Display) -> None:
    shown.begin(id, await api.execution(id))
    async with aclosing(api.watch(id)) as events:
        async for event in events:
            shown.take(id, event)


def _detached(ids: Sequence[ExecutionId], options: Options) -> str:
    cancel = ", ".join(f"flexcore workflow cancel {id}" for id in ids)
    if options.server:
        again = ", ".join(f"flexcore workflow wait {id}" for id in ids)
        return f"detached: the server goes on\n  follow again: {again}\n  end it: {cancel}"
    return f"detached: work that has begun goes on\n  finish it: flexcore workflow resume\n  end it: {cancel}"
