"""What every store has to do for those who look after it: remove what is old, pin versions, keep an audit trail.

The other half of the store's suite (`store_suite.py`), with the same places and the same kind of checks.
"""

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from flexcore.model.errors import AlreadyExists, Conflict, InvalidInput, InvalidRequest, NotFound
from flexcore.model.ids import ExecutionId
from flexcore.model.requests import AuditQuery
from flexcore.model.values import Payload, Ref
from flexcore.runtime.interface import LogStream
from flexcore.store.audit import AuditEntry
from flexcore.store.read import Standing
from flexcore.store.retention import Collected, Gone
from flexcore.store.sqlite import Store
from flexcore.store.write import CacheEntry
from flexcore.testing.store_samples import LOAD, Story, definition, now, start_key
from flexcore.testing.store_suite import Check, Place, artifact_file, opened, refused

_DAY = timedelta(days=1)


async def told(store: Store, story: Story, *, ended: bool = True, result: Payload | None = None) -> ExecutionId:
    """Commit the life of an execution, with output."""
    for changes in (story.begin(), story.dispatch(), story.succeed(result=result or Payload({"rows": 1}))):
        await store.journal.commit(replace(changes, cache=()))
    await store.logs.append(story.id, LOAD, 1, 1, LogStream.STDOUT, 0, b"hello\n")
    if ended:
        await store.journal.commit(story.finish())
    return story.id


async def present(store: Store) -> set[ExecutionId]:
    """Name the executions that are there."""
    return set((await store.reader.ids()).items)


async def content(store: Store, text: str, age: timedelta = _DAY) -> Ref:
    """Store content as if it had been stored so long ago."""
    ref = await store.artifacts.put(text.encode())
    at = (now() - age).timestamp()
    os.utime(artifact_file(store, ref), (at, at))
    return ref


def is_there(store: Store, ref: Ref) -> bool:
    """Say whether content is still in the store."""
    return artifact_file(store, ref).is_file()


def line(subject: str, at: datetime | None = None, **more: str) -> AuditEntry:
    """Make a line of the audit trail."""
    entry = AuditEntry(at=at or now(), workspace="default", actor="ann", action="pin", subject=subject)
    return replace(entry, **more)  # type: ignore[arg-type]  # only texts are replaced here


# --- retention ---


async def an_old_execution_goes_with_everything_of_it(place: Place) -> None:
    old, young, open_ = Story(at=now() - 9 * _DAY), Story(), Story(at=now() - 9 * _DAY)
    async with opened(place) as store:
        await store.journal.commit(old.begin(start_key("k")))
        await store.commands.send(old.id, "cancel", {}, now())
        await store.journal.commit(old.finish())
        await store.logs.append(old.id, LOAD, 1, 1, LogStream.STDOUT, 0, b"hello\n")
        await told(store, young)
        await told(store, open_, ended=False)

        collected, gone = await store.retention.executions(now() - _DAY, keep_last=0, dry_run=False)

        assert gone == {old.id}, gone
        assert (collected.count, collected.bytes > 0) == (1, True), collected
        assert await present(store) == {young.id, open_.id}
        assert await store.logs.attempts(old.id, LOAD) == []
        assert await store.reader.started_with("default", "etl", "k") is None
        assert await store.integrity() == []
    for table in ("history", "steps", "inputs", "commands", "start_keys"):
        rows = place.run_sql(f"SELECT 1 FROM {table} WHERE execution = '{old.id}'")  # noqa: S608 both are our own
        assert rows == [], table


async def the_newest_of_a_workflow_can_be_kept(place: Place) -> None:
    etl = [Story(at=now() - days * _DAY) for days in (9, 8, 7)]
    other = Story(workflow="other", at=now() - 20 * _DAY)
    async with opened(place) as store:
        for story in (*etl, other):
            await told(store, story)

        await store.retention.executions(now() - _DAY, keep_last=1, dry_run=False)

        assert await present(store) == {etl[2].id, other.id}


