"""Following over HTTP: resumable without gaps, alive while nothing happens, over when the server stops."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import aclosing
from datetime import timedelta
from typing import Any

import pytest
from conftest import PATIENCE_S, TOKEN, Running
from fake_plane import KNOWN, OPEN, TIME, FakePlane

from flexcore.api.following import follow
from flexcore.model.errors import StoreUnavailable, Unavailable
from flexcore.model.requests import WatchEvent
from flexcore.sdk import client
from flexcore.sdk.client import Client
from flexcore.testing.network import proxy

STREAM = f"/api/v1/executions/{KNOWN}/stream"


def frames(text: str) -> list[dict[str, Any]]:
    """Read server-sent events; comments are left out."""
    found = []
    for block in text.strip().split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if lines:
            found.append({**lines, "data": json.loads(lines["data"])})
    return found


async def test_history_has_ids_and_logs_have_none(server: Running) -> None:
    async with server.http() as http:
        response = await http.get(STREAM)

    assert response.headers["content-type"].startswith("text/event-stream")
    seen = frames(response.text)
    assert [each.get("id") for each in seen] == ["1", None, "2", None, "3", None, None]
    assert [each["event"] for each in seen] == ["history", "log"] * 3 + ["end"]
    assert seen[0]["data"] == {"seq": 1, "at": TIME, "type": "StepStarted", "path": "a"}


async def test_a_stream_goes_on_after_the_last_id(server: Running) -> None:
    async with server.http() as http:
        after_two = await http.get(STREAM, headers={"Last-Event-ID": "2"})
        same = await http.get(STREAM, params={"after": 2})
        refused = await http.get(STREAM, headers={"Last-Event-ID": "x"})

    assert [each["id"] for each in frames(after_two.text) if "id" in each] == ["3"]
    assert same.text == after_two.text
    assert refused.status_code == 422


async def test_a_stream_ends_when_the_server_stops(server: Running) -> None:
    async with server.http() as http, http.stream("GET", f"/api/v1/executions/{OPEN}/stream") as response:
        pieces = response.aiter_text()
        text = ""
        while "id: 3" not in text:
            text += await anext(pieces)
        server.stop.set()
        text += "".join([piece async for piece in pieces])

    await asyncio.wait_for(server.done, PATIENCE_S)
    assert "event: end" not in text, "the execution has not ended"


async def test_a_watch_through_the_sdk_says_that_the_server_stops(server: Running) -> None:
    seen = []

    async def watch() -> None:
        async with server.sdk() as sdk:
            async for event in sdk.watch(OPEN):
                seen.append(event.seq)
                if event.seq == 3:
                    server.stop.set()

    with pytest.raises(Unavailable, match="stopping"):
        await asyncio.wait_for(watch(), PATIENCE_S)
    assert 3 in seen


async def test_nothing_new_is_told_as_nothing() -> None:
    plane, stopping = FakePlane(), asyncio.Event()
    events = follow(plane, OPEN, 3, stopping, timedelta(milliseconds=1))

    assert await anext(events) is None
    assert await anext(events) is None
    plane.finish.set()
    assert [event async for event in events if event is not None] == []


async def test_who_follows_is_told_that_the_server_froze(server: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "_KEEPALIVE_MS", (1000, 1000))

    async def rest(events: AsyncGenerator[WatchEvent, None]) -> None:
        async for _ in events:
            pass

    async with (
        proxy(server.addresses.grpc) as (between, address),
        Client(address, TOKEN) as sdk,
        aclosing(sdk.watch(OPEN)) as events,
    ):
        await anext(events)
        between.swallows_requests = between.swallows_answers = True

        with pytest.raises(Unavailable, match="cannot reach server"):
            await asyncio.wait_for(rest(events), 20)


async def test_going_away_closes_the_watch() -> None:
    plane, closed = FakePlane(), asyncio.Event()
    watch = plane.watch

    async def noticing(*arguments: Any) -> Any:
        try:
            async for event in watch(*arguments):
                yield event
        finally:
            closed.set()

    plane.watch = noticing  # type: ignore[method-assign, assignment]
    events = follow(plane, OPEN, 0, asyncio.Event(), timedelta(minutes=1))
    await anext(events)
    await events.aclose()

    assert closed.is_set()


async def test_a_store_that_goes_away_in_the_middle_is_told_in_the_stream(server: Running) -> None:
    async def breaking(*arguments: Any) -> Any:
        async for event in FakePlane().watch(KNOWN, 2):
            yield event
        raise StoreUnavailable("the store went away", hint="wait")

    server.plane.watch = breaking  # type: ignore[method-assign, assignment]
    async with server.http() as http:
        seen = frames((await http.get(STREAM)).text)

    assert [each["event"] for each in seen] == ["history", "log", "error"]
    assert seen[-1]["data"] == {"code": "store_unavailable", "detail": "the store went away", "hint": "wait"}
