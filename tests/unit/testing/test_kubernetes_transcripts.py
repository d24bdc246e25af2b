"""[stand-in] The stand-in cluster tells what a real cluster told, in the same order, in all recorded scenarios."""

import asyncio
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from flexcore.testing.kubernetes.containers import why_not_boxed
from flexcore.testing.kubernetes.standin import StandIn
from flexcore.testing.kubernetes.transcripts import (
    Transcript,
    View,
    views_of_events,
    views_of_jobs,
    views_of_pods,
)

FOLDER = Path(__file__).parents[2] / "data" / "kubernetes"
TRANSCRIPTS = [Transcript.read(path) for path in sorted(FOLDER.glob("*.json"))]
CUT_SHORT = {"create_errors"}  # the recording ends while Jobs run
AS_THEY_WERE = {"logs early", "logs before"}  # what a log shows before the end is a matter of time
ANSWERED_S = 0.05  # a watch may tell what a request does before the request is answered
SCALE = 0.15

REASON = why_not_boxed()
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)


@dataclass
class Played:
    """A scenario as the stand-in plays it."""

    transcript: Transcript
    answers: list[tuple[int, Any]] = field(default_factory=list)
    jobs: list[dict[str, Any]] = field(default_factory=list)
    pods: list[dict[str, Any]] = field(default_factory=list)
    names: dict[str, str] = field(default_factory=dict)  # recorded names and identities → those of here

    def here(self, text: str) -> str:
        return _replaced(text, self.names)

    def there(self, text: str) -> str:
        return _replaced(text, {new: old for old, new in self.names.items()})

    def learn(self) -> None:
        for recorded, seen in ((self.transcript.jobs, self.jobs), (self.transcript.pods, self.pods)):
            for old, new in zip(_objects(recorded), _objects(seen), strict=False):
                self.names |= {old["uid"]: new["uid"]} | ({old["name"]: new["name"]} if "Pod" in old["kind"] else {})


