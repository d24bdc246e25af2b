"""What is particular to SQLite: the file, the folder, locks, and what happens when the disk refuses."""

import asyncio
import os
import sqlite3
import stat
import subprocess
import sys
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from flexcore.model.errors import Ambiguous, InvalidSettings, StoreUnavailable
from flexcore.store.database import SqliteOptions, connect
from flexcore.store.locks import HeldLock, is_free
from flexcore.store.queries import load
from flexcore.store.rows import Rows
from flexcore.store.sqlite import FILE_NAME, Parts, Store, database_file, open_store
from flexcore.store.sqlite_changes import ChangeWriter, Outcome
from flexcore.store.sqlite_schema import Migration, migrate, migrations
from flexcore.store.write import Owner
from flexcore.testing.store_samples import START, Story, now


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = open_store(tmp_path / ".flexcore", now=now)
    await store.ownership.acquire()
    yield store
    await store.ownership.release()
    store.close()


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


async def test_the_folder_is_for_its_owner_only(store: Store) -> None:
    folders = [store.folder, *(store.folder / name for name in ("locks", "logs", "artifacts"))]

    assert [oct(mode(folder)) for folder in folders] == ["0o700"] * 4


def test_a_url_names_a_file() -> None:
    assert database_file("sqlite:///.flexcore/flexcore.db") == Path(".flexcore/flexcore.db")
    assert database_file("sqlite:////srv/flexcore.db") == Path("/srv/flexcore.db")
    for wrong in ("sqlite://", "sqlite:///", "postgresql://x/y", "flexcore.db", "sqlite:///x?mode=ro"):
        with pytest.raises(InvalidSettings):
            database_file(wrong)


async def test_reduced_durability_is_named(tmp_path: Path) -> None:
    store = open_store(tmp_path, now=now, parts=Parts(options=SqliteOptions(synchronous="OFF")))

    assert (await store.reader.status()).durability == "reduced: synchronous is off, not full"
    store.close()


async def test_a_full_disk_refuses_and_the_store_goes_on_when_it_clears(store: Store) -> None:
    story = Story()
    await store.journal.commit(story.begin())
    pages = await store.writing.run(lambda c: c.execute("PRAGMA page_count").fetchone()[0])
    await store.writing.run(lambda c: c.execute(f"PRAGMA max_page_count = {pages}").fetchall())
    large = Story()
    large.header = replace(large.header, labels={"padding": "x" * 100_000})
    results = await asyncio.gather(
        store.journal.commit(large.begin()), store.journal.commit(Story().begin()), return_exceptions=True
    )

    assert [type(result) for result in results] == [StoreUnavailable] * 2
    assert isinstance(results[0], StoreUnavailable) and "free some space" in results[0].hint
    assert results[0] is not results[1]

    await store.writing.run(lambda c: c.execute("PRAGMA max_page_count = 1000000").fetchall())
    await store.journal.commit(large.begin_again())
    await store.journal.commit(story.dispatch())
    assert await store.integrity() == []


