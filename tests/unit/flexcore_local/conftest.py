"""A local runtime for every test."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from local_steps import Local


@pytest.fixture
async def local(tmp_path: Path) -> AsyncIterator[Local]:
    built = Local(tmp_path, slots=4)
    yield built
    await built.runtime.close()