async def a_sub_execution_goes_with_its_parent(place: Place) -> None:
    parent, orphan = Story(at=now() - 2 * _DAY), Story(at=now() - 9 * _DAY)
    child, grandchild = Story(at=now() - 9 * _DAY), Story(at=now() - 9 * _DAY)
    child.header = replace(child.header, parent=parent.id)
    grandchild.header = replace(grandchild.header, parent=child.id)
    orphan.header = replace(orphan.header, parent=ExecutionId("exe_never"))
    async with opened(place) as store:
        for story in (parent, child, grandchild, orphan):
            await told(store, story)

        _, planned = await store.retention.executions(now() - _DAY, keep_last=0, dry_run=True)
        _, early = await store.retention.executions(now() - 3 * _DAY, keep_last=0, dry_run=False)
        _, late = await store.retention.executions(now() - _DAY, keep_last=0, dry_run=False)

        assert early == {orphan.id}, early
        assert late == {parent.id, child.id, grandchild.id}, late
        assert planned == early | late, planned


async def a_dry_run_removes_nothing_and_says_the_same(place: Place) -> None:
    story = Story(at=now() - 9 * _DAY)
    async with opened(place) as store:
        ref = await content(store, "large")
        await told(store, story, result=Payload(ref=ref))
        counts: list[Sequence[Collected]] = []
        for dry_run in (True, False):
            executions, gone = await store.retention.executions(now(), keep_last=0, dry_run=dry_run)
            artifacts = await store.retention.artifacts(now(), Gone(executions=gone), dry_run=dry_run)
            counts.append((executions, artifacts))
            assert is_there(store, ref) == dry_run

        assert counts[0] == counts[1], counts
        assert [each.count for each in counts[0]] == [1, 1]


async def logs_can_go_before_their_execution(place: Place) -> None:
    old, open_, young = Story(at=now() - 9 * _DAY), Story(at=now() - 9 * _DAY), Story()
    async with opened(place) as store:
        for story, ended in ((old, True), (open_, False), (young, True)):
            await told(store, story, ended=ended)

        collected = await store.retention.logs(now() - _DAY, (), dry_run=False)

        assert (collected.count, collected.bytes > 0) == (1, True), collected
        assert [await store.logs.attempts(each.id, LOAD) for each in (old, open_, young)] == [[], [1], [1]]
        assert await present(store) == {old.id, open_.id, young.id}


async def logs_without_an_execution_go_when_they_are_old(place: Place) -> None:
    left, fresh = Story(), Story()
    async with opened(place) as store:
        for story in (left, fresh):
            await store.logs.append(story.id, LOAD, 1, 1, LogStream.STDOUT, 0, b"hello\n")
        at = (now() - _DAY).timestamp()
        os.utime(store.folder / "logs" / left.id, (at, at))

        await store.retention.logs(now() - 30 * _DAY, (), dry_run=False)

        assert [await store.logs.attempts(each.id, LOAD) for each in (left, fresh)] == [[], [1]]


async def content_that_is_referred_to_stays(place: Place) -> None:
    origin, fork = Story(at=now() - 9 * _DAY), Story()
    async with opened(place) as store:
        used = {name: await content(store, name) for name in ("shared", "cached", "file", "asked", "open")}
        nobody = await content(store, "nobody")
        await told(store, origin, result=Payload(ref=used["shared"]))
        await told(store, fork, result=Payload(ref=used["shared"]))
        running = Story()
        await told(store, running, ended=False, result=Payload(ref=used["open"]))
        cached = CacheEntry(key="k", result=Payload(ref=used["cached"]), expires_at=now() + _DAY)
        await store.journal.commit(replace(running.open_scope("fan[0]"), cache=(cached,)))
        await store.commands.send(running.id, "signal", {"with": used["asked"].uri}, now())
        await store.catalog.put(replace(definition("etl", "v-1"), files={"a.py": used["file"].checksum}))

        _, gone = await store.retention.executions(now() - _DAY, keep_last=0, dry_run=False)
        collected = await store.retention.artifacts(now(), Gone(executions=gone), dry_run=False)

        assert gone == {origin.id}
        assert collected == Collected(1, len("nobody")), collected
        assert not is_there(store, nobody)
        assert [name for name, ref in used.items() if not is_there(store, ref)] == []


