"""Every store keeps what is learned by the same suite."""

from pathlib import Path

import pytest

from flexcore.testing.store_suite import Check, SqlitePlace
from flexcore.testing.store_suite_learning import CHECKS


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_sqlite(check: Check, tmp_path: Path) -> None:
    await check(SqlitePlace(tmp_path / "store"))
