"""How old things may become, and what is said about it."""

import os
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flexcore.engine.services.retention import RetentionService
from flexcore.model.errors import Conflict
from flexcore.model.requests import AuditQuery, Collectable, CollectRequest
from flexcore.model.values import Payload, Ref, digest
from flexcore.settings import load
from flexcore.store.sqlite import Store, open_store
from flexcore.testing.store_samples import Story, now
from flexcore.testing.store_suite import artifact_file

DAY = timedelta(days=1)
BY_AGE = (Collectable.EXECUTIONS, Collectable.LOGS, Collectable.ARTIFACTS, Collectable.CACHE, Collectable.AUDIT)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    opened = open_store(tmp_path / "store", now=now)
    await opened.ownership.acquire()
    story = Story(at=now() - 5 * DAY)
    await opened.journal.commit(story.begin())
    await opened.journal.commit(story.finish())
    yield opened
    await opened.ownership.release()
    opened.close()


def service(store: Store, age: timedelta, keep_last: int = 0) -> RetentionService:
    ages = dict.fromkeys(BY_AGE, age)
    return RetentionService(
        retention=store.retention, trail=store.audit, ages=ages, keep_last=keep_last, now=now, interval=DAY
    )


async def test_a_round_by_the_clock_is_audited_when_something_went(store: Store) -> None:
    for _ in range(2):
        await service(store, DAY).run_once()

    (line,) = (await store.audit.entries(AuditQuery())).items
    assert (line.actor, line.action, line.details) == ("flexcore", "collect", {"executions": 1})


async def test_what_is_kept_for_ever_stays_unless_somebody_says_otherwise(store: Store) -> None:
    kept = await service(store, timedelta(0)).collect(CollectRequest())
    asked = await service(store, timedelta(0)).collect(CollectRequest(older_than=4 * DAY))

    assert {each.kind for each in kept if each.before is None} == set(BY_AGE)
    assert kept[0].note == "kept: the setting retention.executions is never"
    assert {each.kind: each.collected.count for each in asked}[Collectable.EXECUTIONS] == 1
    assert {each.kind for each in asked if each.before is None} == {Collectable.AUDIT}


async def test_versions_go_only_when_they_are_named(store: Store) -> None:
    everything = await service(store, DAY).collect(CollectRequest(dry_run=True))
    named = await service(store, DAY).collect(CollectRequest(kinds=frozenset({Collectable.VERSIONS}), dry_run=True))

    assert Collectable.VERSIONS not in {each.kind for each in everything}
    assert [each.kind for each in named] == [Collectable.VERSIONS]


async def test_what_an_attempt_in_flight_may_have_stored_stays_until_it_ends(store: Store) -> None:
    """As after a night without a control plane, in which a step elsewhere has ended."""
    story = Story(at=now() - 3 * DAY)
    await store.journal.commit(story.begin())
    sent = story.dispatch()
    await store.journal.commit(replace(sent, steps=tuple(replace(each, in_flight=True) for each in sent.steps)))
    before = await content(store, b"before", age=4 * DAY)
    packed = await content(store, b"files of the workflow", age=2 * DAY)
    made = await made_elsewhere(store, f"{story.id}/load#1:rows", age=DAY)
    collecting = service(store, timedelta(0))
    hourly = CollectRequest(kinds=frozenset({Collectable.ARTIFACTS}), older_than=timedelta(hours=1))

    planned = await collecting.collect(replace(hourly, dry_run=True))
    at_start = await collecting.collect(hourly)
    left = [is_there(store, each) for each in (before, packed, made)]
    await store.journal.commit(replace(story.succeed(result=Payload(ref=made)), cache=()))
    after = await collecting.collect(hourly)

    assert [each.collected.count for (each,) in (planned, at_start, after)] == [1, 1, 1]
    assert left == [False, True, True]
    assert [is_there(store, each) for each in (before, packed, made)] == [False, False, True]


async def test_what_was_out_when_its_execution_ended_keeps_nothing(store: Store) -> None:
    story = Story(at=now() - 3 * DAY)
    await store.journal.commit(story.begin())
    sent = story.dispatch()
    await store.journal.commit(replace(sent, steps=tuple(replace(each, in_flight=True) for each in sent.steps)))
    await store.journal.commit(story.finish())
    packed = await content(store, b"files of the workflow", age=2 * DAY)

    await service(store, DAY).run_once()

    assert not is_there(store, packed)


async def content(store: Store, data: bytes, age: timedelta) -> Ref:
    ref = await store.artifacts.put(data)
    return aged(store, ref, age)


async def made_elsewhere(store: Store, name: str, age: timedelta) -> Ref:
    """Write to a link, as a step does."""
    offer = await store.artifacts.offer(name, DAY)
    Path(offer.link.url.removeprefix("file://")).write_bytes(b"rows")
    return aged(store, Ref(uri=offer.uri, bytes=4, checksum=digest(b"rows")), age)


def aged(store: Store, ref: Ref, age: timedelta) -> Ref:
    at = (now() - age).timestamp()
    os.utime(artifact_file(store, ref), (at, at))
    return ref


def is_there(store: Store, ref: Ref) -> bool:
    return artifact_file(store, ref).is_file()


async def test_nobody_collects_beside_another(store: Store) -> None:
    with store.retention.alone():
        assert await service(store, DAY).run_once() == ()
        with pytest.raises(Conflict):
            await service(store, DAY).collect(CollectRequest(dry_run=True))


def test_ages_are_settings_and_may_be_never(tmp_path: Path) -> None:
    environ = {"FLEXCORE_RETENTION__LOGS": "never", "FLEXCORE_RETENTION__EXECUTIONS": "7d"}

    found = load(tmp_path, environ=environ).settings.retention

    assert (found.logs, found.executions, found.artifacts) == (timedelta(0), 7 * DAY, 30 * DAY)