def _objects(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = {each["object"]["metadata"]["uid"]: each["object"] for each in events}
    return [{**each["metadata"], "kind": each["kind"]} for each in found.values()]


def _replaced(text: str, names: dict[str, str]) -> str:
    if not names:
        return text
    return re.sub("|".join(map(re.escape, names)), lambda found: names[found[0]], text)


async def follow(client: httpx.AsyncClient, path: str, into: list[dict[str, Any]], opened: asyncio.Event) -> None:
    async with client.stream("GET", path, params={"watch": "1", "timeoutSeconds": "100"}) as stream:
        opened.set()
        async for line in stream.aiter_lines():
            into.append(json.loads(line))


async def until(condition: Callable[[], bool], seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        await asyncio.sleep(0.01)


def count(views: list[list[View]]) -> int:
    return sum(map(len, views))


async def play(cluster: StandIn, client: httpx.AsyncClient, transcript: Transcript) -> Played:
    """Ask what was asked, each thing when the streams are as far as they were then."""
    played = Played(transcript)
    namespace = f"rec-{transcript.scenario.replace('_', '-')}"
    await client.post("/api/v1/namespaces", json={"metadata": {"name": namespace}})
    paths = {"jobs": f"/apis/batch/v1/namespaces/{namespace}/jobs", "pods": f"/api/v1/namespaces/{namespace}/pods"}
    opened = asyncio.Event(), asyncio.Event()
    watches = [
        asyncio.create_task(follow(client, paths["jobs"], played.jobs, opened[0])),
        asyncio.create_task(follow(client, paths["pods"], played.pods, opened[1])),
    ]
    await asyncio.gather(*(each.wait() for each in opened))
    asking = cluster.token
    if transcript.scenario == "forbidden":
        asking = await cluster.account(f"system:serviceaccount:{namespace}:default", ["* *"])
    for number, step in enumerate(transcript.steps):
        at = step["t"] - ANSWERED_S
        await until(lambda at=at: _is_as_far(played, at), 15)
        is_last = number == len(transcript.steps) - 1
        await asyncio.sleep(0.3 if is_last else 0.02)  # so that what comes too much is seen
        played.learn()
        method, _, path = step["request"].partition(" ")
        body = None if step["body"] is None else json.loads(played.here(json.dumps(step["body"])))
        token = cluster.token if step["what"] == "events" else asking
        headers = {"Authorization": f"Bearer {token}"}
        answer = await client.request(method, played.here(path), json=body, headers=headers)
        is_json = answer.headers.get("content-type", "").startswith("application/json")
        text = played.there(answer.text)
        played.answers.append((answer.status_code, json.loads(text) if is_json else text))
    for watch in watches:
        watch.cancel()
    await asyncio.gather(*watches, return_exceptions=True)
    return played


def _is_as_far(played: Played, at: float) -> bool:
    jobs = [each for each in played.transcript.jobs if each["t"] < at]
    pods = [each for each in played.transcript.pods if each["t"] < at]
    return count(views_of_jobs(played.jobs)) >= count(views_of_jobs(jobs)) and count(
        views_of_pods(played.pods)
    ) >= count(views_of_pods(pods))


@pytest.fixture(scope="module")
def played(request: pytest.FixtureRequest) -> dict[str, Played]:
    """Play all scenarios that are asked for, at once: most of their time is waiting."""
    tests = [each for each in request.session.items if isinstance(each, pytest.Function)]
    asked = [each.callspec.params.get("transcript") for each in tests if hasattr(each, "callspec")]
    wanted = {each.scenario: each for each in asked if isinstance(each, Transcript)}

    async def all_played() -> list[Played]:
        async with StandIn(scale=SCALE) as cluster, _client(cluster) as client:
            return await asyncio.gather(*(play(cluster, client, each) for each in wanted.values()))

    return {each.transcript.scenario: each for each in asyncio.run(all_played())}


def _client(cluster: StandIn) -> httpx.AsyncClient:
    limits = httpx.Limits(max_connections=None)
    headers = {"Authorization": f"Bearer {cluster.token}"}
    return httpx.AsyncClient(base_url=cluster.url, headers=headers, timeout=120, limits=limits)


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda each: f"{each.scenario}-stand-in")
def test_streams_are_as_recorded(transcript: Transcript, played: dict[str, Played]) -> None:
    found = played[transcript.scenario]

    assert views_of_pods(transcript.pods) == _cut(transcript, transcript.pods, found.pods, views_of_pods)
    assert views_of_jobs(transcript.jobs) == _cut(transcript, transcript.jobs, found.jobs, views_of_jobs)


@pytest.mark.parametrize("transcript", TRANSCRIPTS, ids=lambda each: f"{each.scenario}-stand-in")
def test_answers_are_as_recorded(transcript: Transcript, played: dict[str, Played]) -> None:
    found = played[transcript.scenario]

    for step, (status, answer) in zip(transcript.steps, found.answers, strict=True):
        if step["what"] not in AS_THEY_WERE and not (step["what"] == "events" and transcript.scenario in CUT_SHORT):
            assert (step["what"], step["status"], _shown(step["response"])) == (step["what"], status, _shown(answer))


Views = Callable[[list[dict[str, Any]]], list[list[View]]]


def _cut(transcript: Transcript, recorded: list[Any], seen: list[Any], views: Views) -> list[list[View]]:
    """Leave out what came after the end of a recording that was cut short."""
    if transcript.scenario not in CUT_SHORT:
        return views(seen)
    return [found[: len(known)] for known, found in zip(views(recorded), views(seen), strict=True)]


def _shown(answer: Any) -> Any:
    """Leave out what differs from one run to the next."""
    if not isinstance(answer, dict):
        return answer
    if "items" in answer:
        return views_of_events(answer["items"]) if answer["items"] and "involvedObject" in answer["items"][0] else []
    if answer.get("kind") == "Status":
        return {key: value for key, value in answer.items() if key != "metadata"}
    metadata = answer["metadata"]
    return answer.get("kind"), metadata.get("finalizers"), metadata.get("deletionGracePeriodSeconds")
