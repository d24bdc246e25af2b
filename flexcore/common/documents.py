"""JSON documents as typed messages and back, led by the message's descriptor.

A field stands for the document's key of the same name, or of its explicit `json_name` (`duration` for `duration_s`).
Every promised key is there when a message is read, null when unset; the few keys that documents do not promise
(`_UNPROMISED`) are there when set. Whatever has no field, or a value that its
field cannot hold exactly, travels in the message's `extra`, so that nothing is ever lost or changed on the way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, TypeAlias

from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor
from google.protobuf.message import Message

from flexcore.common.v1.json_pb2 import Json
from flexcore.common.values import (
    json_message,
    json_value,
    moment,
    seconds_message,
    seconds_value,
    time_message,
    time_text,
)
from flexcore.model.requests import Document

_EXTRA = "extra"
_UNPROMISED = frozenset(
    {
        "flexcore.api.v1.LogPiece.attempt",
        "flexcore.api.v1.RuntimeHealth.checked_at",
        "flexcore.api.v1.RuntimeHealth.start_latency",
    }
)
Write: TypeAlias = Callable[[Any], Any]  # what a document has → what a field takes; ValueError when it does not fit
Read: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class _Slot:
    """How one field and one key go together. `nested`: written in place, because messages cannot be assigned."""

    name: str
    key: str
    repeated: bool
    nullable: bool
    promised: bool
    nested: bool
    write: Write
    read: Read


@dataclass(frozen=True, slots=True)
class _Plan:
    slots: tuple[_Slot, ...]
    has_extra: bool


def fill(message: Message, document: Mapping[str, Any]) -> None:
    """Write a document into an empty message. Raises ValueError only when the message has no `extra` and needs one."""
    plan = _plan(message.DESCRIPTOR)
    extra = dict(document)
    for slot in plan.slots:
        if slot.key in extra and _put(message, slot, extra[slot.key]):
            del extra[slot.key]
    if extra and not plan.has_extra:
        raise ValueError(f"{message.DESCRIPTOR.name} has no place for {', '.join(extra)}")
    if extra:
        getattr(message, _EXTRA).CopyFrom(json_message(extra))


def document_of(message: Message) -> Document:
    """Read a message as the document that it was made of."""
    plan = _plan(message.DESCRIPTOR)
    document = {slot.key: _get(message, slot) for slot in plan.slots if slot.promised or message.HasField(slot.name)}
    if plan.has_extra and message.HasField(_EXTRA):
        document |= _mapping(json_value(getattr(message, _EXTRA)))
    return document


def enum_number(enum: EnumDescriptor, word: object) -> int:
    """Find the number of a document's word: `only-feasible` is `PLACEMENT_SOURCE_ONLY_FEASIBLE`."""
    try:
        return _numbers(enum)[word]
    except (KeyError, TypeError):
        raise ValueError(f"{enum.name} has no {word!r}") from None


def enum_word(enum: EnumDescriptor, number: int) -> str | None:
    """Find the document's word; None for the unspecified and for what only a newer version knows."""
    return _words(enum).get(number)


def _put(message: Message, slot: _Slot, value: object) -> bool:
    """Say whether the field could take the value exactly."""
    if value is None:
        return slot.nullable and slot.promised
    try:
        _assign(message, slot, value)
    except (ValueError, TypeError, OverflowError):
        message.ClearField(slot.name)
        return False
    return True


def _assign(message: Message, slot: _Slot, value: object) -> None:
    field = getattr(message, slot.name)
    if slot.repeated:
        if not isinstance(value, list | tuple):
            raise ValueError("not a list")
        for each in value:
            if slot.nested:
                fill(field.add(), _mapping(each))
            else:
                field.append(slot.write(each))
    elif slot.nested:
        fill(field, _mapping(value))
        field.SetInParent()
    elif isinstance(written := slot.write(value), Message):
        field.CopyFrom(written)
    else:
        setattr(message, slot.name, written)


def _get(message: Message, slot: _Slot) -> Any:
    if slot.repeated:
        return [slot.read(each) for each in getattr(message, slot.name)]
    if slot.nullable and not message.HasField(slot.name):
        return None
    return slot.read(getattr(message, slot.name))


@cache
def _plan(descriptor: Descriptor) -> _Plan:
    slots = tuple(_slot(each) for each in descriptor.fields if each.name != _EXTRA)
    return _Plan(slots, has_extra=_EXTRA in descriptor.fields_by_name)


def _slot(field: FieldDescriptor) -> _Slot:
    write, read = _codec(field)
    return _Slot(
        name=field.name,
        key=field.json_name if field.json_name != _camel(field.name) else field.name,
        repeated=field.is_repeated,
        nullable=field.has_presence,
        promised=field.full_name not in _UNPROMISED,
        nested=read is document_of,
        write=write,
        read=read,
    )


def _codec(field: FieldDescriptor) -> tuple[Write, Read]:
    if field.message_type is not None:
        return _MESSAGES.get(field.message_type.full_name, (_mapping, document_of))
    if (enum := field.enum_type) is not None:
        return (lambda word: enum_number(enum, word)), (lambda number: enum_word(enum, number))
    return _SCALARS[field.cpp_type], _same


def _camel(name: str) -> str:
    first, *rest = name.split("_")
    return first + "".join(each.capitalize() for each in rest)


@cache
def _numbers(enum: EnumDescriptor) -> dict[object, int]:
    return {word: number for number, word in _words(enum).items()}


@cache
def _words(enum: EnumDescriptor) -> dict[int, str]:
    """All but the zero, which every enum of ours keeps for `UNSPECIFIED` and whose name begins with the prefix."""
    prefix = len(enum.values_by_number[0].name.removesuffix("UNSPECIFIED"))
    return {each.number: each.name[prefix:].lower().replace("_", "-") for each in enum.values if each.number}


def _same(value: Any) -> Any:
    return value


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else _unfit(value)


def _text(value: Any) -> str:
    return value if isinstance(value, str) else _unfit(value)


def _truth(value: Any) -> bool:
    return value if isinstance(value, bool) else _unfit(value)


def _whole(value: Any) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else _unfit(value)


def _real(value: Any) -> float:
    exact = isinstance(value, int | float) and not isinstance(value, bool) and float(value) == value
    return float(value) if exact else _unfit(value)


def _unfit(value: object) -> Any:
    raise ValueError(f"a {type(value).__name__} does not fit")


_SCALARS: Mapping[int, Write] = {
    FieldDescriptor.CPPTYPE_STRING: _text,
    FieldDescriptor.CPPTYPE_BOOL: _truth,
    FieldDescriptor.CPPTYPE_INT32: _whole,
    FieldDescriptor.CPPTYPE_INT64: _whole,
    FieldDescriptor.CPPTYPE_DOUBLE: _real,
}
_MESSAGES: Mapping[str, tuple[Write, Read]] = {
    Json.DESCRIPTOR.full_name: (json_message, json_value),
    "google.protobuf.Timestamp": (lambda text: time_message(_text(text)), lambda at: time_text(moment(at))),
    "google.protobuf.Duration": (lambda seconds: seconds_message(_real(seconds)), seconds_value),
}