async def test_a_busy_store_is_unavailable_not_broken(tmp_path: Path) -> None:
    options = SqliteOptions(busy_timeout=timedelta(milliseconds=20))
    store = open_store(tmp_path, now=now, parts=Parts(options=options))
    await store.ownership.acquire()
    blocker = sqlite3.connect(tmp_path / FILE_NAME, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    story = Story()

    with pytest.raises(StoreUnavailable, match="locked"):
        await store.journal.commit(story.begin())

    blocker.execute("ROLLBACK")
    blocker.close()
    await store.journal.commit(story.begin_again())
    store.close()


class FailsAtTheEnd(ChangeWriter):
    """A commit whose answer is an error, although it happened (`is_written`) or did not."""

    is_written = True
    can_look = True

    def _end(self, connection: sqlite3.Connection, written: Sequence[Rows]) -> None:
        connection.execute("COMMIT" if self.is_written else "ROLLBACK")
        super()._end(connection, written)  # "cannot commit - no transaction is active"

    def _happened(self, connection: sqlite3.Connection, rows: Rows) -> bool:
        if not self.can_look:
            raise sqlite3.OperationalError("disk I/O error")
        return super()._happened(connection, rows)


class FailsUnwritten(FailsAtTheEnd):
    is_written = False


class FailsBlindly(FailsAtTheEnd):
    can_look = False


async def test_an_error_after_commit_is_resolved_by_looking(tmp_path: Path) -> None:
    for kind, expected in ((FailsAtTheEnd, None), (FailsUnwritten, "refused"), (FailsBlindly, "ambiguous")):
        store = open_store(tmp_path / kind.__name__, now=now, parts=Parts(changes=kind))
        await store.ownership.acquire()
        outcome = "refused"
        try:
            await store.journal.commit(Story().begin())
            outcome = "written"
        except Ambiguous:
            outcome = "ambiguous"
        except Exception as error:
            assert "COMMIT" in str(error) or "commit" in str(error)
        store.close()

        assert outcome == (expected or "written")


async def test_a_cancelled_caller_does_not_undo_or_block_the_group(store: Store) -> None:
    abandoned, other = Story(), Story()
    task = asyncio.create_task(store.journal.commit(abandoned.begin()))
    await asyncio.sleep(0)
    task.cancel()
    await store.journal.commit(other.begin())

    assert task.cancelled() or task.cancelling()
    assert (await store.reader.execution(abandoned.id)).state.seq == 1


async def test_a_closed_store_refuses(tmp_path: Path) -> None:
    store = open_store(tmp_path, now=now)
    await store.ownership.acquire()
    store.close()

    for work in (store.journal.commit(Story().begin()), store.reader.status()):
        with pytest.raises(StoreUnavailable, match="closed"):
            await work


async def test_groups_are_bounded(tmp_path: Path) -> None:
    sizes = []

    class Counts(ChangeWriter):
        def commit(self, connection: sqlite3.Connection, owner: Owner, group: Sequence[Rows]) -> Sequence[Outcome]:
            sizes.append(len(group))
            return super().commit(connection, owner, group)

    store = open_store(tmp_path, now=now, parts=Parts(options=SqliteOptions(group_limit=8), changes=Counts))
    await store.ownership.acquire()
    await asyncio.gather(*(store.journal.commit(Story().begin()) for _ in range(20)))
    store.close()

    assert sizes == [8, 8, 4]


def test_a_database_that_is_none_is_named(tmp_path: Path) -> None:
    (tmp_path / FILE_NAME).write_bytes(b"not a database, but long enough to be taken for one" * 40)

    with pytest.raises(StoreUnavailable, match="not a database"):
        open_store(tmp_path, now=now)


async def test_a_damaged_page_is_reported(tmp_path: Path) -> None:
    store = open_store(tmp_path, now=now)
    await store.ownership.acquire()
    story = Story()
    for changes in (story.begin(), story.dispatch()):
        await store.journal.commit(changes)
    store.close()
    root = sqlite3.connect(tmp_path / FILE_NAME).execute("SELECT rootpage FROM sqlite_schema WHERE name = 'history'")
    with (tmp_path / FILE_NAME).open("r+b") as file:
        file.seek((root.fetchone()[0] - 1) * 4096)
        file.write(b"\x00" * 4096)

    damaged = open_store(tmp_path, now=now)
    assert any("damaged" in fault.message for fault in await damaged.integrity())
    damaged.close()


# --- migrations ---


def schema_of(connection: sqlite3.Connection) -> list[tuple[str, ...]]:
    return connection.execute("SELECT type, name, sql FROM sqlite_schema ORDER BY type, name").fetchall()


def test_a_store_that_was_migrated_is_like_a_fresh_one(tmp_path: Path) -> None:
    sql, known = load("sqlite"), (*migrations(), Migration(9998, "later", "CREATE TABLE later (id TEXT) STRICT;"))
    fresh, old = (connect(tmp_path / name, SqliteOptions()) for name in ("fresh.db", "old.db"))
    migrate(fresh, sql, known, START)
    for count in range(1, len(known) + 1):
        migrate(old, sql, known[:count], START)

    assert schema_of(fresh) == schema_of(old)
    fresh.close()
    old.close()


def test_a_migration_that_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    sql, connection = load("sqlite"), connect(tmp_path / FILE_NAME, SqliteOptions())
    migrate(connection, sql, migrations(), START)
    before = schema_of(connection)
    broken = Migration(9998, "broken", "CREATE TABLE half (id TEXT);\nINSERT INTO nowhere VALUES (1);\n")

    with pytest.raises(sqlite3.OperationalError, match="nowhere"):
        migrate(connection, sql, (*migrations(), broken), START)

    assert schema_of(connection) == before
    connection.close()


def test_many_processes_may_make_the_store_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flexcore.testing.store_child", str(tmp_path / "store"), "hold", "1"]
    children = [subprocess.Popen(command, stdout=subprocess.PIPE) for _ in range(4)]
    try:
        said = [child.stdout.readline() for child in children if child.stdout]
    finally:
        for child in children:
            child.kill()
            child.communicate()

    assert all(b"srv_" in line for line in said)


# --- locks ---


def test_a_child_does_not_inherit_the_lock(tmp_path: Path) -> None:
    path = tmp_path / "srv_1.lock"
    held = HeldLock(path)
    spawned = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False)
    reading, writing = os.pipe()
    forked = os.fork()
    if forked == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)

    assert not is_free(path)
    held.release(remove=False)
    os.write(writing, b".")
    os.waitpid(forked, 0)
    is_free_now = is_free(path)
    spawned.communicate(b"\n")
    os.close(writing)

    assert is_free_now


def test_a_lock_that_was_removed_while_it_was_taken_is_taken_again(tmp_path: Path) -> None:
    path = tmp_path / "srv_1.lock"
    first = HeldLock(path)
    first.release(remove=True)
    second = HeldLock(path)

    assert path.exists() and not is_free(path)
    second.release(remove=True)
    assert not path.exists()
