"""What is brought to a server: the files of the version, whatever else lies in the author's folder."""

from pathlib import Path

import pytest
from flexcore_remote.files import WorkflowFiles

from flexcore.model.failure import Failure


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, content in {
        "tasks.py": "x = 1",
        "sql/a.sql": "select 1",
        ".flexcore/flexcore.db": "all",
        "token": "t",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def names(folder: Path, files: frozenset[str] | None, limit: int = 1000) -> list[str] | str:
    found = WorkflowFiles(limit).listed(folder, files)
    return found.message if isinstance(found, Failure) else [each.path for each in found]


def test_only_the_files_of_the_version_are_brought(folder: Path) -> None:
    assert names(folder, frozenset({"tasks.py", "sql/a.sql"})) == ["sql/a.sql", "tasks.py"]
    assert names(folder, frozenset()) == []


def test_a_folder_that_was_made_for_a_request_is_brought_whole(folder: Path) -> None:
    assert names(folder, None) == [".flexcore/flexcore.db", "sql/a.sql", "tasks.py", "token"]


def test_what_cannot_be_brought_is_said(folder: Path) -> None:
    assert "gone.py cannot be read" in names(folder, frozenset({"gone.py"}))
    assert "tasks.py is larger than" in names(folder, frozenset({"tasks.py"}), limit=1)


def test_a_file_that_changed_is_listed_anew(folder: Path) -> None:
    files = WorkflowFiles(1000)
    before = files.listed(folder, frozenset({"tasks.py"}))
    (folder / "tasks.py").write_text("x = 22")

    assert files.listed(folder, frozenset({"tasks.py"})) != before
