"""Reading the output of steps page by page, to its end or as long as more may come."""

import asyncio
from collections.abc import AsyncGenerator

from flexcore.model.ids import ExecutionId
from flexcore.model.requests import ControlPlaneApi, Document

_PAUSE_SECONDS = 0.3


async def pieces(api: ControlPlaneApi, id: ExecutionId, step: str | None, stay: bool) -> AsyncGenerator[Document, None]:
    """Give pieces of output in the order written. With `stay`, asks again until nothing more will come."""
    cursor: str | None = None
    while True:
        page = await api.logs(id, step, cursor)
        for piece in page.pieces:
            yield piece
        moved = page.next is not None and page.next != cursor
        cursor = page.next or cursor
        if page.ended and not (moved and page.pieces):
            return
        if not page.pieces:
            if not stay:
                return
            # The log store has nothing to wake a reader with, at a distance least of all.
            await asyncio.sleep(_PAUSE_SECONDS)
