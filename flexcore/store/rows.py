"""Row ↔ model, both directions, and nothing else: no connection, no SQL, no clock.

Bodies are JSON without the fields that are at their default: most fields of most steps are, and rows are rewritten
often. What comes back is equal to what went in; a property test holds this module to it for every kind of change.
"""

from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Generic, NamedTuple, TypeVar, get_args

import msgspec

from flexcore.model.changes import Change, HistoryEntry
from flexcore.model.errors import InternalError
from flexcore.model.execution import ExecutionHeader, ScopeState, StepState
from flexcore.model.ids import ExecutionId
from flexcore.model.observation import Observation
from flexcore.model.values import JSON, NOTHING, Payload
from flexcore.store.read import Definition
from flexcore.store.write import ChangeSet, Command

Model = TypeVar("Model")
Row = tuple[Any, ...]  # what the driver takes and gives: the one place where types end

KEY_LIFETIME = timedelta(days=7)

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_any = msgspec.json.Decoder()
_observations = msgspec.json.Decoder(Observation)


def _as_plain(value: object) -> object:
    """Any mapping will do where a mapping is declared."""
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} is no JSON")


_json = msgspec.json.Encoder(enc_hook=_as_plain)
_SHARED = "placement"  # the field whose very value many rows have: a step goes where it went in the last execution
_MOST_SHARED = 256


class Codec(Generic[Model]):
    """Compact JSON of one dataclass: a field that is at its default is left out, and comes back as that default.

    The field `apart`, if any, is never in the body: it is stored in another place.
    """

    def __init__(self, model: type[Model], apart: str = "") -> None:
        if not is_dataclass(model):
            raise InternalError(f"{model.__name__} is not a dataclass and has no columns to be stored in")
        stored = [part for part in fields(model) if part.name != apart]
        self._plain = tuple((part.name, part.default) for part in stored if part.default_factory is MISSING)
        self._collections = tuple(part.name for part in stored if part.default_factory is not MISSING)
        self._is_sharing = any(part.name == _SHARED for part in stored)
        self._encoded: dict[int, tuple[object, msgspec.Raw]] = {}
        self._decoder = msgspec.json.Decoder(model)

    def encode(self, value: Model) -> str:
        """Give the JSON. Raises InternalError for what JSON cannot hold, such as half a surrogate pair."""
        body = {name: part for name, default in self._plain if (part := getattr(value, name)) is not default}
        for name in self._collections:
            if part := getattr(value, name):
                body[name] = part
        if self._is_sharing and _SHARED in body:
            body[_SHARED] = self._shared(body[_SHARED])
        return _text(body)

    def decode(self, body: str) -> Model:
        """Read it back. Raises InternalError when the store holds something else."""
        try:
            return self._decoder.decode(body)
        except msgspec.MsgspecError as error:
            raise InternalError(f"a stored body cannot be read: {error}", hint="run flexcore verify") from error

    def _shared(self, value: object) -> msgspec.Raw:
        """Encode once what comes again and again and never changes: most of what is written, twice for each attempt.

        Known by identity, because comparing costs what encoding does; held, so that nothing else gets its identity.
        """
        known = self._encoded.get(id(value))
        if known is not None:
            return known[1]
        if len(self._encoded) >= _MOST_SHARED:
            self._encoded.clear()
        raw = msgspec.Raw(_text(value).encode())
        self._encoded[id(value)] = (value, raw)
        return raw


CHANGES: dict[str, Codec[Any]] = {change.__name__: Codec(change) for change in get_args(Change)}
"""Closed: derived from the union, so a new kind of change has its codec without a line here."""

HEADER = Codec(ExecutionHeader, apart="input")
STEP = Codec(StepState)
SCOPE = Codec(ScopeState)
PAYLOAD = Codec(Payload)
DEFINITION = Codec(Definition)


class Rows(NamedTuple):
    """A change set as rows, one list per table, ready for statements that take many."""

    source: ChangeSet
    owner: str
    started: list[Row]
    inputs: list[Row]
    advanced: list[Row]
    start_keys: list[Row]
    history: list[Row]
    steps: list[Row]
    scopes: list[Row]
    consumed: list[Row]
    cache: list[Row]
    freed: list[Row]
    queued: list[Row]
    claimed: list[Row]
    observed: list[Row]


