"""Placement as it would be now, for a workflow that has not run: what `plan` shows, and what `--runtime` can pin."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import structlog

from flexcore.analyzer.explain import explain, why
from flexcore.analyzer.place import place, waits
from flexcore.analyzer.policy import DEFAULT_POLICY, Policy
from flexcore.analyzer.predict import NOTHING_LEARNED
from flexcore.analyzer.snapshot import Snapshot
from flexcore.analyzer.view import NO_FACTS, StepView
from flexcore.analyzer.workload import summary
from flexcore.engine.ports import Loaded
from flexcore.engine.viewing import stores_of
from flexcore.model.errors import NoFeasibleRuntime
from flexcore.model.graph import EACH, Graph, lists_of
from flexcore.model.ids import StepPath, signature_of
from flexcore.model.placement import Placement
from flexcore.model.requests import Document
from flexcore.model.template import Literal, MapTemplate
from flexcore.model.values import JSON
from flexcore.model.workflow import Step, StepKind, Task, type_name
from flexcore.monitor.document import placement_document
from flexcore.monitor.lookout import Lookout

_MOST_NAMED = 20  # faults that are logged, once each: their text may have figures that never repeat
_KUBERNETES_KINDS = frozenset({StepKind.CONTAINER, StepKind.KUBERNETES})
_EACH = "[*]"  # stands for every iteration

_log = structlog.get_logger(__name__)


@dataclass(slots=True)
class Planner:
    """Holds the snapshot that placement reads; `refresh` swaps it whole, and is a background duty.

    `data_store` is where data between steps is: `file` or `s3`. `faults` counts the placements that a bug in what is
    learned left to the rules.
    """

    lookout: Lookout
    policy: Policy = DEFAULT_POLICY
    data_store: str = "file"
    snapshot: Snapshot | None = None
    faults: int = 0
    _named: set[str] = field(default_factory=set)

    async def refresh(self, *, in_full: bool = False) -> None:
        """Look at the runtimes and at what was learned again; `in_full`, for people who want to see all of it."""
        found, known = await self.lookout.look(in_full=in_full), self.snapshot
        # The same again is no news, and what is there has its answers in memory.
        if known is None or found.model is not known.model or found != known:
            self.snapshot = found

    def runtimes_changed(self) -> None:
        """Take over at once that a runtime is not as it was: nothing more is sent to one that went down."""
        if self.snapshot is not None:
            self.snapshot = self.lookout.again(self.snapshot)

    async def ready(self) -> None:
        """Look at the runtimes if nobody has yet."""
        if self.snapshot is None:
            await self.refresh()

    def place(self, step: StepView) -> Placement:
        """Place a step by the present snapshot."""
        placement = place(step, self.snapshot or Snapshot(()), self.policy)
        if placement.fault:
            self.faults += 1
            self._name(placement.fault)
        return placement

    def _name(self, fault: str) -> None:
        if fault not in self._named and len(self._named) < _MOST_NAMED:
            self._named.add(fault)
            _log.error("placement.fault", reason=fault)

    @property
    def resting(self) -> tuple[str, ...]:
        """Name the families of steps that the rules place for now, because what was learned chose worse."""
        return () if self.snapshot is None else self.snapshot.model.resting

    def price(self, runtime: str) -> float | None:
        """Say what an hour on a runtime costs: by the settings, else by what it says itself; None where nobody does."""
        snapshot = self.snapshot
        if snapshot is None or runtime in snapshot.prices:
            return None if snapshot is None else snapshot.prices[runtime]
        for each in snapshot.candidates:
            if each.name == runtime and each.capabilities is not None:
                stated = each.capabilities.price_per_hour
                return None if stated is None else float(stated)
        return None

    def plan(self, loaded: Loaded, preferred: str | None) -> Document:
        """Show where each step would go, and what the whole needs: `{steps, hints, workload}`.

        Loops are unrolled only when they run: their steps stand once, as `[*]`.
        """
        steps = list(_walk(loaded.graph))
        views = [self.view(path, step, each, loaded, preferred) for path, step, each in _tasks(steps)]
        model = NOTHING_LEARNED if self.snapshot is None else self.snapshot.model
        return {
            "steps": [self._planned(path, step, loaded, preferred) for path, step in steps],
            "hints": self._hints(views),
            "workload": summary(views, model, self.policy.thresholds),
        }

    def flips(self, step: StepView) -> list[Mapping[str, JSON]]:
        """Find the smallest single changes that would bring a step elsewhere. Takes a while: not for a loop."""
        from flexcore.analyzer.flips import as_mappings, flips  # seldom asked for, and start-up time counts

        found = flips(step, self.snapshot or Snapshot(()), self.policy)
        return [dict(each) for each in as_mappings(found)]

    def _planned(self, path: str, step: Step, loaded: Loaded, preferred: str | None) -> Document:
        found: Document = {"path": path, "id": step.id, "type": type_name(step), "placement": None}
        if isinstance(step.action, Task):
            placement = self.place(self.view(path, step, step.action, loaded, preferred))
            found |= {
                "placement": placement_document(placement),
                "why": why(placement),
                "sentences": explain(placement),
            }
        return found

    def _hints(self, views: Iterable[StepView]) -> list[str]:
        """Say what the settings lack, where steps can go nowhere and no runtime of the type they need is configured."""
        placements = [(each.kind, self.place(each)) for each in views if each.kind in _KUBERNETES_KINDS]
        stuck = {kind.value for kind, found in placements if found.chosen is None and not waits(found)}
        configured = {each.kind for each in (self.snapshot.candidates if self.snapshot else ())}
        if not stuck or "kubernetes" in configured:
            return []
        return [
            f"no runtime of type kubernetes is configured, where {' and '.join(sorted(stuck))} steps run: add "
            "`runtimes: {kubernetes: …}` to the settings, see docs/kubernetes.md"
        ]

    def must_be_of_use(self, loaded: Loaded, runtime: str) -> None:
        """Refuse a pin for a whole execution that no step could follow. Raises NoFeasibleRuntime."""
        graph = loaded.graph
        placements = [
            self.place(self.view(path, step, task, loaded, runtime))
            for path, step, task in _tasks(_walk(graph))
            if step.runtime is None
        ]
        if any(placement.chosen == runtime for placement in placements):
            return
        reasons = {
            verdict.runtime: "; ".join(each.reason for each in verdict.infeasible)
            for placement in placements[:1]
            for verdict in placement.verdicts
            if verdict.runtime == runtime
        }
        known = ", ".join(self.snapshot.names) if self.snapshot else ""
        raise NoFeasibleRuntime(
            f"runtime '{runtime}' can run no step of workflow '{graph.workflow.name}'",
            reasons=reasons or {runtime: f"no such runtime; present: {known}"},
            hint=f"`flexcore workflow plan` says what can run where; present: {known}",
        )

    def view(self, path: str, step: Step, task: Task, loaded: Loaded, preferred: str | None) -> StepView:
        """Describe a step before it has run: what its parameters will refer to is not known yet."""
        return StepView(
            kind=task.kind,
            requirements=step.requirements,
            pin=step.runtime,
            preferred=preferred,
            signature=signature_of(loaded.graph.workflow.name, StepPath(path.replace(_EACH, ""))),
            data_stores=_stores(task, self.data_store),
            facts=loaded.facts.get(step.id, NO_FACTS),
        )


@dataclass(slots=True)
class RefreshService:
    """Looks at the runtimes again and again, once somebody wants to place something."""

    planner: Planner
    interval: timedelta = timedelta(seconds=1)

    async def run_once(self) -> None:
        """Swap the snapshot; the runtimes' answers are remembered for as long as each says."""
        if self.planner.snapshot is not None:
            await self.planner.refresh()


def _stores(task: Task, home: str) -> frozenset[str]:
    parameters = task.parameters
    if isinstance(parameters, Literal):
        return stores_of(parameters.value, home)
    names = {name for name, _ in parameters.items} if isinstance(parameters, MapTemplate) else set()
    return frozenset({home} if names & {"inputs", "outputs"} else ())


def _tasks(steps: Iterable[tuple[str, Step]]) -> Iterator[tuple[str, Step, Task]]:
    for path, step in steps:
        if isinstance(step.action, Task):
            yield path, step, step.action


def _walk(graph: Graph) -> Iterator[tuple[str, Step]]:
    yield from _steps("", graph.root.steps)
    yield from _steps("on_failure.", graph.on_failure.steps)


def _steps(prefix: str, steps: tuple[Step, ...]) -> Iterator[tuple[str, Step]]:
    for step in steps:
        path = f"{prefix}{step.id}"
        yield path, step
        for key, inner in lists_of(step):
            scope = f"{path}{_EACH}" if key == EACH else f"{path}[{key}]" if key.isdecimal() else f"{path}.{key}"
            yield from _steps(f"{scope}.", inner)
