"""How old things may become, and what is said about it."""

from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from flexcore.engine.services.retention import RetentionService
from flexcore.model.errors import Conflict
from flexcore.model.requests import AuditQuery, Collectable, CollectRequest
from flexcore.settings import load
from flexcore.store.sqlite import Store, open_store
from flexcore.testing.store_samples import Story, now

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


async def test_nobody_collects_beside_another(store: Store) -> None:
    with store.retention.alone():
        assert await service(store, DAY).run_once() == ()
        with pytest.raises(Conflict):
            await service(store, DAY).collect(CollectRequest(dry_run=True))


def test_ages_are_settings_and_may_be_never(tmp_path: Path) -> None:
    environ = {"FLEXCORE_RETENTION__LOGS": "never", "FLEXCORE_RETENTION__EXECUTIONS": "7d"}

    found = load(tmp_path, environ=environ).settings.retention

    assert (found.logs, found.executions, found.artifacts) == (timedelta(0), 7 * DAY, 30 * DAY)
