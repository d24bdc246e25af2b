"""Writes down who changed what: each call that changes something leaves one line, whether it was done or refused."""

from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import structlog

from flexcore.model.errors import FlexCoreError, Unavailable
from flexcore.model.requests import AuditQuery, Document, Page
from flexcore.model.values import JSON
from flexcore.monitor import document as show
from flexcore.store.audit import AuditEntry, AuditTrail

_log = structlog.get_logger(__name__)

_MOST_CHARACTERS = 1000


@dataclass(slots=True)
class Call:
    """A call that is under way. `entry` is its line; whoever writes that with the change itself sets `is_written`."""

    entry: AuditEntry
    is_written: bool = False

    def tell(self, subject: str | None = None, /, **details: JSON) -> None:
        """Add what is known only now."""
        known = {**self.entry.details, **details}
        self.entry = replace(self.entry, subject=subject or self.entry.subject, details=known)

    def handed_over(self) -> AuditEntry:
        """Give the line to be written in the transaction of the change."""
        self.is_written = True
        return self.entry


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditing:
    """The trail as one actor writes it: a user of this machine, or a token of the server."""

    trail: AuditTrail
    now: Callable[[], datetime]
    actor: str = field(default="unknown")

    @asynccontextmanager
    async def call(
        self, action: str, subject: str, workspace: str = "", /, *, soon: bool = False, **details: JSON
    ) -> AsyncGenerator[Call, None]:
        """Audit what happens inside. With `soon`, the caller is not kept waiting for the line to be on disk."""
        known = {name: _short(value) for name, value in details.items() if value is not None}
        call = Call(self._entry(action, _short(subject), workspace, known))
        try:
            yield call
        except FlexCoreError as error:
            await self._write(replace(call.entry, outcome=error.code), soon=False)
            raise
        if not call.is_written:
            await self._write(call.entry, soon=soon)

    async def entries(self, query: AuditQuery) -> Page[Document]:
        """Give the trail, newest first."""
        page = await self.trail.entries(query)
        return Page(tuple(_document(each) for each in page.items), page.next)

    def _entry(self, action: str, subject: str, workspace: str, details: Mapping[str, JSON]) -> AuditEntry:
        return AuditEntry(
            at=self.now(), workspace=workspace, actor=self.actor, action=action, subject=subject, details=details
        )

    async def _write(self, entry: AuditEntry, *, soon: bool) -> None:
        try:
            if soon:
                self.trail.post(entry)
            else:
                await self.trail.add(entry)
        except Unavailable as error:
            # What it tells has happened, or was refused for a reason that the caller must see: neither may change.
            _log.error("audit.lost", action=entry.action, subject=entry.subject, reason=error.message)


def _short(value: Any) -> Any:
    """Cut what a caller has typed: nobody fills the trail by a name that is refused."""
    return f"{value[:_MOST_CHARACTERS]}…" if isinstance(value, str) and len(value) > _MOST_CHARACTERS else value


def _document(entry: AuditEntry) -> Document:
    return {
        "at": show.time(entry.at),
        "workspace": entry.workspace,
        "actor": entry.actor,
        "action": entry.action,
        "subject": entry.subject,
        "details": dict(entry.details),
        "outcome": entry.outcome,
    }
