"""The log of one container, followed across broken connections without a gap or a repetition.

Every line comes with a stamp in nanoseconds, but a log can only be asked for again from a whole second on: what was
had already is recognised by its stamp, and by how many lines of that very stamp there were. Never decoded. Where the
line that was had last is not there any more, a node has rotated it away, and the log says that something is missing.
"""

import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass

from flexcore.model.errors import RuntimeUnavailable
from flexcore_kubernetes.cluster import Call, Cluster, Refused
from flexcore_kubernetes.paths import pods

_STAMP = re.compile(rb"^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(?:\.(\d{1,9}))?(Z|[+-]\d\d:\d\d) ", re.MULTILINE)
_LONGEST_STAMP = 40
_LONGEST_HELD = 256 << 10
_SILENCE_S = 60.0

MISSING = b"[flexcore: some of the log may be missing here: it was gone before it could be read]\n"


@dataclass(frozen=True, slots=True)
class Reached:
    """A place between two lines of a log: the stamp of the last one before it, and how many with it there are."""

    stamp: str
    same: int


class StampedLog:
    """Takes stamps off, and what was had before out. Pure: fed with what a connection gives."""

    def __init__(self, reached: Reached | None = None) -> None:
        self._last = b"" if reached is None else reached.stamp.encode()  # of the last line of which anything was given
        self._same = 0 if reached is None else reached.same  # how many lines with it were given
        self._within = 0  # bytes given of the last of them, while it is open
        self._is_open = False  # its end has not been seen
        self._held = b""  # of the connection: what is not given yet
        self._inside = False  # of the connection: behind the stamp of the open line
        self._seen: int | None = None  # while skipping what was had: lines with the last stamp
        self._has_gap = False

    @property
    def since(self) -> str | None:
        """The time to ask from after a break; None: from the start."""
        found = _STAMP.match(self._last + b" ")
        return None if found is None else f"{found[1].decode()}{found[3].decode()}"

    @property
    def reached(self) -> Reached | None:
        """Where one may read on later; None inside a line, and while what was had is skipped."""
        if self._is_open or self._seen is not None or not self._last:
            return None
        return Reached(self._last.decode(), self._same)

    def gap(self, *, at_end: bool = False) -> bool:
        """Whether something may be missing before what was given last, or behind it when the log is over."""
        found, self._has_gap = self._has_gap or (at_end and self._is_short), False
        return found

    @property
    def _is_short(self) -> bool:
        """Whether the line that was had last did not come again yet."""
        return self._seen is not None and self._seen < self._same

    def reconnected(self) -> None:
        """Begin to read anew, from `since` on."""
        self._held, self._inside = b"", False
        self._seen = 0 if self._last else None

    def feed(self, raw: bytes) -> bytes:
        """Take what came, give the container's bytes. Incomplete lines wait, up to a size."""
        data = self._held + raw
        cut = data.rfind(b"\n") + 1
        if self._seen is None and len(data) - cut > _LONGEST_HELD:
            cut = len(data)
        whole, self._held = data[:cut], data[cut:]
        return self._given(whole)

    def ended(self) -> bytes:
        """Give the last line if it has no end: the connection is over."""
        whole, self._held = self._held, b""
        return self._given(whole)

    def _given(self, whole: bytes) -> bytes:
        out: list[bytes] = []
        if self._inside and whole:
            end = whole.find(b"\n") + 1 or len(whole)
            out.append(self._more(whole[:end]))
            whole = whole[end:]
        while self._seen is not None and whole:
            end = whole.find(b"\n") + 1 or len(whole)
            out.append(self._anew(whole[:end]))
            whole = whole[end:]
        if whole:
            self._note(whole)
            out.append(_without_stamps(whole))
        return b"".join(out)

    def _more(self, piece: bytes) -> bytes:
        """Go on in the open line."""
        self._inside = self._is_open = not piece.endswith(b"\n")
        self._within += len(piece)
        return piece

    def _anew(self, line: bytes) -> bytes:
        """Look at a line that may have been given before the break; behind the last of those, all is new."""
        stamp, content = _split(line)
        if stamp and _key(stamp) > _key(self._last):
            self._has_gap, self._seen = self._is_short, None
            self._note(line)
            return content
        if stamp != self._last or self._seen is None:
            return b""
        self._seen += 1
        if self._seen < self._same:
            return b""
        self._seen = None
        if not self._is_open:
            return b""
        rest = content[self._within :]
        self._within = len(content)
        self._inside = self._is_open = not line.endswith(b"\n")
        return rest

    def _note(self, whole: bytes) -> None:
        """Remember where lines, the last of them complete or not, have brought us."""
        begin = whole.rfind(b"\n", 0, len(whole) - 1) + 1
        stamp, content = _split(whole[begin:])
        self._inside = self._is_open = not whole.endswith(b"\n")
        self._within = len(content)
        if not stamp:
            return
        before, self._last = self._last, stamp
        same, end = 1, begin
        while end > 0:
            start = whole.rfind(b"\n", 0, end - 1) + 1
            if _split(whole[start : min(end, start + _LONGEST_STAMP)])[0] != stamp:
                break
            same, end = same + 1, start
        self._same = same + (self._same if end == 0 and before == stamp else 0)


