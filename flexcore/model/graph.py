"""The shape of a workflow, computed once per version: which step needs which, and where each list of steps belongs.

A *block* is a list of steps as written; a *scope* is a running instance of one (model/ids.py). Step ids are unique in
a workflow, so the step or block of any path is found by its last segments, however deep in loops it is.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from flexcore.model.ids import ON_FAILURE, ROOT, Scope, StepPath, indexed, named, step_path
from flexcore.model.template import Template, expressions_in
from flexcore.model.workflow import Branch, ForEach, Parallel, Step, StepId, Try, While, Workflow

DEFAULT, TRY, CATCH, FINALLY, EACH = "default", "try", "catch", "finally", ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A list of steps and its order. `owner` is the control step around it, None for the workflow's own lists."""

    owner: Step | None
    key: str
    steps: tuple[Step, ...]
    needs: Mapping[StepId, tuple[StepId, ...]]
    dependents: Mapping[StepId, tuple[Step, ...]]
    first: tuple[Step, ...]  # those that need nothing


@dataclass(frozen=True, slots=True, kw_only=True)
class Graph:
    """A workflow with its order worked out."""

    workflow: Workflow
    root: Block
    on_failure: Block
    blocks: Mapping[tuple[StepId, str], Block]
    homes: Mapping[StepId, Block]
    steps: Mapping[StepId, Step]
    reads: dict[int, tuple[tuple[str, ...], ...]] = field(default_factory=dict, repr=False, compare=False)

    def block(self, scope: Scope) -> Block:
        """Give the block that a scope is an instance of."""
        if scope == ROOT:
            return self.root
        if scope == ON_FAILURE:
            return self.on_failure
        owner, key = split_scope(scope)
        step = self.step(owner)
        return self.blocks[step.id, EACH if isinstance(step.action, ForEach | While) else key]

    def step(self, path: StepPath) -> Step:
        """Give the step that a path addresses."""
        return self.steps[StepId(path.rpartition(".")[2])]

    def visible_path(self, step: StepId, scope: Scope) -> StepPath | None:
        """Give the path by which a step's name is seen from a scope; None when it is inside a loop we are not in."""
        home = self.homes[step]
        if home.owner is None:
            return step_path(ON_FAILURE if home is self.on_failure else ROOT, step)
        owner = self.visible_path(home.owner.id, scope)
        if owner is None:
            return None
        if home.key == EACH:
            index = _index_within(scope, owner)
            return None if index is None else step_path(indexed(owner, index), step)
        return step_path(child_scope(owner, home.key), step)


def child_scope(owner: StepPath, key: str) -> Scope:
    """Name the scope of one of a control step's lists: numbered for cases of a branch, else by name."""
    return indexed(owner, int(key)) if key.isdecimal() else named(owner, key)


def split_scope(scope: Scope) -> tuple[StepPath, str]:
    """Split a scope into the path of the control step around it and the key of the list."""
    if scope.endswith("]"):
        owner, _, index = scope.rpartition("[")
        return StepPath(owner), index[:-1]
    owner, _, key = scope.rpartition(".")
    return StepPath(owner), key


def scope_of(path: StepPath) -> Scope:
    """Give the scope that a step's path lies in."""
    return Scope(path.rpartition(".")[0])


def _index_within(scope: Scope, loop: StepPath) -> int | None:
    prefix = loop + "["
    if not scope.startswith(prefix):
        return None
    return int(scope[len(prefix) : scope.index("]", len(prefix))])


def build(workflow: Workflow) -> Graph:
    """Work out the order of a checked workflow."""
    root, on_failure = _block(None, "", workflow.steps), _block(None, "on_failure", workflow.on_failure)
    blocks = {(block.owner.id, block.key): block for block in _nested((root, on_failure)) if block.owner is not None}
    homes = {step.id: block for block in (root, on_failure, *blocks.values()) for step in block.steps}
    steps = {step.id: step for block in (root, on_failure, *blocks.values()) for step in block.steps}
    return Graph(workflow=workflow, root=root, on_failure=on_failure, blocks=blocks, homes=homes, steps=steps)


def _block(owner: Step | None, key: str, steps: tuple[Step, ...]) -> Block:
    needs: dict[StepId, tuple[StepId, ...]] = {}
    dependents: dict[StepId, list[Step]] = {step.id: [] for step in steps}
    previous: tuple[StepId, ...] = ()
    for step in steps:
        needs[step.id] = previous if step.needs is None else tuple(dict.fromkeys(step.needs))
        for needed in needs[step.id]:
            dependents[needed].append(step)
        previous = (step.id,)
    return Block(
        owner=owner,
        key=key,
        steps=steps,
        needs=needs,
        dependents={id: tuple(after) for id, after in dependents.items()},
        first=tuple(step for step in steps if not needs[step.id]),
    )


def _nested(blocks: tuple[Block, ...]) -> Iterator[Block]:
    for block in blocks:
        for step in block.steps:
            inner = tuple(_block(step, key, steps) for key, steps in lists_of(step))
            yield from inner
            yield from _nested(inner)


def lists_of(step: Step) -> tuple[tuple[str, tuple[Step, ...]], ...]:
    """Give the lists of steps inside a control step, each with its key; nothing for other steps."""
    match step.action:
        case Branch(cases=cases, default=default):
            return (*((str(index), case.steps) for index, case in enumerate(cases)), (DEFAULT, default))
        case Parallel(branches=branches):
            return tuple((branch.id, branch.steps) for branch in branches)
        case ForEach(steps=steps) | While(steps=steps):
            return ((EACH, steps),)
        case Try(steps=steps, catch=catch, final=final):
            return ((TRY, steps), (CATCH, catch), (FINALLY, final))
        case _:
            return ()


def reads_of(template: Template) -> tuple[tuple[str, ...], ...]:
    """Collect what a template's expressions refer to, each thing once."""
    return tuple(dict.fromkeys(read for expression in expressions_in(template) for read in expression.reads))
