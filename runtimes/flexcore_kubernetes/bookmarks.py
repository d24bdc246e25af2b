"""Where the logs of attempts were read to, kept in files so that a restart goes on there.

Without them it would read from the beginning, of which a node may have put a part away. They are a convenience: one
that is lost or damaged is as if it had never been, and nothing of them is secret.
"""

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from flexcore_kubernetes.logs import Reached

SPACING_BYTES = 256 << 10
"""How far bookmarks are apart, at the least."""
KEPT = 32
"""How many of an attempt: what a control plane has stored may lag behind what it was given."""


class Bookmark(msgspec.Struct, frozen=True, kw_only=True):
    """A place in an attempt's log: `offset` counts its bytes over all its pods, `before` names those read before."""

    offset: int
    pod: str
    reached: Reached
    before: tuple[str, ...] = ()


class Bookmarks:
    """The bookmarks of all attempts of an instance, a file for each. Blocking: call it in a thread."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, name: str, known: int) -> Bookmark | None:
        """Give the last bookmark at or before so many bytes; None where one has to read from the beginning."""
        try:
            kept = msgspec.json.decode(self._path(name).read_bytes(), type=list[Bookmark])
        except (OSError, msgspec.DecodeError):
            return None
        return max((each for each in kept if each.offset <= known), key=lambda each: each.offset, default=None)

    def keep(self, name: str, bookmarks: Iterable[Bookmark]) -> None:
        """Keep these in place of those before. A full disk costs no more than the bookmark."""
        with suppress(OSError):
            self._folder.mkdir(parents=True, exist_ok=True)
            new = self._path(name).with_suffix(".new")
            new.write_bytes(msgspec.json.encode(list(bookmarks)))
            new.replace(self._path(name))

    def drop(self, names: Iterable[str]) -> None:
        """Forget attempts."""
        for name in names:
            with suppress(OSError):
                self._path(name).unlink(missing_ok=True)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"
