"""Whatever a store holds and whenever collecting is broken off, nothing that is needed is ever removed."""

import asyncio
import os
import tempfile
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flexcore.control.verify import verify_executions
from flexcore.engine.services.retention import RetentionService
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import Collectable, CollectRequest
from flexcore.model.values import Payload, Ref
from flexcore.store.database import SqliteOptions
from flexcore.store.read import Definition
from flexcore.store.sqlite import Parts, Store, open_store
from flexcore.store.write import CacheEntry
from flexcore.testing.store_samples import Story, definition, now

DAY = timedelta(days=1)
CONTENTS = 6
ALL = frozenset(Collectable)

contents = st.integers(0, CONTENTS - 1)
ages = st.integers(0, 9)


@dataclass(frozen=True)
class Lived:
    """An execution of the past: how many days ago, how it stands, what it refers to, what it came from."""

    days: int
    ended: bool
    content: int
    input: int | None
    version: int
    parent: int | None  # an earlier one, by its place
    cached_days: int | None  # how many days its cached result is still good for


lives = st.lists(
    st.builds(
        Lived,
        days=ages, ended=st.booleans(), content=contents, input=st.none() | contents, version=st.integers(0, 2),
        parent=st.none() | st.integers(0, 9), cached_days=st.none() | st.integers(-9, 9),
    ),
    max_size=8,
)  # fmt: skip
files = st.lists(contents, min_size=3, max_size=3)


class Interrupted(Exception):
    """The process ended here."""


@dataclass
class Stops:
    """Stands before a part of the store, and ends the process at a call: before it does anything, or right after."""

    part: Any
    calls: list[int]  # how many are left before the end; shared by all parts
    after: bool

    def __getattr__(self, name: str) -> Any:
        found = getattr(self.part, name)
        if name not in ("write", "delete", "remove"):
            return found

        async def called(*arguments: Any) -> Any:
            self.calls[0] -= 1
            if self.calls[0] == 0 and not self.after:
                raise Interrupted
            result = await found(*arguments)
            if self.calls[0] == 0:
                raise Interrupted
            return result

        return called


async def past(store: Store, lived: list[Lived], files: list[int]) -> list[Ref]:
    """Make it so."""
    await store.ownership.acquire()
    refs = [await store.artifacts.put(f"content {number}".encode()) for number in range(CONTENTS)]
    for version, content in enumerate(files):
        made = replace(definition("etl", f"v-{version:016x}"), created_at=now() - 9 * DAY)
        await store.catalog.put(replace(made, files={"a.py": refs[content].checksum}))
    ids: list[ExecutionId] = []
    for each in lived:
        ids.append(await execution(store, each, refs, ids))
    for ref in refs:
        at = (now() - 9 * DAY).timestamp()
        os.utime(store.artifacts.path(ref), (at, at))
    return refs


async def execution(store: Store, lived: Lived, refs: list[Ref], earlier: list[ExecutionId]) -> ExecutionId:
    story = Story(at=now() - lived.days * DAY)
    parent = None if lived.parent is None or not earlier else earlier[lived.parent % len(earlier)]
    input = Payload() if lived.input is None else Payload(ref=refs[lived.input])
    story.header = replace(story.header, parent=parent, input=input, version=f"v-{lived.version:016x}")
    await store.journal.commit(story.begin())
    await store.journal.commit(story.dispatch())
    result = Payload(ref=refs[lived.content])
    cache = () if lived.cached_days is None else (CacheEntry(
        key=story.id, result=result, expires_at=now() + lived.cached_days * DAY + timedelta(minutes=1)
    ),)  # fmt: skip
    await store.journal.commit(replace(story.succeed(result=result), cache=cache))
    if lived.ended:
        await store.journal.commit(story.finish())
    return story.id


def service(store: Store, retention: Any, keep_last: int, days: Mapping[Collectable, int]) -> RetentionService:
    ages = {kind: timedelta(days=each) for kind, each in days.items()}
    return RetentionService(
        retention=retention, trail=store.audit, ages=ages, keep_last=keep_last, now=now, interval=DAY
    )


