"""Checks examined some at a time, for runtimes that wait for most of their time: one after the other takes too long."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import cast

import pytest

from flexcore.testing.runtime_suite import Check, Finding

Examine = Callable[[Check, str], Awaitable[Finding]]
"""Examine one check for the test function of this name."""


def asked(check: Check, *, dear: bool, where: str = "") -> object:
    """Name a check, and leave a dear one to `-m campaign`."""
    name = f"{check.name}-{where}" if where else check.name
    return pytest.param(check, marks=[pytest.mark.campaign] if dear else [], id=name)


def examine_asked(
    request: pytest.FixtureRequest, examine: Examine, *, at_once: int, first_alone: bool = False
) -> Mapping[str, Finding]:
    """Examine what this module's tests that take a `finding` were asked for; give what was found by test."""
    items = [each for each in request.session.items if isinstance(each, pytest.Function)]
    tests = [each for each in items if each.module is request.module and "finding" in each.fixturenames]
    places = asyncio.Semaphore(at_once)

    async def found(test: pytest.Function) -> Finding:
        async with places:
            return await examine(cast(Check, test.callspec.params["check"]), test.originalname)

    async def all_found() -> list[Finding]:
        alone = 1 if first_alone else 0
        return [await found(each) for each in tests[:alone]] + await asyncio.gather(*map(found, tests[alone:]))

    return dict(zip((each.name for each in tests), asyncio.run(all_found()), strict=True))
