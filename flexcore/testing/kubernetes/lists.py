"""Lists and watches: pages, versions, selectors, bookmarks, and the ends of watches."""

import asyncio
import base64
import json
import secrets
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass

from starlette.responses import StreamingResponse

from flexcore.testing.kubernetes.refusal import Refusal, expired
from flexcore.testing.kubernetes.resources import Item, Resource
from flexcore.testing.kubernetes.selectors import Predicate, selector
from flexcore.testing.kubernetes.store import Change, Store

_BOOKMARK_S = 1.0
_FUTURE_S = 3.0
_INITIAL_EVENTS_END = {"k8s.io/initial-events-end": "true"}


@dataclass(frozen=True, slots=True)
class _Page:
    version: str
    left: list[Item]


@dataclass(frozen=True, slots=True)
class _Wish:
    """What a watch is to give."""

    resource: Resource
    namespace: str
    matches: Predicate
    since: str
    seconds: float
    bookmarks: bool
    initial: bool


class Lists:
    """Serves lists and watches from the store. `watch_s` is how long a watch lasts that does not say."""

    def __init__(self, store: Store, watch_s: float, scale: float) -> None:
        self._store = store
        self._watch_s = watch_s
        self._scale = scale
        self._pages: dict[str, _Page] = {}
        self._open = asyncio.Event()  # set when the watches of now are to be closed

    def close_watches(self) -> None:
        """End all watches, cleanly."""
        self._open.set()
        self._open = asyncio.Event()

    def forget_pages(self) -> None:
        """Know no continuation of before, as a server that was started anew."""
        self._pages = {}

    async def list(self, resource: Resource, namespace: str, params: Mapping[str, str]) -> Item:
        """Give a list, or a page of one."""
        await self._check_version(params)
        matches = selector(resource, params.get("labelSelector", ""), params.get("fieldSelector", ""))
        found = [each for each in self._store.items(resource, namespace) if matches(each)]
        page = self._page(params, _Page(str(self._store.version), found))
        metadata: Item = {"resourceVersion": page.version}
        limit = int(params.get("limit") or 0)
        shown = page.left[:limit] if limit else page.left
        if len(page.left) > len(shown):
            token = base64.b64encode(secrets.token_bytes(12)).decode()
            self._pages[token] = _Page(page.version, page.left[limit:])
            metadata["continue"] = token
            if not params.get("labelSelector") and not params.get("fieldSelector"):
                metadata["remainingItemCount"] = len(page.left) - len(shown)
        items = [{key: value for key, value in each.items() if key not in ("kind", "apiVersion")} for each in shown]
        kind = {"kind": f"{resource.kind}List", "apiVersion": resource.api_version}
        return {**kind, "metadata": metadata, "items": items}

    def watch(self, resource: Resource, namespace: str, params: Mapping[str, str]) -> StreamingResponse:
        """Open a watch."""
        since = params.get("resourceVersion", "")
        if since and not since.isdecimal():
            raise Refusal(500, "InternalError", f'strconv.ParseUint: parsing "{since}": invalid syntax')
        wish = _Wish(
            resource=resource,
            namespace=namespace,
            matches=selector(resource, params.get("labelSelector", ""), params.get("fieldSelector", "")),
            since=since,
            seconds=float(params.get("timeoutSeconds") or self._watch_s * (1 + secrets.randbelow(1000) / 1000)),
            bookmarks=params.get("allowWatchBookmarks") in ("true", "1"),
            initial=params.get("sendInitialEvents") in ("true", "1"),
        )
        return StreamingResponse(self._stream(wish), media_type="application/json")

    def _page(self, params: Mapping[str, str], fresh: _Page) -> _Page:
        token = params.get("continue")
        if not token:
            return fresh
        if token not in self._pages:
            message = "The provided continue parameter is too old to display a consistent list result."
            raise Refusal(410, "Expired", message)
        return self._pages[token]

    async def _check_version(self, params: Mapping[str, str]) -> None:
        wanted = params.get("resourceVersion") or "0"
        if not wanted.isdecimal():
            raise Refusal(400, "BadRequest", f'invalid resource version "{wanted}"')
        current = self._store.version
        if int(wanted) > current:
            await asyncio.sleep(_FUTURE_S * self._scale)
            message = f"Too large resource version: {wanted}, current: {current}"
            cause = {"reason": "ResourceVersionTooLarge", "message": "Too large resource version"}
            refusal = Refusal(504, "Timeout", message, {"causes": [cause], "retryAfterSeconds": 1})
            refusal.headers = {"Retry-After": "1"}
            raise refusal
        if params.get("resourceVersionMatch") == "Exact" and int(wanted) != current:
            raise expired(int(wanted), current)

    async def _stream(self, wish: _Wish) -> AsyncGenerator[bytes, None]:
        queue: asyncio.Queue[bytes | None] = asyncio.Queue()
        producer = asyncio.create_task(self._produce(wish, queue))
        closing = asyncio.create_task(self._close(wish, queue))
        try:
            while (line := await queue.get()) is not None:
                yield line
        finally:
            producer.cancel()
            closing.cancel()

    async def _close(self, wish: _Wish, queue: asyncio.Queue[bytes | None]) -> None:
        closed = self._open
        waited = 0.0
        if wish.bookmarks and wish.seconds > _BOOKMARK_S:
            waited = _BOOKMARK_S
            await asyncio.sleep(_BOOKMARK_S)
            queue.put_nowait(self._bookmark(wish))
        try:
            async with asyncio.timeout(wish.seconds - waited):
                await closed.wait()
        except TimeoutError:
            if wish.bookmarks:
                queue.put_nowait(self._bookmark(wish))
        queue.put_nowait(None)

    async def _produce(self, wish: _Wish, queue: asyncio.Queue[bytes | None]) -> None:
        version = int(wish.since or 0)
        if version and version < self._store.floor:
            queue.put_nowait(_line("ERROR", expired(version, self._store.floor).status()))
            queue.put_nowait(None)
            return
        if version == 0 or wish.initial:
            version = self._store.version
            for item in self._store.items(wish.resource, wish.namespace):
                if wish.matches(item):
                    queue.put_nowait(_line("ADDED", item))
            if wish.initial:
                queue.put_nowait(self._bookmark(wish, _INITIAL_EVENTS_END))
        async for change in self._store.changes(version):
            for line in _shown(wish, change):
                queue.put_nowait(line)

    def _bookmark(self, wish: _Wish, annotations: Mapping[str, str] | None = None) -> bytes:
        metadata: Item = {"resourceVersion": str(self._store.version), "creationTimestamp": None}
        if annotations:
            metadata["annotations"] = dict(annotations)
        item = {"kind": wish.resource.kind, "apiVersion": wish.resource.api_version, "metadata": metadata}
        return _line("BOOKMARK", item)


def _shown(wish: _Wish, change: Change) -> Iterator[bytes]:
    """Give the change as the watch's selector sees it: what no longer matches is deleted for it."""
    if change.resource != wish.resource or wish.namespace not in ("", change.item["metadata"].get("namespace", "")):
        return
    matched = change.before is not None and wish.matches(change.before)
    matches = change.type != "DELETED" and wish.matches(change.item)
    if matches:
        yield _line("MODIFIED" if matched else "ADDED", change.item)
    elif matched:
        yield _line("DELETED", change.item)


def _line(type: str, item: Item) -> bytes:
    return json.dumps({"type": type, "object": item}, separators=(",", ":")).encode() + b"\n"
