"""Runs the background duties, each at its interval, until told to stop. One that fails is tried again later."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from typing import Protocol

import structlog

_log = structlog.get_logger(__name__)


class Service(Protocol):
    """A duty. `run_once` does one round and can be called directly, by tests above all."""

    interval: timedelta

    async def run_once(self) -> object:
        """Do one round, and say what was done."""
        ...


async def run_services(services: Sequence[Service]) -> None:
    """Run them all, until cancelled."""
    async with asyncio.TaskGroup() as group:
        for service in services:
            group.create_task(_run(service))


async def _run(service: Service) -> None:
    while True:
        try:
            await service.run_once()
        except Exception:
            _log.exception("service.failed", service=type(service).__name__)
        await asyncio.sleep(service.interval.total_seconds())
