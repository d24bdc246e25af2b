"""The workflow under test with the workflows it starts, read from the files beside it by the real front end."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from flexcore.engine.ports import Loaded
from flexcore.language.native import check
from flexcore.model.errors import Diagnostic, InvalidDefinition, NotFound
from flexcore.model.graph import build
from flexcore.model.values import JSON
from flexcore.model.workflow import StepKind, SubWorkflow, Workflow
from flexcore.testing.workflow.addresses import Addresses, Place, places_in
from flexcore.testing.workflow.homes import runtimes_needed

VERSION = "under-test"
_WORKFLOW_FILE = "workflow.yaml"

Schemas = Mapping[StepKind, Mapping[str, JSON]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """Everything that may run in a test, by workflow name."""

    name: str
    path: Path
    workflows: Mapping[str, Loaded]

    @property
    def workflow(self) -> Workflow:
        """The workflow under test itself."""
        return self.workflows[self.name].graph.workflow

    def runtimes(self) -> tuple[str, ...]:
        """Name one runtime of each kind that the steps may go to."""
        return runtimes_needed(step for each in self.workflows.values() for step in each.graph.steps.values())

    def addresses(self) -> Addresses:
        """Give every step, those of sub-workflows below the step that starts them."""
        return Addresses(self._places("", self.name, ()))

    def _places(self, prefix: str, name: str, around: tuple[str, ...]) -> Iterator[Place]:
        if name not in self.workflows or name in around:
            return  # a missing one fails its step; one that starts itself can be named by step id alone
        for place in places_in(self.workflows[name].graph):
            yield Place(f"{prefix}{place.path}", place.step)
            if isinstance(place.step.action, SubWorkflow):
                yield from self._places(f"{prefix}{place.path}.", place.step.action.name, (*around, name))


def load_program(path: Path, schemas: Schemas) -> Program:
    """Read a workflow file and the sub-workflows it names. Raises NotFound, and InvalidDefinition of any of them."""
    found: dict[str, Loaded] = {}
    first = _read(path, schemas)
    found[first.graph.workflow.name] = first
    todo = [first]
    while todo:
        here = todo.pop()
        for name in _children(here):
            file = None if name in found else _file_of(name, here.folder)
            if file is not None:
                found[name] = _read(file, schemas)
                todo.append(found[name])
    return Program(name=first.graph.workflow.name, path=path, workflows=found)


def _children(loaded: Loaded) -> list[str]:
    actions = (step.action for step in loaded.graph.steps.values())
    return [each.name for each in actions if isinstance(each, SubWorkflow)]


def _file_of(name: str, folder: Path) -> Path | None:
    places = (each / file for each in (folder, folder.parent) for file in (f"{name}.yaml", f"{name}/{_WORKFLOW_FILE}"))
    return next((each for each in places if each.is_file()), None)


def _read(path: Path, schemas: Schemas) -> Loaded:
    try:
        text = path.read_bytes()
    except OSError as error:
        raise NotFound(f"{path} cannot be read: {error.strerror}") from error
    folder = path.parent.absolute()
    workflow, problems = check(text, str(path), task_parameters=schemas, files=lambda name: (folder / name).exists())
    if workflow is None:
        raise InvalidDefinition([_ours(each) for each in problems])
    return Loaded(graph=build(workflow), folder=folder)


def _ours(problem: Diagnostic) -> Diagnostic:
    hint = problem.hint or "the workflow itself is wrong, not its test"
    return replace(problem, hint=hint)
