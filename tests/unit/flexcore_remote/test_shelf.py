"""The files of attempts at a server, laid out for several calls at the same time."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from flexcore.api.remote.files import Shelf
from flexcore.model.values import digest
from flexcore.runtime.wire.requests import FileEntry

CALLS = 4


def test_calls_for_one_attempt_at_the_same_time_find_one_whole_folder(tmp_path: Path) -> None:
    shelf, content = Shelf(tmp_path / "files"), b"x = 1\n"
    shelf.keep(digest(content), content)
    files = [FileEntry(path="tasks.py", digest=digest(content), executable=False)]
    together = threading.Barrier(CALLS)

    def lay_out(number: int) -> None:
        together.wait()
        shelf.lay_out(files, tmp_path / "work" / str(number))

    with ThreadPoolExecutor(CALLS) as calls:
        for number in range(100):
            for each in [calls.submit(lay_out, number) for _ in range(CALLS)]:
                each.result()

    assert {path.name for path in (tmp_path / "work").iterdir()} == {str(number) for number in range(100)}
    assert all((tmp_path / "work" / str(number) / "tasks.py").read_bytes() == content for number in range(100))