async def content_goes_with_the_last_that_refers_to_it(place: Place) -> None:
    story = Story(at=now() - 9 * _DAY)
    async with opened(place) as store:
        ref, cached = await content(store, "value"), await content(store, "cached")
        await store.catalog.put(replace(definition("etl", "v-1"), files={}))
        await told(store, story, ended=False, result=Payload(ref=ref))
        expired = CacheEntry(key="k", result=Payload(ref=cached), expires_at=now() - 2 * _DAY)
        await store.journal.commit(replace(story.open_scope("fan[0]"), cache=(expired,)))
        await store.journal.commit(story.finish())

        assert (await store.retention.cache(now() - _DAY, dry_run=False)).count == 1
        await store.retention.executions(now() - _DAY, keep_last=0, dry_run=False)
        await store.retention.artifacts(now(), Gone(), dry_run=False)

        assert (is_there(store, ref), is_there(store, cached)) == (False, False)
        await refused(NotFound, store.artifacts.keep([ref]))


async def young_content_is_left_alone(place: Place) -> None:
    async with opened(place) as store:
        fresh, again, kept = [await content(store, name) for name in ("fresh", "again", "kept")]
        await store.artifacts.put(b"fresh2")
        os.utime(artifact_file(store, fresh))
        await store.artifacts.put(b"again")
        await store.artifacts.keep([kept, Ref(uri="s3://elsewhere/a", bytes=1)])

        collected = await store.retention.artifacts(now(), Gone(), dry_run=False)

        assert collected == Collected(), collected
        assert all(is_there(store, ref) for ref in (fresh, again, kept))


async def content_since_an_attempt_in_flight_went_out_stays(place: Place) -> None:
    story = Story(at=now() - 3 * _DAY)
    async with opened(place) as store:
        await store.journal.commit(story.begin())
        sent = story.dispatch()
        await store.journal.commit(replace(sent, steps=tuple(replace(each, in_flight=True) for each in sent.steps)))
        before, since = [await content(store, f"{days} days old", days * _DAY) for days in (4, 2)]

        while_out = await store.retention.artifacts(now() - _DAY, Gone(), dry_run=False)
        left = [is_there(store, ref) for ref in (before, since)]
        await store.journal.commit(replace(story.succeed(result=Payload(None)), cache=()))
        afterwards = await store.retention.artifacts(now() - _DAY, Gone(), dry_run=False)

        assert left == [False, True], left
        assert [while_out.count, afterwards.count] == [1, 1], (while_out, afterwards)
        assert not is_there(store, since)


async def only_one_collects_at_a_time(place: Place) -> None:
    async with opened(place) as store, opened(place, owning=False) as other:
        with store.retention.alone():
            try:
                with other.retention.alone():
                    raise AssertionError("two collect at a time")
            except Conflict:
                pass
        with other.retention.alone():
            pass


async def expired_keys_and_answered_commands_go(place: Place) -> None:
    old, young = Story(at=now() - 9 * _DAY), Story()
    async with opened(place) as store:
        await store.journal.commit(old.begin(start_key("old")))
        answered = await store.commands.send(old.id, "cancel", {}, now() - 9 * _DAY)
        waiting = await store.commands.send(old.id, "cancel", {}, now() - 9 * _DAY)
        await store.journal.commit(old.dispatch(consumed=[answered]))
        await store.journal.commit(young.begin(start_key("young")))

        collected = await store.retention.keys(now(), now() - _DAY, dry_run=False)

        assert collected.count == 2, collected
        await refused(AlreadyExists, store.journal.commit(Story().begin(start_key("young"))))
        assert [each.id for each in await store.journal.commands()] == [waiting]
    assert place.run_sql("SELECT id FROM commands") == [(waiting,)]


async def removing_lets_others_write(place: Place) -> None:
    async with opened(place) as store, opened(place) as neighbour:
        for _ in range(30):
            await told(store, Story(at=now() - 9 * _DAY))
        removing = asyncio.create_task(store.retention.executions(now(), keep_last=0, dry_run=False))
        story = Story(at=now() + _DAY)
        await told(neighbour, story)

        collected, _ = await removing

        assert collected.count == 30, collected
        assert await present(store) == {story.id}


