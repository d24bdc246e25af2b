"""What the code of a version tells placement: read once per version, from its files as deployed. Never runs any."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from flexcore.analyzer.view import NO_FACTS, Facts
from flexcore.analyzer.workload import facts
from flexcore.model.graph import Graph
from flexcore.model.template import Literal, MapTemplate
from flexcore.model.values import JSON
from flexcore.model.workflow import ForEach, Step, StepId, StepKind, Task

_LARGEST = 256 * 1024  # bytes of code: what is longer is not written by hand
_TELLING = frozenset({StepKind.PYTHON, StepKind.BASH, StepKind.CONTAINER})


def facts_of(graph: Graph, folder: Path) -> Mapping[StepId, Facts]:
    """Read every task of a workflow whose files are in the folder. A file that cannot be read tells nothing."""
    return {
        step.id: found
        for step in graph.steps.values()
        if isinstance(step.action, Task) and (found := _of_step(graph, step, step.action, folder)) != NO_FACTS
    }


def _of_step(graph: Graph, step: Step, task: Task, folder: Path) -> Facts:
    width = _width(graph, step)
    if task.kind not in _TELLING:
        return facts(task.kind, width=width) if width is not None else NO_FACTS
    written = _constants(task)
    packages, image = written.get("packages"), written.get("image")
    return facts(
        task.kind,
        code=_code(written, folder),
        packages=[each for each in packages if isinstance(each, str)] if isinstance(packages, list | tuple) else (),
        image=image if isinstance(image, str) else "",
        width=width,
    )


def _constants(task: Task) -> Mapping[str, JSON]:
    """Give the parameters that stand in the workflow as they are."""
    match task.parameters:
        case Literal(value=value) if isinstance(value, Mapping):
            return value
        case MapTemplate(items=items):
            return {name: each.value for name, each in items if isinstance(each, Literal)}
        case _:
            return {}


def _code(written: Mapping[str, Any], folder: Path) -> str:
    script, file = written.get("script"), written.get("file")
    if isinstance(script, str):
        return script
    if not isinstance(file, str):
        return ""
    try:
        path = folder / file
        return path.read_text(encoding="utf-8") if path.stat().st_size <= _LARGEST else ""
    except (OSError, ValueError):
        return ""


def _width(graph: Graph, step: Step) -> int | None:
    """Say how many of a step may run side by side: the parallelism of the loops around it."""
    widths = [each.parallelism for each in _loops_around(graph, step)]
    width = 1
    for each in widths:
        width *= each
    return width if widths else None


def _loops_around(graph: Graph, step: Step) -> Iterator[ForEach]:
    owner = graph.homes[step.id].owner
    while owner is not None:
        if isinstance(owner.action, ForEach):
            yield owner.action
        owner = graph.homes[owner.id].owner