@dataclass(frozen=True, slots=True)
class Source:
    """One container's log. `has_ended` says whether it grows no more; `pause` waits until that may have changed.

    `reached` is where to read on.
    """

    pod: str
    container: str
    has_ended: Callable[[], bool]
    pause: Callable[[], Awaitable[None]]
    reached: Reached | None = None


@dataclass(frozen=True, slots=True)
class Piece:
    """Bytes of a log, where one may read on after them, if there, and whether some before them may be missing."""

    content: bytes
    reached: Reached | None = None
    has_gap: bool = False


async def follow(cluster: Cluster, source: Source) -> AsyncGenerator[Piece, None]:
    """Give the bytes of a container's log up to its end, however often the connection breaks.

    Ends early when the pod is gone. Never ends by itself while the log cannot be read: whoever waits has a limit.
    """
    log = StampedLog(source.reached)
    while True:
        had_ended = source.has_ended()
        log.reconnected()
        try:
            async with aclosing(cluster.stream(_call(cluster, source, log.since))) as blocks:
                async for block in blocks:
                    if content := log.feed(block):
                        yield Piece(content, log.reached, log.gap())
            over = had_ended or source.has_ended()
        except Refused as refused:
            over = refused.status == 404 and source.pod in refused.message and "pods/log" not in refused.message
        except RuntimeUnavailable:
            over = False
        else:
            content, has_gap = log.ended(), log.gap(at_end=over)
            if content or has_gap:
                yield Piece(content, log.reached, has_gap)
        if over:
            return
        await source.pause()


def _call(cluster: Cluster, source: Source, since: str | None) -> Call:
    query = {"container": source.container, "follow": "true", "timestamps": "true", "sinceTime": since}
    path = f"{pods(cluster.namespace)}/{source.pod}/log"
    return Call(method="GET", path=path, query=query, timeout_s=_SILENCE_S)


def _without_stamps(whole: bytes) -> bytes:
    """Take the stamp off each line. In one answer they are all of one length, or nearly all."""
    first = _STAMP.match(whole)
    if first is None:
        return _STAMP.sub(b"", whole)
    day, space, end = whole[:11], first.end() - 1, first.end()
    return b"\n".join(
        [
            line[end:] if line.find(b" ") == space and line.startswith(day) else _STAMP.sub(b"", line)
            for line in whole.split(b"\n")
        ]
    )


def _split(line: bytes) -> tuple[bytes, bytes]:
    found = _STAMP.match(line)
    return (b"", line) if found is None else (line[: found.end() - 1], line[found.end() :])


def _key(stamp: bytes) -> bytes:
    """Make stamps comparable: trailing zeros of the fraction are not written."""
    found = _STAMP.match(stamp + b" ")
    return b"" if found is None else found[1] + (found[2] or b"").ljust(9, b"0")
