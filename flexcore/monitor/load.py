"""How busy the runtimes are: counted as attempts begin and end here; from the store where places are limited."""

from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from flexcore.analyzer.snapshot import Load
from flexcore.model.pools import PoolView, runtime_pool
from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import HealthStatus
from flexcore.runtime.supervised import Observer, Silent

Pools: TypeAlias = Callable[[Iterable[str]], Awaitable[Mapping[str, PoolView]]]


@dataclass(slots=True)
class Gauge:
    """Implements the supervised runtimes' `Observer`: counts, passes on, and says when a runtime is not as it was."""

    inner: Observer = field(default_factory=Silent)
    changed: Callable[[], None] = lambda: None
    running: Counter[str] = field(default_factory=Counter)

    def attempt_started(self, runtime: str, kind: StepKind) -> None:
        """Count an attempt that begins."""
        self.running[runtime] += 1
        self.inner.attempt_started(runtime, kind)

    def attempt_finished(self, runtime: str, kind: StepKind, outcome: str, seconds: float) -> None:
        """Count an attempt that ended. One that could not be reached may have opened the circuit."""
        self.running[runtime] -= 1
        self.inner.attempt_finished(runtime, kind, outcome, seconds)
        if outcome == "unavailable":
            self.changed()

    def health_changed(self, runtime: str, status: HealthStatus) -> None:
        """Pass it on."""
        self.inner.health_changed(runtime, status)
        self.changed()


async def loads(gauge: Gauge, limits: Mapping[str, int], pools: Pools) -> dict[str, Load]:
    """Say how busy each runtime is. With a limit, over all processes on the store; else as far as this one knows."""
    found = {name: Load(running=count) for name, count in gauge.running.items() if count > 0}
    if limits:
        views = await pools(runtime_pool(name) for name in limits)
        for name, limit in limits.items():
            view = views[runtime_pool(name)]
            found[name] = Load(running=view.held, queued=len(view.waiting), slots=limit)
    return found
