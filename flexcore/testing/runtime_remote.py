"""Any runtime under the conformance kit, through the wire: served on loopback, asked by the remote runtime."""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

from flexcore.api.remote.hosting import Hosting
from flexcore.api.remote.server import ServeOptions, bound_server
from flexcore.model.execution import Handle
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Runtime
from flexcore.runtime.registry import installed_plugins
from flexcore.runtime.supervised import Closing
from flexcore.security.authn import verifier_of
from flexcore.testing.clock import RealClock
from flexcore.testing.factories import runtime_context
from flexcore.testing.runtime_harness import Behaviour, Harness

TOKEN = "for-tests-on-loopback-only"  # noqa: S105  guards nothing but a test


class Inner(Protocol):
    """What there has to be of a harness to serve what it makes."""

    async def runtime(self, installation: str) -> Runtime:
        """Make an instance for an installation."""
        ...


class RemoteHarness:
    """Wraps the harness of the runtime that is served. Work is told and looked at as that harness does it."""

    def __init__(self, inner: Harness, address: str, folder: Path) -> None:
        self.kind: StepKind = inner.kind
        self.installation = inner.installation
        self.folder = inner.folder
        self.exempt = inner.exempt
        self._inner = inner
        self._plugin = installed_plugins()["remote"]()
        self._address = address
        self._root = folder
        self._made: list[Runtime] = []

    async def runtime(self, installation: str) -> Runtime:
        """Connect anew, as after a restart of the control plane."""
        return self._connected(installation, self._address)

    async def unreachable(self) -> Runtime:
        """Dial a port where nobody listens."""
        return self._connected(self.installation, "127.0.0.1:9")

    def parameters(self, behaviour: Behaviour) -> Mapping[str, JSON]:
        """Say it as to the runtime that is served."""
        return self._inner.parameters(behaviour)

    def invalid_parameters(self) -> Mapping[str, JSON]:
        """Say it as to the runtime that is served."""
        return self._inner.invalid_parameters()

    async def put(self, name: str, data: bytes) -> None:
        """Put it where the control plane has it; the work finds a copy."""
        await self._inner.put(name, data)

    async def open(self, gate: str) -> None:
        """Let work go on."""
        await self._inner.open(gate)

    async def begun(self, mark: str) -> int:
        """Count where the work runs."""
        return await self._inner.begun(mark)

    async def told_to_end(self, mark: str) -> bool:
        """Look where the work runs."""
        return await self._inner.told_to_end(mark)

    async def alive(self, mark: str) -> bool:
        """Look where the work runs."""
        return await self._inner.alive(mark)

    async def lose(self, mark: str, handle: Handle) -> None:
        """Let the work vanish where it runs."""
        await self._inner.lose(mark, handle)

    async def shown(self, text: str) -> list[str]:
        """Look where the work runs."""
        return await self._inner.shown(text)

    async def kept(self, text: str) -> list[str]:
        """Look where the work runs, and at what the server keeps."""
        own = [path.name for path in self._root.rglob("*") if path.is_file() and text.encode() in path.read_bytes()]
        return [*await self._inner.kept(text), *own]

    async def close(self) -> None:
        """Drop all connections."""
        for each in self._made:
            if isinstance(each, Closing):
                await each.close()

    def _connected(self, installation: str, address: str) -> Runtime:
        config = self._plugin.config.model_validate({"address": address, "token": TOKEN})
        context = runtime_context(self._root / "client" / installation, installation=installation, clock=RealClock())
        self._made.append(self._plugin.create("examined", config, context))
        return self._made[-1]


@asynccontextmanager
async def through_the_wire(inner: Harness, folder: Path) -> AsyncIterator[RemoteHarness]:
    """Serve what a harness makes, on a free port, and give a harness for the remote runtime."""
    async with served(inner, folder / "server") as address:
        harness = RemoteHarness(inner, address, folder)
        try:
            yield harness
        finally:
            await harness.close()


@asynccontextmanager
async def served(inner: Inner, folder: Path, *, name: bytes = b"examined", **options: Any) -> AsyncIterator[str]:
    """Serve what a harness makes, and give the address. The token is `TOKEN`; the server is called after `name`."""
    clock, stopping = RealClock(), asyncio.Event()

    async def create(installation: str, _folder: Path) -> Runtime:
        return await inner.runtime(installation)

    hosting = Hosting(create, folder, now=clock.now, entropy=lambda: name)
    given = ServeOptions(verifier=verifier_of(TOKEN), listen="127.0.0.1:0", **options)
    server, address = bound_server(hosting, given, clock.now, stopping)
    await server.start()
    try:
        yield address
    finally:
        stopping.set()
        await server.stop(1)
        await hosting.close()
