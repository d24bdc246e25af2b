"""Takes old things out of a SQLite store and its folder, a little at a time, so that nobody waits for it.

What is still needed is found in the history, which has every reference that a state has and is never changed. A crash
at any place leaves what was to go for the next time: first the row, then the files that nobody else can name.
"""

import asyncio
import json
import os
import re
import shutil
import sqlite3
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from flexcore.model.errors import Conflict, StoreUnavailable
from flexcore.model.ids import ExecutionId
from flexcore.store.database import Lane
from flexcore.store.locks import exclusive
from flexcore.store.logs import LogStore
from flexcore.store.queries import Queries
from flexcore.store.retention import GRACE, Collected, CollectedArtifacts, Gone
from flexcore.store.rows import DEFINITION, Row, microseconds

_PAGE = 500
_STRETCH = 2000  # rows that are looked through at a time
_ENTRIES_AT_ONCE = 2000  # history entries that one transaction removes, unless a single execution has more
_ROWS_AT_ONCE = 1000

_CONTENT = re.compile(r"(?:sha256|made)-[0-9a-f]{64}")
_VERSION = re.compile(r"v-[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class _Ended:
    """An execution that may go. `entries` is the length of its history."""

    id: ExecutionId
    entries: int
    parent: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class SqliteRetention:
    """Implements `Retention`."""

    writer: Lane
    reader: Lane
    sql: Queries
    log_store: LogStore
    artifact_store: CollectedArtifacts
    folder: Path
    now: Callable[[], datetime]

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Be the only one who collects in this store. Raises Conflict."""
        with ExitStack() as held:
            try:
                held.enter_context(exclusive(self.folder / "locks" / "collect.lock", 0))
            except StoreUnavailable as error:
                hint = "wait for it; a server collects by itself now and then"
                raise Conflict("another process is collecting in this store", hint=hint) from error
            yield

    async def executions(
        self, before: datetime, *, keep_last: int, dry_run: bool
    ) -> tuple[Collected, frozenset[ExecutionId]]:
        """Remove executions that ended before, with their logs. A sub-execution goes after its parent."""
        gone: set[ExecutionId] = set()
        total, progress = Collected(), True
        while progress:
            progress = False
            async for page in self._ended(before, keep_last):
                # In a dry run the parents do not really go: those that would are remembered.
                fresh = [each for each in page if each.id not in gone and (each.parent is None or each.parent in gone)]
                for batch in _batches(fresh):
                    removed = await self._remove_executions(batch, before, gone, dry_run=dry_run)
                    total += removed
                    progress = progress or removed.count > 0
        return total, frozenset(gone)

    async def versions(
        self, before: datetime, gone: Collection[ExecutionId], *, dry_run: bool
    ) -> tuple[Collected, frozenset[tuple[str, str, str]]]:
        """Remove versions that nobody can run any more, with the copies that were unpacked to run them."""
        used = await self._used_versions(gone)
        total, removed = Collected(), set[tuple[str, str, str]]()
        async for workspace, name, version, body, is_offered in self._definitions():
            if is_offered or version in used or DEFINITION.decode(body).created_at >= before:
                continue
            key = (workspace, name, version)
            if dry_run or await self._remove_version(key):
                removed.add(key)
                total += Collected(1, len(body))
        return total, frozenset(removed)

    async def cache(self, before: datetime, *, dry_run: bool) -> Collected:
        """Remove cached results that expired before."""
        return await self._rows("cache", {"before": microseconds(before)}, dry_run)

    async def keys(self, expired_before: datetime, answered_before: datetime, *, dry_run: bool) -> Collected:
        """Remove idempotency keys that have expired, and commands that were answered."""
        keys = await self._rows("keys", {"before": microseconds(expired_before)}, dry_run)
        return keys + await self._rows("commands", {"before": microseconds(answered_before)}, dry_run)

    async def audit(self, before: datetime, *, dry_run: bool) -> Collected:
        """Remove old lines of the audit trail."""
        return await self._rows("audit", {"before": microseconds(before)}, dry_run)

    async def logs(self, before: datetime, gone: Collection[ExecutionId], *, dry_run: bool) -> Collected:
        """Remove the logs of executions that ended before, and of those that are not there at all."""
        total = Collected()
        names = await asyncio.to_thread(lambda: sorted(each.name for each in self._logs.glob("exe_*")))
        for start in range(0, len(names), _PAGE):
            page = [ExecutionId(name) for name in names[start : start + _PAGE] if name not in gone]
            for id in await self._without_need_of_logs(page, before):
                total += Collected(1, await asyncio.to_thread(_size, self._logs / id))
                if not dry_run:
                    await self.log_store.delete(id)
        return total

    async def artifacts(self, before: datetime, gone: Gone, *, dry_run: bool) -> Collected:
        """Remove content stored before, and long enough ago, that nobody refers to.

        What was stored since an attempt that is still in flight went out may be its own: nobody refers to its outputs
        before its end is committed, and to the files that were packed for it nobody ever does.
        """
        limit = min(before, await self._nothing_out_since() - GRACE)
        candidates = dict(await self.artifact_store.old(limit))
        if candidates:
            async for text in self._texts(gone):
                for name in _CONTENT.findall(text):
                    candidates.pop(name, None)
        if not dry_run:
            candidates = dict(await self.artifact_store.remove(list(candidates), limit))
        return Collected(len(candidates), sum(candidates.values()))

    async def _nothing_out_since(self) -> datetime:
        """Give the time before which no attempt went out that is in flight now."""
        ((oldest,),) = await self._fetch(self.sql["oldest_attempt_in_flight"], {})
        now = self.now()
        return now if oldest is None else min(now, datetime.fromisoformat(oldest))

    async def _ended(self, before: datetime, keep_last: int) -> AsyncIterator[Sequence[_Ended]]:
        position = (-(2**62), "")
        while True:
            asked = {
                "before": microseconds(before),
                "after": position[0],
                "after_id": position[1],
                "keep": keep_last,
                "limit": _PAGE,
            }
            rows = await self._fetch(self.sql["ended_executions"], asked)
            if not rows:
                return
            position = (rows[-1][2], rows[-1][0])
            yield [_Ended(ExecutionId(id), entries, parent) for id, entries, _, parent in rows]

    async def _remove_executions(
        self, batch: Sequence[_Ended], before: datetime, gone: set[ExecutionId], *, dry_run: bool
    ) -> Collected:
        sizes: dict[ExecutionId, int] = {}
        for each in batch:
            ((size,),) = await self._fetch(self.sql["execution_bytes"], {"execution": each.id}) or [(0,)]
            sizes[each.id] = size + await asyncio.to_thread(_size, self._logs / each.id)
        if dry_run:
            removed = list(sizes)
        else:
            asked = [{"execution": each.id, "before": microseconds(before)} for each in batch]
            removed = await self.writer.write(lambda connection: self._delete(connection, asked))
            for id in removed:
                await self.log_store.delete(id)
        gone.update(removed)
        return Collected(len(removed), sum(sizes[id] for id in removed))

    def _delete(self, connection: sqlite3.Connection, asked: Sequence[dict[str, object]]) -> list[ExecutionId]:
        sql = self.sql["collect_execution"]
        return [ExecutionId(str(each["execution"])) for each in asked if connection.execute(sql, each).rowcount == 1]

    async def _remove_version(self, key: tuple[str, str, str]) -> bool:
        workspace, name, version = key
        asked = {"workspace": workspace, "name": name, "version": version}
        if not await self.writer.write(lambda c: c.execute(self.sql["collect_version"], asked).rowcount):
            return False
        # Another name or workspace may have the same version: then it is unpacked again when it is needed.
        await asyncio.to_thread(shutil.rmtree, self.folder / "versions" / version, ignore_errors=True)
        return True

    async def _rows(self, what: str, asked: dict[str, object], dry_run: bool) -> Collected:
        """Count what may go, and remove it a few rows at a time."""
        count, remove = self._statements[what]
        ((number, size),) = await self._fetch(count, asked)
        more = {**asked, "limit": _ROWS_AT_ONCE}
        while number and not dry_run:
            removed = await self.writer.write(lambda c: c.execute(remove, more).rowcount)
            if removed < _ROWS_AT_ONCE:
                break
        return Collected(number, size)

    @property
    def _logs(self) -> Path:
        return self.folder / "logs"

    @property
    def _statements(self) -> dict[str, tuple[str, str]]:
        sql = self.sql
        return {
            "cache": (sql["expired_cache"], sql["collect_cache"]),
            "keys": (sql["expired_keys"], sql["collect_keys"]),
            "commands": (sql["answered_commands"], sql["collect_commands"]),
            "audit": (sql["old_audit"], sql["collect_audit"]),
        }

    async def _without_need_of_logs(self, ids: Sequence[ExecutionId], before: datetime) -> list[ExecutionId]:
        rows = await self._fetch(self.sql["finished_among"], {"ids": json.dumps(ids)})
        ended: dict[str, int | None] = dict(rows)
        limit = microseconds(before)
        unknown = [id for id in ids if id not in ended]
        # A folder made a moment ago belongs to an execution that began after the rows were read.
        left = await asyncio.to_thread(lambda: {id for id in unknown if self._is_old(self._logs / id)})
        over = {id for id, at in ended.items() if at is not None and at < limit}
        return [id for id in ids if id in left or id in over]

    def _is_old(self, folder: Path) -> bool:
        try:
            return folder.stat().st_mtime < (self.now() - GRACE).timestamp()
        except FileNotFoundError:
            return False

    async def _used_versions(self, gone: Collection[ExecutionId]) -> set[str]:
        used: set[str] = set()
        after = ""
        while rows := await self._fetch(self.sql["execution_bodies"], {"after": after, "limit": _STRETCH}):
            after = rows[-1][0]
            for id, body in rows:
                if id not in gone:
                    used.update(_VERSION.findall(body))
        return used

    async def _definitions(self) -> AsyncIterator[Row]:
        async for row in self._stretches(self.sql["definition_bodies"], self.sql["last_definition_row"]):
            yield row

    async def _texts(self, gone: Gone) -> AsyncIterator[str]:
        """Give every text that can name content."""
        async for execution, body in self._stretches(self.sql["history_references"], self.sql["last_history_row"]):
            if execution not in gone.executions:
                yield body
        async for workspace, name, version, body, _ in self._definitions():
            if (workspace, name, version) not in gone.versions:
                yield body
        before = -(2**62) if gone.cache_before is None else microseconds(gone.cache_before)
        for (result,) in await self._fetch(self.sql["cache_references"], {"before": before}):
            yield result
        for (body,) in await self._fetch(self.sql["command_references"], {}):
            yield body

    async def _stretches(self, query: str, last_row: str) -> AsyncIterator[Row]:
        """Read a table from end to end, also what is added meanwhile."""
        after = 0
        while True:
            ((last,),) = await self._fetch(last_row, {})
            if after >= last:
                return
            for row in await self._fetch(query, {"after": after, "until": after + _STRETCH}):
                yield row
            after += _STRETCH

    async def _fetch(self, query: str, asked: dict[str, object]) -> list[Row]:
        return await self.reader.run(lambda connection: connection.execute(query, asked).fetchall())


def _batches(ended: Sequence[_Ended]) -> Iterator[Sequence[_Ended]]:
    batch: list[_Ended] = []
    entries = 0
    for each in ended:
        if batch and entries + each.entries > _ENTRIES_AT_ONCE:
            yield batch
            batch, entries = [], 0
        batch.append(each)
        entries += each.entries
    if batch:
        yield batch


def _size(folder: Path) -> int:
    total = 0
    for here, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += (Path(here) / name).stat().st_size
    return total