# --- versions ---


async def a_pinned_version_is_what_a_name_means(place: Place) -> None:
    async with opened(place) as store:
        for version in ("v-1", "v-2"):
            await store.catalog.put(definition("etl", version))
        await store.catalog.pin("default", "etl", "v-1")
        await store.catalog.put(definition("etl", "v-3"))
        pinned = await store.catalog.get("default", "etl")
        standing = await store.catalog.standing("default", "etl")
        await refused(NotFound, store.catalog.pin("default", "etl", "v-9"))
        await store.catalog.pin("default", "etl", None)

        assert (pinned.version, standing) == ("v-1", Standing("v-3", "v-1"))
        assert (await store.catalog.get("default", "etl")).version == "v-3"
        assert [each.version for each in await store.catalog.versions("default", "etl")] == ["v-3", "v-2", "v-1"]


async def deleting_a_name_takes_its_pin_along(place: Place) -> None:
    async with opened(place) as store:
        for version in ("v-1", "v-2"):
            await store.catalog.put(definition("etl", version))
        await store.catalog.pin("default", "etl", "v-1")
        await store.catalog.delete("default", "etl")
        await store.catalog.put(definition("etl", "v-3"))

        assert await store.catalog.standing("default", "etl") == Standing("v-3")


async def going_back_changes_what_is_current(place: Place) -> None:
    async with opened(place) as store:
        for version in ("v-1", "v-2"):
            await store.catalog.put(definition("etl", version))
        was = await store.catalog.standing("default", "etl")
        await store.catalog.move("default", "etl", was, "v-1", line("etl"))

        assert (await store.catalog.get("default", "etl")).version == "v-1"
        assert [each.version for each in await store.catalog.versions("default", "etl")] == ["v-2", "v-1"]
        await refused(Conflict, store.catalog.move("default", "etl", was, "v-1", line("etl")))
        current = await store.catalog.standing("default", "etl")
        await refused(Conflict, store.catalog.move("default", "etl", current, "v-9", line("etl")))
        assert len((await store.audit.entries(AuditQuery())).items) == 1


async def a_version_is_found_by_how_it_begins(place: Place) -> None:
    async with opened(place) as store:
        for version in ("v-aa11", "v-aa22", "v-b_3"):
            await store.catalog.put(definition("etl", version))

        assert (await store.catalog.get("default", "etl", "aa1")).version == "v-aa11"
        assert (await store.catalog.get("default", "etl", "v-b_")).version == "v-b_3"
        error = await refused(InvalidRequest, store.catalog.get("default", "etl", "aa"))
        assert "v-aa11" in error.hint
        for prefix in ("v-c", "%", "v-b%"):
            error = await refused(NotFound, store.catalog.get("default", "etl", prefix))
            assert "versions etl" in error.hint, error.hint
        error = await refused(NotFound, store.catalog.get("default", "other", "v-c"))
        assert "deployed: etl" in error.hint, error.hint


async def versions_that_nobody_uses_can_go(place: Place) -> None:
    names = [f"v-{digit * 16}" for digit in "12345"]
    used, unused, pinned, called, current = names
    story = Story()
    story.header = replace(story.header, version=used, pinned_versions={"child": called})
    async with opened(place) as store:
        for version in names:
            await store.catalog.put(definition("etl", version))
        await store.catalog.pin("default", "etl", pinned)
        await told(store, story)
        (store.folder / "versions" / unused).mkdir(parents=True)

        early, _ = await store.retention.versions(definition("etl", used).created_at, (), dry_run=False)
        planned, _ = await store.retention.versions(now() + 999 * _DAY, (), dry_run=True)
        collected, gone = await store.retention.versions(now() + 999 * _DAY, (), dry_run=False)

        assert early == Collected()
        assert planned == collected, (planned, collected)
        assert gone == {("default", "etl", unused)}, gone
        left = {each.version for each in await store.catalog.versions("default", "etl")}
        assert left == {used, pinned, called, current}, left
        assert not (store.folder / "versions" / unused).exists()


# --- audit ---


