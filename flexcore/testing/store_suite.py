"""What every store has to do, as named checks: plain functions that take a place. Third parties need three lines:

    for check in CHECKS:
        await check(MyPlace(...))   # a fresh place for each

A check opens as many handles on the one store as it needs; each stands for a process of its own. Children that are
really killed are started through the place. A check fails with AssertionError.
"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import IO, Any, Protocol, TypeAlias

from flexcore.model.errors import (
    AlreadyExists,
    Conflict,
    Fenced,
    FlexCoreError,
    IllegalTransition,
    InternalError,
    InvalidInput,
    NotFound,
    PoolFull,
)
from flexcore.model.ids import ExecutionId, StepPath
from flexcore.model.lifecycle import ExecutionStatus
from flexcore.model.pools import Party, PoolUse, PoolView
from flexcore.model.requests import ExecutionQuery
from flexcore.model.values import Payload, Ref
from flexcore.runtime.interface import LogStream
from flexcore.store.artifacts import LocalArtifacts
from flexcore.store.sqlite import FILE_NAME, Parts, Store, open_store
from flexcore.store.write import ClaimChange, ServerId
from flexcore.testing.store_samples import LOAD, START, Story, definition, fresh_execution, now, start_key


class Place(Protocol):
    """Where one check has its store: fresh, empty, its own."""

    def open(self) -> Store:
        """Open a further handle on the same store, as another process would."""
        ...

    def child(self, role: str, argument: str) -> Sequence[str]:
        """Give the command that plays a role of store_child.py on this store."""
        ...

    def bury(self, server: ServerId) -> None:
        """Make an owner look dead to everybody else while it goes on working: a zombie."""
        ...

    def run_sql(self, statement: str) -> Sequence[tuple[object, ...]]:
        """Do something behind the store's back."""
        ...

    def full_scans(self, query: str) -> Sequence[str]:
        """Name what a named query reads from end to end or sorts, by the database's own plan."""
        ...


Check: TypeAlias = Callable[[Place], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class SqlitePlace:
    """A SQLite store in an empty folder; `parts` for stores that are wrong on purpose."""

    folder: Path
    parts: Parts | None = None

    def open(self) -> Store:
        """Open a handle."""
        return open_store(self.folder, now=now, parts=self.parts)

    def child(self, role: str, argument: str) -> Sequence[str]:
        """A child always has a right store."""
        return [sys.executable, "-m", "flexcore.testing.store_child", str(self.folder), role, argument]

    def bury(self, server: ServerId) -> None:
        """A lock that is not there is held by nobody."""
        (self.folder / "locks" / f"{server}.lock").unlink()

    def run_sql(self, statement: str) -> Sequence[tuple[object, ...]]:
        """On a connection of its own."""
        connection = sqlite3.connect(self.folder / FILE_NAME, isolation_level=None, timeout=10)
        try:
            return connection.execute(statement).fetchall()
        finally:
            connection.close()

    def full_scans(self, query: str) -> Sequence[str]:
        """Read EXPLAIN QUERY PLAN: a SCAN without an index, or a sort."""
        store = self.open()
        try:
            explained = f"EXPLAIN QUERY PLAN {store.sql[query]}"
            names = dict.fromkeys(_parameters(store.sql[query]))
            connection = sqlite3.connect(self.folder / FILE_NAME)
            steps = [str(row[3]) for row in connection.execute(explained, names)]
            connection.close()
        finally:
            store.close()
        return [step for step in steps if "TEMP B-TREE" in step or (step.startswith("SCAN") and "INDEX" not in step)]


def _parameters(sql: str) -> Sequence[str]:
    return [word.strip(":,()") for word in sql.replace("(", " ").split() if word.startswith(":")]


@asynccontextmanager
async def opened(place: Place, *, owning: bool = True) -> AsyncIterator[Store]:
    """A handle for the time of a block; by default as an owner."""
    store = place.open()
    try:
        if owning:
            await store.ownership.acquire()
        yield store
    finally:
        await store.ownership.release()
        store.close()


async def refused(kind: type[FlexCoreError], work: Awaitable[object]) -> FlexCoreError:
    """Await what must be refused with just this error, and give it."""
    try:
        await work
    except FlexCoreError as error:
        assert type(error) is kind, f"expected {kind.__name__}, got {error!r}"
        return error
    raise AssertionError(f"expected {kind.__name__}, but it was accepted")


async def length(store: Store, id: ExecutionId) -> int:
    """How many history entries an execution has; 0 when there is none."""
    try:
        return len((await store.reader.history(id)).items)
    except NotFound:
        return 0


# --- journal ---


async def commits_are_durable_after_reopening(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), story.dispatch(), story.open_scope("fan[0]"), story.succeed(), story.finish()):
            await store.journal.commit(changes)

    async with opened(place, owning=False) as again:
        view = await again.reader.execution(story.id)
        assert view.state == story.state, f"{view.state} is not {story.state}"
        assert [entry.seq for entry in (await again.reader.history(story.id)).items] == [1, 2, 3, 4, 5]


