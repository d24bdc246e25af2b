"""Figures for Prometheus, counted from what the supervised runtimes report and from what is committed."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from flexcore.model.workflow import StepKind
from flexcore.runtime.interface import Health, HealthStatus

_SECONDS = (0.005, 0.05, 0.5, 5, 30, 300, 3600)
_HEALTH = {Health.DOWN: 0.0, Health.DEGRADED: 0.5, Health.UP: 1.0}


class Metrics:
    """Implements the supervised runtimes' `Observer`. Names and labels never carry values of users."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._attempts = Counter(
            "flexcore_attempts",
            "Attempts that ended, by outcome.",
            ("runtime", "kind", "outcome"),
            registry=self._registry,
        )
        self._running = Gauge(
            "flexcore_attempts_running", "Attempts under way.", ("runtime", "kind"), registry=self._registry
        )
        self._seconds = Histogram(
            "flexcore_attempt_seconds",
            "How long attempts took.",
            ("runtime", "kind"),
            registry=self._registry,
            buckets=_SECONDS,
        )
        self._health = Gauge(
            "flexcore_runtime_health", "1 up, 0.5 degraded, 0 down.", ("runtime",), registry=self._registry
        )
        self._open = Gauge(
            "flexcore_executions_open", "Unfinished executions of this process.", registry=self._registry
        )

        self._faults = Gauge(
            "flexcore_placement_faults",
            "Placements left to the rules by a bug since the start.",
            registry=self._registry,
        )
        self._resting = Gauge(
            "flexcore_placement_resting", "Families of steps whose learning rests.", registry=self._registry
        )

    def count_open(self, open_executions: Callable[[], int]) -> None:
        """Say where the number of unfinished executions comes from."""
        self._open.set_function(open_executions)

    def count_placement(self, faults: Callable[[], int], resting: Callable[[], int]) -> None:
        """Say where it is known how often what is learned failed, and of how many families it rests."""
        self._faults.set_function(faults)
        self._resting.set_function(resting)

    def attempt_started(self, runtime: str, kind: StepKind) -> None:
        """Count an attempt that begins."""
        self._running.labels(runtime, kind.value).inc()

    def attempt_finished(self, runtime: str, kind: StepKind, outcome: str, seconds: float) -> None:
        """Count an attempt that ended."""
        self._running.labels(runtime, kind.value).dec()
        self._attempts.labels(runtime, kind.value, outcome).inc()
        self._seconds.labels(runtime, kind.value).observe(seconds)

    def health_changed(self, runtime: str, status: HealthStatus) -> None:
        """Note how a runtime is."""
        self._health.labels(runtime).set(_HEALTH[status.state])

    def render(self) -> bytes:
        """Give the text that Prometheus reads."""
        return generate_latest(self._registry)