async def a_change_and_its_line_are_written_together(place: Place) -> None:
    async with opened(place) as store:
        await store.catalog.put(definition("etl", "v-1"), line("etl", action="deploy"))
        await refused(NotFound, store.catalog.pin("default", "etl", "v-9", line("etl")))
        await refused(NotFound, store.catalog.delete("default", "other", line("other", action="delete")))
        await store.catalog.delete("default", "etl", line("etl", action="delete"))

        lines = (await store.audit.entries(AuditQuery())).items
        assert [each.action for each in lines] == ["delete", "deploy"]


async def the_audit_trail_is_read_newest_first_in_pages(place: Place) -> None:
    entries = [line(f"w{number}", now() - number * _DAY, actor="ann" if number % 2 else "bob") for number in range(5)]
    async with opened(place) as store, opened(place, owning=False) as other:
        for entry in reversed(entries):
            await store.audit.add(entry)
        whole = replace(line("store"), workspace="", details={"workflow": "w9", "count": 3})
        store.audit.post(whole)
        store.audit.post(line("elsewhere", workspace="prod"))

        first = await store.audit.entries(AuditQuery(limit=2))
        rest = await store.audit.entries(AuditQuery(limit=10, cursor=first.next))
        assert first.items[0] == whole, first.items[0]
        assert [each.subject for each in (*first.items, *rest.items)] == ["store", "w0", "w1", "w2", "w3", "w4"]
        assert rest.next is None

        async def subjects(query: AuditQuery) -> list[str]:
            return [each.subject for each in (await other.audit.entries(query)).items]

        assert await subjects(AuditQuery(actor="bob")) == ["w0", "w2", "w4"]
        assert await subjects(AuditQuery(subject="w9")) == ["store"]
        assert await subjects(AuditQuery(since=now() - _DAY * 1.5, actor="ann")) == ["store", "w1"]
        assert await subjects(AuditQuery(workspace="prod")) == ["elsewhere", "store"]
        for cursor in ("", "-1", "next", "9" * 30):
            await refused(InvalidInput, subjects(AuditQuery(cursor=cursor)))


async def the_audit_trail_cannot_be_changed_and_can_grow_old(place: Place) -> None:
    async with opened(place) as store:
        for days in (9, 0):
            await store.audit.add(line(f"w{days}", now() - days * _DAY))
        try:
            place.run_sql("UPDATE audit SET actor = 'nobody'")
        except Exception as error:
            assert "append-only" in str(error), error
        else:
            raise AssertionError("a line was changed")

        assert (await store.retention.audit(now() - _DAY, dry_run=False)).count == 1
        assert [each.subject for each in (await store.audit.entries(AuditQuery())).items] == ["w0"]


async def what_was_posted_is_there_when_the_store_is_closed(place: Place) -> None:
    async with opened(place) as store:
        for number in range(20):
            store.audit.post(line(f"w{number}"))
    async with opened(place, owning=False) as again:
        assert len((await again.audit.entries(AuditQuery())).items) == 20


CHECKS: tuple[Check, ...] = (
    an_old_execution_goes_with_everything_of_it,
    the_newest_of_a_workflow_can_be_kept,
    a_sub_execution_goes_with_its_parent,
    a_dry_run_removes_nothing_and_says_the_same,
    logs_can_go_before_their_execution,
    logs_without_an_execution_go_when_they_are_old,
    content_that_is_referred_to_stays,
    content_goes_with_the_last_that_refers_to_it,
    young_content_is_left_alone,
    content_since_an_attempt_in_flight_went_out_stays,
    only_one_collects_at_a_time,
    expired_keys_and_answered_commands_go,
    removing_lets_others_write,
    a_pinned_version_is_what_a_name_means,
    deleting_a_name_takes_its_pin_along,
    going_back_changes_what_is_current,
    a_version_is_found_by_how_it_begins,
    versions_that_nobody_uses_can_go,
    a_change_and_its_line_are_written_together,
    the_audit_trail_is_read_newest_first_in_pages,
    the_audit_trail_cannot_be_changed_and_can_grow_old,
    what_was_posted_is_there_when_the_store_is_closed,
)
"""Every check, by the name of its function."""
