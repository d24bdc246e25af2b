"""Every store passes the same suite, check by check."""

from pathlib import Path

import pytest

from flexcore.testing.store_suite import CHECKS, Check, SqlitePlace


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
async def test_sqlite(check: Check, tmp_path: Path) -> None:
    await check(SqlitePlace(tmp_path / "store"))
