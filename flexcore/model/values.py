"""Values between steps: JSON, carried inline or, above a size, as a reference into the artifact store."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import msgspec

if TYPE_CHECKING:
    JSON: TypeAlias = "bool | int | float | str | Sequence[JSON] | Mapping[str, JSON] | None"
else:
    JSON = Any  # the codec reads annotations at run time and takes no recursive alias

_encoder = msgspec.json.Encoder(order="deterministic")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ref:
    """A typed reference to bytes in the artifact store, or to a data set that a step produced.

    `uri` is `artifact:sha256-<hex>` for values FlexCore moved out of line, any URL for a step's own data.
    """

    uri: str
    bytes: int
    format: str = "json"
    checksum: str = ""
    rows: int | None = None
    schema: Mapping[str, JSON] | None = None


@dataclass(frozen=True, slots=True)
class Payload:
    """A JSON value: inline, or by reference when it is larger than the threshold. Exactly one of both counts."""

    value: JSON = None
    ref: Ref | None = None


NOTHING = Payload()


def canonical(value: JSON) -> bytes:
    """Encode deterministically: sorted keys, no spaces. Equal values give equal bytes, which is what hashes need."""
    return _encoder.encode(value)


def digest(data: bytes) -> str:
    """Name bytes by their content: `sha256-<hex>`."""
    return f"sha256-{hashlib.sha256(data).hexdigest()}"


def reference(data: bytes) -> Ref:
    """Reference canonical JSON bytes that are, or will be, in the artifact store under their digest."""
    name = digest(data)
    return Ref(uri=f"artifact:{name}", bytes=len(data), checksum=name)


def wrong_format(reads: str, reference: Mapping[str, JSON]) -> str:
    """Say, with both formats named, that data is of another format than the step reads; empty if it is not."""
    form, maker = reference.get("format"), reference.get("step")
    if form == reads:
        return ""
    made = f", as step '{maker}' made it" if isinstance(maker, str) else ""
    mend = "let the one write what the other reads, or correct the `format` that is not true"
    return f"the step reads the format {reads!r}, and the data is {form!r}{made}: {mend}"