async def faults(store: Store) -> list[str]:
    """Everything that somebody needs and cannot have."""
    _, found = await verify_executions(store.reader, store.artifacts)
    # Stories are told in short: their rows say more than their histories, which is not what is looked for here.
    wrong = [each.message for each in (*await store.integrity(), *found) if "history says" not in each.message]
    rows = await store.reading.run(lambda c: c.execute("SELECT version, body FROM executions").fetchall())
    for version, _ in rows:
        wrong += missing(store, await store.catalog.get("default", "etl", version))
    cached = await store.reading.run(lambda c: c.execute("SELECT key FROM cache").fetchall())
    for (key,) in cached:
        payload = await store.journal.cached(key, now() - 99 * DAY)
        if payload is None or payload.ref is None or not store.artifacts.path(payload.ref).is_file():
            wrong.append(f"cached {key}")
    return wrong


def missing(store: Store, kept: Definition) -> list[str]:
    names = [digest for digest in kept.files.values() if not there(store, digest)]
    return [f"{kept.version}: {name}" for name in names]


def there(store: Store, digest: str) -> bool:
    return store.artifacts.path(Ref(uri=f"artifact:{digest}", bytes=0)).is_file()


def needed(lived: list[Lived], files: list[int], gone: Collection[int]) -> set[int]:
    """Work out what is still referred to, without asking the store."""
    return {content for place, each in enumerate(lived) if place not in gone for content in (each.content, each.input)
            if content is not None} | set(files)  # fmt: skip


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(
    lived=lives,
    files=files,
    keep_last=st.integers(0, 2),
    days=st.fixed_dictionaries(dict.fromkeys(ALL - {Collectable.KEYS, Collectable.VERSIONS}, ages)),
    kinds=st.just(ALL) | st.sets(st.sampled_from(sorted(ALL))).map(frozenset),
    stop=st.integers(1, 12),
    after=st.booleans(),
)
def test_nothing_that_is_needed_is_removed(
    lived: list[Lived],
    files: list[int],
    keep_last: int,
    days: dict[Collectable, int],
    kinds: frozenset[Collectable],
    stop: int,
    after: bool,
) -> None:
    async def scenario(folder: Path) -> None:
        store = open_store(folder, now=now, parts=Parts(options=SqliteOptions(synchronous="OFF")))
        try:
            await past(store, lived, files)
            calls = [stop]
            parts = ("writer", "log_store", "artifact_store")
            real: Any = store.retention
            broken = replace(real, **{name: Stops(getattr(real, name), calls, after) for name in parts})
            before = await faults(store)
            request = CollectRequest(kinds=kinds)
            try:
                await service(store, broken, keep_last, days).collect(request)
            except Interrupted:
                assert await faults(store) == before
            planned = await service(store, real, keep_last, days).collect(replace(request, dry_run=True))
            done = await service(store, real, keep_last, days).collect(request)

            assert await faults(store) == before
            assert [each.collected.count for each in planned] == [each.collected.count for each in done]
        finally:
            await store.ownership.release()
            store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))


@settings(max_examples=10, deadline=None)
@given(lived=lives, files=files)
def test_everything_that_is_not_needed_goes(lived: list[Lived], files: list[int]) -> None:
    async def scenario(folder: Path) -> None:
        store = open_store(folder, now=now, parts=Parts(options=SqliteOptions(synchronous="OFF")))
        try:
            alone = [replace(each, parent=None, cached_days=None) for each in lived]
            refs = await past(store, alone, files)
            days = dict.fromkeys(ALL, 3)
            await service(store, store.retention, 0, days).collect(CollectRequest())

            gone = {place for place, each in enumerate(alone) if each.ended and each.days >= 3}
            left = {number for number, ref in enumerate(refs) if there(store, ref.checksum)}
            assert left == needed(alone, files, gone)
        finally:
            await store.ownership.release()
            store.close()

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(scenario(Path(folder)))