async def acknowledged_means_visible_to_others(place: Place) -> None:
    story = Story()
    async with opened(place) as store, opened(place, owning=False) as witness:
        await store.journal.commit(story.begin())
        for number in range(10):
            await store.journal.commit(story.open_scope(f"fan[{number}]"))
            seen = await length(witness, story.id)
            assert seen == story.seq, f"acknowledged {story.seq} entries, others see {seen}"


async def killed_processes_lose_nothing_acknowledged(place: Place) -> None:
    command = place.child("campaign", "20")
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, check=True)
    acknowledged = json.loads(done.stdout)

    assert acknowledged, "no life reported anything"
    async with opened(place, owning=False) as store:
        for id, seq in acknowledged.items():
            page = await store.reader.history(ExecutionId(id), limit=1_000_000)
            assert len(page.items) >= seq, f"{id}: {seq} acknowledged, {len(page.items)} there"
        assert await store.integrity() == []


async def histories_have_no_gaps(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await store.journal.commit(story.begin())
        gap = story.dispatch()
        shifted = replace(gap, entries=(replace(gap.entries[0], seq=gap.entries[0].seq + 1),))
        await refused(InternalError, store.journal.commit(shifted))
        ahead = Story(story.id, after=4)
        await refused(IllegalTransition, store.journal.commit(ahead.dispatch()))
        await refused(IllegalTransition, store.journal.commit(Story(after=1).dispatch()))
        await refused(IllegalTransition, store.journal.commit(Story(story.id).begin()))

        assert await length(store, story.id) == 1
        assert await store.integrity() == []


async def a_wrong_precondition_is_refused_alone(place: Place) -> None:
    stories = [Story() for _ in range(20)]
    async with opened(place) as store:
        await asyncio.gather(*(store.journal.commit(story.begin()) for story in stories))
        stories[7].seq = 5  # believes in entries that are not there
        results = await asyncio.gather(
            *(store.journal.commit(story.dispatch()) for story in stories), return_exceptions=True
        )

        refusals = [type(result) for result in results if result is not None]
        assert refusals == [IllegalTransition], f"refused: {refusals}"
        lengths = [await length(store, story.id) for story in stories]
        assert lengths == [2] * 7 + [1] + [2] * 12, f"history lengths: {lengths}"


async def one_execution_may_appear_twice_in_a_group(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await asyncio.gather(*map(store.journal.commit, (story.begin(), story.dispatch(), story.succeed())))

        assert (await store.reader.execution(story.id)).state == story.state


async def a_zombie_is_fenced(place: Place) -> None:
    story = Story()
    async with opened(place) as zombie, opened(place) as heir:
        await zombie.journal.commit(story.begin())
        server = ServerId((await heir.reader.execution(story.id)).owner)
        place.bury(server)
        assert await heir.ownership.take_over(server) == [story.id]

        await refused(Fenced, zombie.journal.commit(story.dispatch()))
        late = Story()
        await refused(Fenced, zombie.journal.commit(late.begin()))
        assert (await length(heir, story.id), await length(heir, late.id)) == (1, 0)


async def nobody_writes_without_owning(place: Place) -> None:
    async with opened(place, owning=False) as store:
        await refused(Fenced, store.journal.commit(Story().begin()))


async def another_owners_execution_is_not_written(place: Place) -> None:
    story = Story()
    async with opened(place) as store, opened(place) as stranger:
        await store.journal.commit(story.begin())
        await refused(Fenced, stranger.journal.commit(story.dispatch()))


async def an_ended_step_never_changes(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), story.dispatch(), story.succeed()):
            await store.journal.commit(changes)
        before = story.state
        steps = dict(before.steps)
        await refused(IllegalTransition, store.journal.commit(story.dispatch(token=2)))

        found = (await store.reader.execution(story.id)).state
        assert (found.seq, found.steps) == (before.seq, steps), f"the step became {found.steps[LOAD].status}"


async def an_old_token_is_refused(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), story.dispatch(), story.dispatch(token=2)):
            await store.journal.commit(changes)
        await refused(Fenced, store.journal.commit(story.succeed(token=1)))

        step = (await store.reader.execution(story.id)).state.steps[LOAD]
        assert (step.status, step.token) == ("pending", 2), f"the late result made it {step.status}"


