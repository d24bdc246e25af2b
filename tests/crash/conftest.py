"""What the tests that kill share: the main job's folder, installed once, and a process whose children die."""

from collections.abc import Iterator

import pytest
from crash.crash_points import Crasher, crasher

from flexcore.testing.campaign import Ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The job's folder, with everything installed; every round resets it."""
    found = Ground(tmp_path_factory.mktemp("kill") / "site")
    found.prepare()
    return found


@pytest.fixture(scope="module")
def crashes() -> Iterator[Crasher]:
    """Fork control planes that die at a moment of their work."""
    with crasher() as found:
        yield found
