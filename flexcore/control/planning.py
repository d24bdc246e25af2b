"""Placement as it would be now, for a workflow that has not run: what `plan` shows, and what `--runtime` can pin."""

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta

from flexcore.analyzer.explain import explain, why
from flexcore.analyzer.place import DEFAULT_POLICY, Policy, StepView, place
from flexcore.analyzer.snapshot import Snapshot
from flexcore.model.errors import NoFeasibleRuntime
from flexcore.model.graph import EACH, Graph, lists_of
from flexcore.model.placement import Placement
from flexcore.model.requests import Document
from flexcore.model.workflow import Step, Task, type_name
from flexcore.monitor.document import placement_document


@dataclass(slots=True)
class Planner:
    """Holds the snapshot that placement reads; `refresh` swaps it whole, and is a background duty."""

    ask: Callable[[], Awaitable[Snapshot]]
    policy: Policy = DEFAULT_POLICY
    snapshot: Snapshot | None = None

    async def refresh(self) -> None:
        """Look at the runtimes again."""
        self.snapshot = await self.ask()

    async def ready(self) -> None:
        """Look at the runtimes if nobody has yet."""
        if self.snapshot is None:
            await self.refresh()

    def place(self, step: StepView) -> Placement:
        """Place a step by the present snapshot."""
        return place(step, self.snapshot or Snapshot(()), self.policy)

    def plan(self, graph: Graph, preferred: str | None) -> list[Document]:
        """Show where each step would go. Loops are unrolled only when they run: their steps stand once, as `[*]`."""
        return [self._planned(path, step, preferred) for path, step in _walk(graph)]

    def _planned(self, path: str, step: Step, preferred: str | None) -> Document:
        found: Document = {"path": path, "id": step.id, "type": type_name(step), "placement": None}
        if isinstance(step.action, Task):
            placement = self.place(_view(step, step.action, preferred))
            found |= {
                "placement": placement_document(placement),
                "why": why(placement),
                "sentences": explain(placement),
            }
        return found

    def must_be_of_use(self, graph: Graph, runtime: str) -> None:
        """Refuse a pin for a whole execution that no step could follow. Raises NoFeasibleRuntime."""
        placements = [
            self.place(_view(step, step.action, runtime))
            for _, step in _walk(graph)
            if isinstance(step.action, Task) and step.runtime is None
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


@dataclass(slots=True)
class RefreshService:
    """Looks at the runtimes again and again, once somebody wants to place something."""

    planner: Planner
    interval: timedelta = timedelta(seconds=1)

    async def run_once(self) -> None:
        """Swap the snapshot; the runtimes' answers are remembered for as long as each says."""
        if self.planner.snapshot is not None:
            await self.planner.refresh()


def _view(step: Step, task: Task, preferred: str | None) -> StepView:
    return StepView(kind=task.kind, requirements=step.requirements, pin=step.runtime, preferred=preferred)


def _walk(graph: Graph) -> Iterator[tuple[str, Step]]:
    yield from _steps("", graph.root.steps)
    yield from _steps("on_failure.", graph.on_failure.steps)


def _steps(prefix: str, steps: tuple[Step, ...]) -> Iterator[tuple[str, Step]]:
    for step in steps:
        path = f"{prefix}{step.id}"
        yield path, step
        for key, inner in lists_of(step):
            scope = f"{path}[*]" if key == EACH else f"{path}[{key}]" if key.isdecimal() else f"{path}.{key}"
            yield from _steps(f"{scope}.", inner)
