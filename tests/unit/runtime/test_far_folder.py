"""The folder of a step far away, on disks and in temporary folders that are not as one would wish."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from flexcore.runtime.flexcore_far import folder


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    return tmp_path


def test_where_there_are_no_locks_a_step_runs_and_nobody_sweeps_its_folder(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def without(descriptor: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", without)
    with folder.private_folder("") as one, folder.private_folder("") as other:
        assert sorted(temporary.iterdir()) == sorted([one, other])
    assert list(temporary.iterdir()) == []


def test_what_others_put_there_in_our_name_holds_nobody_up(temporary: Path) -> None:
    for name in ("fifo", "link"):
        (temporary / f"flexcore-step-{name}").mkdir()
    os.mkfifo(temporary / "flexcore-step-fifo" / ".lives")
    (temporary / "flexcore-step-link" / ".lives").symlink_to(temporary / "elsewhere")
    (temporary / "elsewhere").touch()

    with folder.private_folder("") as ours:
        assert ours.is_dir()

    assert (temporary / "flexcore-step-link").is_dir()
