"""What the tests that kill the main job share: its folder, installed once."""

import pytest

from flexcore.testing.campaign import Ground


@pytest.fixture(scope="session")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    """The job's folder, with everything installed; every round resets it."""
    found = Ground(tmp_path_factory.mktemp("kill") / "site")
    found.prepare()
    return found
