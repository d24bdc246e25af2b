"""Lists that come in pages, put together as far as a person wants them."""

from collections.abc import Awaitable, Callable

from flexcore.model.requests import Document, Page

_PAGE = 100


async def gathered(ask: Callable[[int, str | None], Awaitable[Page[Document]]], limit: int) -> list[Document]:
    """Give the first `limit` documents. `ask` is given how many are wanted of a page, and where it begins."""
    found: list[Document] = []
    cursor: str | None = None
    while len(found) < limit:
        page = await ask(min(_PAGE, limit - len(found)), cursor)
        found += page.items
        if (cursor := page.next) is None:
            break
    return found
