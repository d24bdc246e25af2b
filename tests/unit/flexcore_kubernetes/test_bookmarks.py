"""Where a log was read to is found again, if it was kept, and missed without harm if not."""

from pathlib import Path

from flexcore_kubernetes.bookmarks import Bookmark, Bookmarks
from flexcore_kubernetes.logs import Reached


def bookmark(offset: int) -> Bookmark:
    return Bookmark(offset=offset, pod="u1", reached=Reached("2026-11-21T03:19:03Z", 2), before=("u0",))


def test_the_last_bookmark_before_what_is_known_is_found(tmp_path: Path) -> None:
    Bookmarks(tmp_path / "new").keep("fx-1", [bookmark(10), bookmark(20), bookmark(30)])

    here = Bookmarks(tmp_path / "new")

    assert here.find("fx-1", 29) == bookmark(20)
    assert here.find("fx-1", 30) == bookmark(30)
    assert here.find("fx-1", 9) is None
    assert here.find("fx-2", 30) is None


def test_damaged_and_forgotten_bookmarks_are_none(tmp_path: Path) -> None:
    here = Bookmarks(tmp_path)
    here.keep("fx-1", [bookmark(10)])
    here.keep("fx-2", [bookmark(10)])
    (tmp_path / "fx-1.json").write_bytes(b'[{"offset": ')

    here.drop(["fx-2", "fx-3"])

    assert here.find("fx-1", 99) is None
    assert here.find("fx-2", 99) is None


def test_a_folder_that_cannot_be_written_costs_no_more_than_the_bookmark(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    here = Bookmarks(tmp_path / "file" / "below")

    here.keep("fx-1", [bookmark(10)])

    assert here.find("fx-1", 99) is None