async def an_ended_execution_never_changes(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), story.finish()):
            await store.journal.commit(changes)
        await refused(IllegalTransition, store.journal.commit(story.dispatch()))

        assert await length(store, story.id) == 2


async def an_end_without_a_time_is_refused(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await store.journal.commit(story.begin())
        end = story.finish()
        await refused(InternalError, store.journal.commit(replace(end, header=replace(end.header, finished_at=None))))
        await store.journal.commit(end)


async def what_cannot_be_stored_fails_only_its_caller(place: Place) -> None:
    good, bad = Story(), Story()
    bad.header = replace(bad.header, labels={"half": "\ud800"})
    async with opened(place) as store:
        results = await asyncio.gather(
            store.journal.commit(bad.begin()), store.journal.commit(good.begin()), return_exceptions=True
        )

        assert [type(result) for result in results] == [InternalError, type(None)]


async def one_start_per_idempotency_key(place: Place) -> None:
    stories = [Story() for _ in range(50)]
    async with opened(place) as one, opened(place) as other:
        results = await asyncio.gather(
            *(
                (one if number % 2 else other).journal.commit(story.begin(start_key("nightly", f"f{number}")))
                for number, story in enumerate(stories)
            ),
            return_exceptions=True,
        )

        winners = [number for number, result in enumerate(results) if result is None]
        assert len(winners) == 1, f"{len(winners)} starts under one key"
        id = stories[winners[0]].id
        assert await one.reader.started_with("default", "etl", "nightly") == (id, f"f{winners[0]}")
        losers = [result for result in results if result is not None]
        assert all(isinstance(loser, AlreadyExists) and id in loser.message for loser in losers), losers[:2]
        assert [await length(one, story.id) for story in stories].count(1) == 1


async def an_idempotency_key_is_kept_seven_days(place: Place) -> None:
    old, young = Story(at=now() - timedelta(days=7, seconds=1)), Story()
    async with opened(place) as store:
        await store.journal.commit(old.begin(start_key("k")))
        assert await store.reader.started_with("default", "etl", "k") is None
        await store.journal.commit(young.begin(start_key("k")))
        assert await store.reader.started_with("default", "etl", "k") == (young.id, "f")


async def commands_reach_the_owner_and_only_the_owner(place: Place) -> None:
    story = Story()
    async with opened(place) as owner, opened(place) as sender:
        await owner.journal.commit(story.begin())
        assert await owner.journal.commands() == []
        await owner.journal.changed()
        id = await sender.commands.send(story.id, "cancel", {"reason": "no longer wanted"}, START)

        assert await owner.journal.changed()
        assert not await owner.journal.changed()
        (command,) = await owner.journal.commands()
        assert (command.id, command.kind, command.created_at) == (id, "cancel", START)
        assert command.body == {"reason": "no longer wanted"}
        assert await sender.journal.commands() == []


async def own_commits_wake_only_readers(place: Place) -> None:
    async with opened(place) as store:
        story = Story()
        await store.journal.changed()
        await store.reader.changed()
        await store.journal.commit(story.begin())

        assert (await store.journal.changed(), await store.reader.changed()) == (False, True)
        await store.commands.send(story.id, "cancel", None, START)
        assert await store.journal.changed(), "a process has to find what it asked of itself"


async def a_command_is_consumed_with_its_answer(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await store.journal.commit(story.begin())
        command = await store.commands.send(story.id, "cancel", None, START)
        wrong = replace(story.dispatch(consumed=[command]), after=9)
        wrong = replace(wrong, entries=(replace(wrong.entries[0], seq=10),))
        await refused(IllegalTransition, store.journal.commit(wrong))
        assert [each.id for each in await store.journal.commands()] == [command]

        story.seq = 1
        await store.journal.commit(story.dispatch(consumed=[command]))
        assert await store.journal.commands() == []
        again = story.dispatch(StepPath("other"), consumed=[command])
        await refused(IllegalTransition, store.journal.commit(again))


async def nothing_is_asked_of_what_has_ended(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await refused(NotFound, store.commands.send(story.id, "cancel", None, START))
        await store.journal.commit(story.begin())
        await store.commands.send(story.id, "cancel", None, START)
        await store.journal.commit(story.finish())

        assert await store.journal.commands() == []
        await refused(IllegalTransition, store.commands.send(story.id, "cancel", None, START))


async def a_pool_never_has_more_holders_than_places(place: Place) -> None:
    stories = [Story() for _ in range(4)]
    take = ClaimChange(pool="step:p", path=LOAD, limit=2)
    async with opened(place) as store, opened(place) as other:
        for story in stories[:3]:
            await store.journal.commit(story.begin())
        await other.journal.commit(stories[3].begin())
        for story in stories[:2]:
            await store.journal.commit(story.claim(take))
        await refused(PoolFull, store.journal.commit(stories[2].claim(take)))
        error = await refused(PoolFull, other.journal.commit(stories[3].claim(take)))
        assert isinstance(error, PoolFull)
        assert error.pools == ("step:p",)
        lengths = [await length(store, story.id) for story in stories]
        assert lengths == [2, 2, 1, 1], f"what was refused left {lengths}"


async def a_place_that_is_given_back_can_be_taken_in_the_same_group(place: Place) -> None:
    first, second = Story(), Story()
    async with opened(place) as store:
        for story in (first, second):
            await store.journal.commit(story.begin())
        await store.journal.commit(first.claim(ClaimChange(pool="p", path=LOAD, limit=1)))
        await asyncio.gather(
            store.journal.commit(second.claim(ClaimChange(pool="p", path=LOAD, limit=1))),
            store.journal.commit(first.claim(ClaimChange(pool="p", path=LOAD))),
        )

        assert (await store.reader.pools(["p"]))["p"] == PoolView(held=1, holders=(second.id,))
        assert set(await store.reader.claims(second.id)) == {("p", LOAD, True)}
        await store.journal.commit(second.claim(ClaimChange(pool="p", path=LOAD)))
        await store.journal.commit(second.claim(ClaimChange(pool="p", path=LOAD)))  # once more changes nothing
        assert (await store.reader.pools(["p"]))["p"] == PoolView()


async def who_waits_longest_is_first_in_a_pool(place: Place) -> None:
    late, early, dead = sorted((Story() for _ in range(3)), key=lambda story: story.id)
    async with opened(place) as store, opened(place) as gone:
        for story, where in ((late, store), (early, store), (dead, gone)):
            await where.journal.commit(story.begin())
        for story, where, minutes in ((late, store, 3), (early, store, 2), (dead, gone, 1)):
            since = ClaimChange(pool="p", path=LOAD, queued_at=START + timedelta(minutes=minutes))
            await where.journal.commit(story.claim(since))
        parties = [Party(story.id, LOAD) for story in (dead, early, late)]
        alive = (await store.journal.pools({"p": 5}))["p"]
        place.bury(ServerId((await store.reader.execution(dead.id)).owner))
        left = (await store.journal.pools({"p": 5}))["p"]

        assert alive == PoolUse(waiting=tuple(parties)), alive
        assert left == PoolUse(waiting=tuple(parties[1:])), f"the dead are waited for: {left}"
        next_one = (await store.journal.pools({"p": 1}, without={"p": {early.id}}))["p"]
        assert next_one == PoolUse(waiting=(parties[2],)), f"who is passed over is counted: {next_one}"
        assert (await store.reader.pools(["p"]))["p"].waiting == tuple(parties[1:])
        await store.journal.commit(early.claim(ClaimChange(pool="p", path=LOAD, limit=1)))
        assert (await store.journal.pools({"p": 5}, late.id))["p"] == PoolUse(held=1, waiting=(parties[2],))
        assert (await store.journal.pools({"p": 5}, early.id))["p"].held == 0, "an execution counts its own places"


async def cached_results_expire(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), story.succeed()):
            await store.journal.commit(changes)

        assert await store.journal.cached(f"{story.id}/load", story.at) == Payload({"rows": 27_004})
        assert await store.journal.cached(f"{story.id}/load", story.at + timedelta(hours=1)) is None
        assert await store.journal.cached("unknown", story.at) is None


async def an_owner_finds_its_open_executions_whole(place: Place) -> None:
    open_one, another, ended = Story(), Story(), Story()
    async with opened(place) as store:
        for changes in (open_one.begin(), open_one.dispatch(), another.begin(), ended.begin(), ended.finish()):
            await store.journal.commit(changes)

        found = {each.id: each.history async for each in store.journal.open_executions()}
        assert sorted(found) == sorted([open_one.id, another.id])
        assert found[open_one.id] == (await store.reader.history(open_one.id)).items
        assert [each.id async for each in store.journal.open_executions(only=[another.id])] == [another.id]
        assert len(await store.journal.history(ended.id)) == 2
        await refused(NotFound, store.journal.history(fresh_execution()))


async def full_durability_is_verified(place: Place) -> None:
    async with opened(place, owning=False) as store:
        assert store.durability == "full", store.durability
        assert (await store.reader.status()).durability == "full"


# --- ownership ---


async def a_killed_owner_is_found_and_taken_over(place: Place) -> None:
    child, said = await _start(place, "hold", "3")
    async with opened(place) as store:
        server = ServerId(said["server"])
        try:
            assert await store.ownership.dead() == []
            await refused(Conflict, store.ownership.take_over(server))
        finally:
            _kill(child)

        assert await store.ownership.dead() == [server]
        view = await store.reader.execution(said["executions"][0])
        assert (view.owner, view.owner_alive) == (server, False)
        assert await store.ownership.take_over(server) == sorted(said["executions"])
        assert await store.ownership.dead() == []
        found = [each.id async for each in store.journal.open_executions()]
        assert found == sorted(said["executions"])


async def one_execution_can_be_taken_alone(place: Place) -> None:
    child, said = await _start(place, "hold", "3")
    _kill(child)
    async with opened(place) as store:
        server, wanted = ServerId(said["server"]), said["executions"][1]

        assert await store.ownership.take_over(server, only=wanted) == [wanted]
        assert await store.ownership.dead() == [server]
        assert len(await store.ownership.take_over(server)) == 2
        assert await store.ownership.take_over(server) == []


async def two_takers_never_get_the_same(place: Place) -> None:
    holder, said = await _start(place, "hold", "20")
    takers = [(await _start(place, "take", said["server"]))[0] for _ in range(2)]
    try:
        _kill(holder)
        for taker in takers:
            _pipe(taker.stdin).write(b"go\n")
            _pipe(taker.stdin).flush()
        got = [json.loads(await asyncio.to_thread(_pipe(taker.stdout).readline)) for taker in takers]
    finally:
        for taker in takers:
            _kill(taker)

    assert sorted(got[0] + got[1]) == sorted(said["executions"]), f"{len(got[0])} and {len(got[1])} of 20"


async def releasing_leaves_unfinished_work_for_the_next(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await store.journal.commit(story.begin())
    async with opened(place) as store:
        assert not (await store.reader.execution(story.id)).owner_alive
        (server,) = await store.ownership.dead()
        assert await store.ownership.take_over(server) == [story.id]
        await store.journal.commit(story.finish())
    async with opened(place, owning=False) as store:
        assert await store.ownership.dead() == []
        assert place.run_sql("SELECT count(*) FROM servers") == [(0,)]


# --- catalog ---


async def a_definition_comes_back_as_it_went_in(place: Place) -> None:
    async with opened(place, owning=False) as store:
        await store.catalog.put(definition("etl", "v1"))

        assert await store.catalog.get("default", "etl") == definition("etl", "v1")
        assert await store.catalog.get("default", "etl", "v1") == definition("etl", "v1")


async def deploying_makes_a_version_the_newest(place: Place) -> None:
    async with opened(place, owning=False) as store:
        for name, version in (("etl", "v1"), ("etl", "v2"), ("other", "v1"), ("etl", "v1")):
            await store.catalog.put(definition(name, version))

        assert (await store.catalog.get("default", "etl")).version == "v1"
        assert [each.version for each in await store.catalog.versions("default", "etl")] == ["v1", "v2"]
        assert [each.name for each in await store.catalog.list("default")] == ["etl", "other"]
        assert await store.catalog.list("elsewhere") == []


async def a_deleted_name_leaves_its_versions(place: Place) -> None:
    async with opened(place, owning=False) as store:
        await store.catalog.put(definition("etl", "v1"))
        await store.catalog.put(definition("kept", "v1"))
        await store.catalog.delete("default", "etl")

        missing = await refused(NotFound, store.catalog.get("default", "etl"))
        assert "kept" in missing.hint
        await refused(NotFound, store.catalog.versions("default", "etl"))
        await refused(NotFound, store.catalog.delete("default", "etl"))
        assert (await store.catalog.get("default", "etl", "v1")).text == "steps: []"
        await refused(NotFound, store.catalog.get("default", "etl", "v9"))


# --- reader ---


async def executions_are_listed_newest_first_in_pages(place: Place) -> None:
    stories = [Story(at=START + timedelta(seconds=number // 2)) for number in range(7)]
    async with opened(place) as store:
        await asyncio.gather(*(store.journal.commit(story.begin()) for story in stories))
        found: list[ExecutionId] = []
        page = await store.reader.executions(ExecutionQuery(limit=3))
        sizes = [len(page.items)]
        while page.next:
            found += [header.id for header in page.items]
            page = await store.reader.executions(ExecutionQuery(limit=3, cursor=page.next))
            sizes.append(len(page.items))
        found += [header.id for header in page.items]

        newest_first = sorted(stories, key=lambda story: (story.at, story.id), reverse=True)
        assert (found, sizes) == ([story.id for story in newest_first], [3, 3, 1])
        assert page.items[0] == newest_first[-1].header
        await refused(InvalidInput, store.reader.executions(ExecutionQuery(cursor="nonsense")))


async def executions_are_filtered(place: Place) -> None:
    etl, other, ended = Story(at=START), Story(workflow="other", at=START + timedelta(hours=1)), Story(at=START)
    async with opened(place) as store:
        for changes in (etl.begin(), other.begin(), ended.begin(), ended.finish()):
            await store.journal.commit(changes)

        async def ids(query: ExecutionQuery) -> set[ExecutionId]:
            return {header.id for header in (await store.reader.executions(query)).items}

        succeeded = ExecutionStatus.SUCCEEDED
        assert await ids(ExecutionQuery(workflow="etl")) == {etl.id, ended.id}
        assert await ids(ExecutionQuery(workflow="etl", unfinished=True)) == {etl.id}
        assert await ids(ExecutionQuery(workflow="etl", status=succeeded)) == {ended.id}
        assert await ids(ExecutionQuery(status=succeeded)) == {ended.id}
        assert await ids(ExecutionQuery(status=succeeded, unfinished=True)) == set()
        assert await ids(ExecutionQuery(unfinished=True)) == {etl.id, other.id}
        assert await ids(ExecutionQuery(since=START + timedelta(minutes=1))) == {other.id}
        assert await ids(ExecutionQuery(workspace="elsewhere")) == set()
        assert (await store.reader.status()).executions == {"running": 2, "succeeded": 1}


async def history_is_read_in_pages(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), *(story.dispatch(token=number) for number in range(1, 5))):
            await store.journal.commit(changes)
        first = await store.reader.history(story.id, limit=2)
        rest = await store.reader.history(story.id, after=int(first.next or 0), limit=3)

        assert [entry.seq for entry in first.items + rest.items] == [1, 2, 3, 4, 5]
        assert rest.next is None
        assert (await store.reader.history(story.id, after=5)).items == ()
        await refused(NotFound, store.reader.history(fresh_execution()))
        await refused(NotFound, store.reader.execution(fresh_execution()))


async def only_what_has_ended_is_deleted(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        await refused(NotFound, store.reader.delete(story.id))
        await store.journal.commit(story.begin(start_key("k")))
        await store.journal.commit(story.dispatch())
        await store.logs.append(story.id, LOAD, 1, 1, LogStream.STDOUT, 0, b"hello\n")
        await refused(IllegalTransition, store.reader.delete(story.id))
        await store.journal.commit(story.finish())
        await store.reader.delete(story.id)

        await refused(NotFound, store.reader.execution(story.id))
        assert place.run_sql("SELECT count(*) FROM history") == [(0,)]
        assert await store.logs.attempts(story.id, LOAD) == []
        assert await store.integrity() == []


async def listings_use_indexes(place: Place) -> None:
    listings = ("list_executions", "list_executions_of_workflow", "list_executions_of_status", "search_executions")
    single = (
        "search_executions_of_label",
        "list_unfinished_executions",
        "history_page",
        "whole_history",
        "waiting_commands",
        "owned_executions",
    )
    pools = ("places_held", "queue_of_pool", "holders_of_pool", "count_of_pool", "claims_of_execution")
    for query in (*listings, *single, *pools, "step_rows", "newest_definition", "list_versions", "execution_row"):
        assert place.full_scans(query) == [], f"{query}: {place.full_scans(query)}"


# --- migrations and integrity ---


async def reopening_changes_nothing(place: Place) -> None:
    async with opened(place, owning=False) as first, opened(place, owning=False) as second:
        assert first.installation == second.installation
        assert first.installation.startswith("fxi_")
        assert first.schema_version == second.schema_version


async def a_newer_schema_is_refused(place: Place) -> None:
    place.open().close()
    place.run_sql("INSERT INTO schema_versions VALUES (9999, 'from_the_future', 0)")
    try:
        place.open().close()
    except Conflict as error:
        assert "9999" in error.message, error.message
        assert error.hint
    else:
        raise AssertionError("a store of a newer version was opened")


async def history_cannot_be_changed_behind_the_store(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), story.dispatch()):
            await store.journal.commit(changes)
        for statement in ("UPDATE history SET at = 0", "DELETE FROM history", "DELETE FROM executions"):
            try:
                place.run_sql(statement)
            except sqlite3.IntegrityError:
                continue
            raise AssertionError(f"{statement} was accepted")

        assert await length(store, story.id) == 2


async def a_gap_is_found(place: Place) -> None:
    story = Story()
    async with opened(place) as store:
        for changes in (story.begin(), story.dispatch()):
            await store.journal.commit(changes)
        place.run_sql("UPDATE executions SET seq = 3")

        (fault,) = await store.integrity()
        assert fault.execution == story.id, fault


# --- logs and artifacts ---


async def logs_come_back_in_order_and_only_once(place: Place) -> None:
    id = fresh_execution()
    path = StepPath("fan[3].score")
    async with opened(place, owning=False) as store:
        await store.logs.append(id, path, 1, 1, LogStream.STDOUT, 0, b"one\ntwo\n")
        await store.logs.append(id, path, 1, 1, LogStream.STDERR, 0, b"oops\n")
        await store.logs.append(id, path, 1, 1, LogStream.STDOUT, 4, b"two\nthree\n")
        await store.logs.append(id, path, 1, 1, LogStream.STDOUT, 0, b"one\n")
    async with opened(place, owning=False) as store:
        await store.logs.append(id, path, 1, 1, LogStream.STDOUT, 8, b"three\nfour\n")
        pieces, cursor = await store.logs.read(id, path)
        nothing, same = await store.logs.read(id, path, offset=cursor)

        assert [piece.data for piece in pieces] == [b"one\ntwo\n", b"oops\n", b"three\n", b"four\n"]
        assert [piece.offset for piece in pieces] == [0, 0, 8, 14]
        assert (nothing, same) == ([], cursor)
        assert await store.logs.offsets(id, path, 1) == {LogStream.STDOUT: 19, LogStream.STDERR: 5}
        only, _ = await store.logs.read(id, path, stream=LogStream.STDERR)
        assert b"".join(piece.data for piece in only) == b"oops\n"


async def late_output_is_refused(place: Place) -> None:
    id = fresh_execution()
    async with opened(place, owning=False) as store:
        await store.logs.append(id, LOAD, 1, 1, LogStream.STDOUT, 0, b"first\n")
        await store.logs.append(id, LOAD, 2, 2, LogStream.STDOUT, 0, b"second\n")
        await refused(Fenced, store.logs.append(id, LOAD, 1, 1, LogStream.STDOUT, 6, b"late\n"))

        last, _ = await store.logs.read(id, LOAD)
        first, _ = await store.logs.read(id, LOAD, attempt=1)
        assert [piece.data for piece in (*last, *first)] == [b"second\n", b"first\n"]
        assert await store.logs.attempts(id, LOAD) == [1, 2]


async def log_names_never_leave_their_folder(place: Place) -> None:
    async with opened(place, owning=False) as store:
        for path in ("../x", "a/b", "..", ".hidden", "", "a\0b", "a\\b", "é"):
            await refused(InvalidInput, store.logs.read(fresh_execution(), StepPath(path)))
        for id in ("..", "exe_../x", "", "exe_A", "/etc"):
            await refused(InvalidInput, store.logs.read(ExecutionId(id), LOAD))
        deep = StepPath(".".join(["branch"] * 100))
        id = fresh_execution()
        await store.logs.append(id, deep, 1, 1, LogStream.STDOUT, 0, b"deep")
        assert (await store.logs.read(id, deep))[0][0].data == b"deep"


def artifact_file(store: Store, ref: Ref) -> Path:
    """Say where the bytes of a reference are, in a store that keeps them in its folder."""
    return LocalArtifacts(store.folder / "artifacts").path(ref)


async def artifacts_are_named_by_their_content(place: Place) -> None:
    data = os.urandom(300_000)
    async with opened(place, owning=False) as store:
        ref = await store.artifacts.put(data, format="parquet")
        assert (ref.bytes, ref.format) == (300_000, "parquet")
        assert await store.artifacts.put(data, format="parquet") == ref
    async with opened(place, owning=False) as store:
        assert await store.artifacts.get(ref) == data
        await refused(NotFound, store.artifacts.get(Ref(uri=f"artifact:sha256-{'0' * 64}", bytes=1)))
        for uri in ("artifact:../../flexcore.db", "artifact:sha256-../x", "file:///etc/passwd", f"{ref.uri}/.."):
            await refused(InvalidInput, store.artifacts.get(Ref(uri=uri, bytes=1)))


async def a_damaged_artifact_is_not_given_out(place: Place) -> None:
    async with opened(place, owning=False) as store:
        ref = await store.artifacts.put(b"[1,2,3]")
        artifact_file(store, ref).write_bytes(b"[1,2,4]")
        await refused(InternalError, store.artifacts.get(ref))


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None
    return pipe


async def _start(place: Place, role: str, argument: str) -> "tuple[subprocess.Popen[bytes], Any]":
    command = place.child(role, argument)
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)  # noqa: ASYNC220 our own child
    return child, json.loads(await asyncio.to_thread(_pipe(child.stdout).readline))


def _kill(child: "subprocess.Popen[bytes]") -> None:
    child.kill()
    child.wait()
    _pipe(child.stdin).close()
    _pipe(child.stdout).close()


CHECKS: tuple[Check, ...] = (
    commits_are_durable_after_reopening,
    acknowledged_means_visible_to_others,
    killed_processes_lose_nothing_acknowledged,
    histories_have_no_gaps,
    a_wrong_precondition_is_refused_alone,
    one_execution_may_appear_twice_in_a_group,
    a_zombie_is_fenced,
    nobody_writes_without_owning,
    another_owners_execution_is_not_written,
    an_ended_step_never_changes,
    an_old_token_is_refused,
    an_ended_execution_never_changes,
    an_end_without_a_time_is_refused,
    what_cannot_be_stored_fails_only_its_caller,
    one_start_per_idempotency_key,
    an_idempotency_key_is_kept_seven_days,
    commands_reach_the_owner_and_only_the_owner,
    own_commits_wake_only_readers,
    a_command_is_consumed_with_its_answer,
    a_pool_never_has_more_holders_than_places,
    a_place_that_is_given_back_can_be_taken_in_the_same_group,
    who_waits_longest_is_first_in_a_pool,
    nothing_is_asked_of_what_has_ended,
    cached_results_expire,
    an_owner_finds_its_open_executions_whole,
    full_durability_is_verified,
    a_killed_owner_is_found_and_taken_over,
    one_execution_can_be_taken_alone,
    two_takers_never_get_the_same,
    releasing_leaves_unfinished_work_for_the_next,
    a_definition_comes_back_as_it_went_in,
    deploying_makes_a_version_the_newest,
    a_deleted_name_leaves_its_versions,
    executions_are_listed_newest_first_in_pages,
    executions_are_filtered,
    history_is_read_in_pages,
    only_what_has_ended_is_deleted,
    listings_use_indexes,
    reopening_changes_nothing,
    a_newer_schema_is_refused,
    history_cannot_be_changed_behind_the_store,
    a_gap_is_found,
    logs_come_back_in_order_and_only_once,
    late_output_is_refused,
    log_names_never_leave_their_folder,
    artifacts_are_named_by_their_content,
    a_damaged_artifact_is_not_given_out,
)
"""Every check, by the name of its function: also the name under which it is reported."""