def microseconds(moment: datetime) -> int:
    """Spell a time as microseconds since 1970 UTC: exact, sortable, the same in every dialect."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(stored: int) -> datetime:
    """Read such a time."""
    return _EPOCH + stored * _MICROSECOND


def rows_of(changes: ChangeSet, owner: str) -> Rows:
    """Spell a change set as rows. Raises InternalError when its entries do not follow each other."""
    id, entries, header, claims = changes.execution, changes.entries, changes.header, changes.claims
    seq = changes.after + len(entries)
    if seq == 0 or any(entry.seq != changes.after + place for place, entry in enumerate(entries, 1)):
        raise InternalError(f"the entries for {id} do not continue its history after {changes.after}")
    created_at = microseconds(header.created_at or entries[0].at) if changes.after == 0 else 0
    times = (_optional(header.started_at), _optional(header.finished_at))
    body = HEADER.encode(header)
    named = (id, header.workspace, header.workflow, header.version, header.status.value)
    return Rows(
        source=changes,
        owner=owner,
        started=[(*named, owner, seq, created_at, *times, body)] if changes.after == 0 else [],
        inputs=[(id, PAYLOAD.encode(header.input))] if changes.after == 0 and header.input != NOTHING else [],
        advanced=[(id, changes.after, owner, seq, header.status.value, *times, body)] if changes.after else [],
        start_keys=_start_key_rows(changes, created_at),
        history=[entry_row(id, entry) for entry in entries],
        steps=[step_row(id, step) for step in changes.steps],
        scopes=[(id, each.scope, each.status.value, SCOPE.encode(each)) for each in changes.scopes],
        consumed=[(command, id, seq) for command in changes.consumed],
        cache=[(each.key, PAYLOAD.encode(each.result), microseconds(each.expires_at)) for each in changes.cache],
        freed=[(each.pool, id, each.path) for each in claims if each.limit is None and each.queued_at is None],
        queued=[(each.pool, id, each.path, microseconds(each.queued_at)) for each in claims if each.queued_at],
        claimed=[(each.pool, id, each.path, each.limit) for each in claims if each.limit and not each.queued_at],
        observed=[(_text(each),) for each in changes.observations],
    )


def entry_row(execution: str, entry: HistoryEntry) -> Row:
    """Spell a history entry: the kind is the name of the change's class."""
    kind = type(entry.change).__name__
    return (execution, entry.seq, microseconds(entry.at), kind, CHANGES[kind].encode(entry.change))


def entry_from(row: Row) -> HistoryEntry:
    """Read `(seq, at, kind, body)`. Raises InternalError for a kind this version does not know."""
    seq, at, kind, body = row
    codec = CHANGES.get(kind)
    if codec is None:
        raise InternalError(f"history has a change of unknown kind {kind!r}", hint="upgrade FlexCore")
    return HistoryEntry(seq, moment(at), codec.decode(body))


def step_row(execution: str, step: StepState) -> Row:
    """Spell a step: what writes are guarded by as columns, the whole as its body."""
    times = (_optional(step.due_at), _optional(step.finished_at))
    return (execution, step.path, step.status.value, step.attempt, step.token, step.runtime, *times, STEP.encode(step))


def header_from(body: str, input: str | None) -> ExecutionHeader:
    """Read a header and put its input back."""
    header = HEADER.decode(body)
    return header if input is None else replace(header, input=PAYLOAD.decode(input))


def command_from(row: Row) -> Command:
    """Read `(id, execution, kind, body, created_at)`."""
    id, execution, kind, body, created_at = row
    return Command(
        id=id, execution=ExecutionId(execution), kind=kind, body=_any.decode(body), created_at=moment(created_at)
    )


def observation_from(body: str) -> Observation:
    """Read an observation. Raises InternalError for what is none of this version."""
    try:
        return _observations.decode(body)
    except msgspec.MsgspecError as error:
        raise InternalError(f"an observation cannot be read: {error}") from error


def json_text(value: JSON) -> str:
    """Spell any JSON value. Raises InternalError for what is none."""
    return _text(value)


def json_from(text: str) -> Any:
    """Read what `json_text` has written."""
    return _any.decode(text)


def _text(value: object) -> str:
    try:
        return _json.encode(value).decode()
    except (TypeError, ValueError, OverflowError, RecursionError) as error:
        raise InternalError(f"a value cannot be stored as JSON: {error}") from error


def _start_key_rows(changes: ChangeSet, created_at: int) -> list[Row]:
    key = changes.start_key
    if key is None:
        return []
    expires_at = created_at + KEY_LIFETIME // _MICROSECOND
    return [(key.workspace, key.workflow, key.key, key.fingerprint, changes.execution, expires_at, created_at)]


def _optional(time: datetime | None) -> int | None:
    return None if time is None else microseconds(time)
