"""Stores that are wrong on purpose, put to checks of the store's suite."""

from collections.abc import Callable, Iterable
from pathlib import Path

from flexcore.model.errors import FlexCoreError
from flexcore.store.sqlite import Parts
from flexcore.testing.store_suite import Check, SqlitePlace


async def failing(checks: Iterable[Check], folder: Path, parts: Callable[[], Parts]) -> set[str]:
    """Name the checks that a store made of these parts fails."""
    return {check.__name__ for check in checks if await _fails(check, SqlitePlace(folder / check.__name__, parts()))}


async def _fails(check: Check, place: SqlitePlace) -> bool:
    try:
        await check(place)
    except (AssertionError, FlexCoreError):
        return True
    return False
