"""From the command line to a control plane: in this process, or behind a server; and what Ctrl-C does meanwhile."""

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import typer

from flexcore.cli.options import Options
from flexcore.model.errors import Unauthenticated
from flexcore.model.requests import ControlPlaneApi

if TYPE_CHECKING:
    from flexcore.settings import Settings

Answer = TypeVar("Answer")

_DETACHED = 130
_SHOW_CURSOR = "\x1b[?25h"


@asynccontextmanager
async def control_plane(options: Options) -> AsyncGenerator[ControlPlaneApi, None]:
    """Give the control plane that the options name. Leaving an embedded one detaches from the work it started."""
    if options.server:
        from flexcore.sdk.client import Client  # brings gRPC

        async with Client(options.server, _token()) as client:
            yield client
        return
    from flexcore.bootstrap import embedded  # brings everything

    settings = settings_of(options)
    tell_on_stderr(settings.logs.level)
    async with embedded(settings) as api:
        yield api


def settings_of(options: Options, **flags: str | None) -> "Settings":
    """Load the settings for the working folder; flags are named `section__key`, None means not given."""
    from flexcore.settings import load  # brings the YAML reader

    given = {name.replace("__", "."): value for name, value in flags.items() if value is not None}
    return load(Path.cwd(), config=options.config, flags=given).settings


def tell_on_stderr(level: str) -> None:
    """Send FlexCore's own messages to stderr, from a level on: stdout is for results."""
    import structlog  # slow to load, and only parts that run here use it

    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event")),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )


def with_api(options: Options, work: Callable[[ControlPlaneApi], Awaitable[Answer]]) -> Answer:
    """Connect, do one piece of work and disconnect."""

    async def connected() -> Answer:
        async with (options.connect or control_plane)(options) as api:
            return await work(api)

    return run(connected)


def run(work: Callable[[], Awaitable[Answer]]) -> Answer:
    """Run to the end. Ctrl-C once cancels, which detaches, and exits with 130; twice leaves at once."""
    return asyncio.run(_interruptible(work))


async def _interruptible(work: Callable[[], Awaitable[Answer]]) -> Answer:
    interrupted = asyncio.Event()
    running = asyncio.ensure_future(work())

    def interrupt() -> None:
        if interrupted.is_set():
            _leave()
        interrupted.set()
        running.cancel()

    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, interrupt)
    try:
        return await running
    except asyncio.CancelledError:
        if interrupted.is_set():
            raise typer.Exit(_DETACHED) from None
        raise


def _leave() -> None:
    if sys.stderr.isatty():
        sys.stderr.write(_SHOW_CURSOR)
        sys.stderr.flush()
    os._exit(_DETACHED)


def _token() -> str:
    token = os.environ.get("FLEXCORE_TOKEN", "")
    if not token:
        raise Unauthenticated(
            "a server wants a token",
            hint="set FLEXCORE_TOKEN to the one that `flexcore server` showed at its first start",
        )
    return token
