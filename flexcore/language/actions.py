"""What control steps do, as written → the model: branch, parallel, foreach, while, try, workflow, wait, transform."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from flexcore.language.findings import shortened
from flexcore.language.holes import HOLE, condition_of, list_of, template_of
from flexcore.language.nodes import MapNode, Node, ScalarNode, is_null
from flexcore.language.reading import Fields, Reading, duration_of
from flexcore.model.ids import WORKFLOW_NAME
from flexcore.model.template import Expression, Literal, Position, Template
from flexcore.model.workflow import (
    Action,
    Branch,
    Case,
    ForEach,
    NamedBranch,
    OnError,
    Parallel,
    Step,
    StepId,
    SubWorkflow,
    Transform,
    Try,
    Wait,
    While,
)

MAX_PARALLELISM = 1_000
MAX_ITERATIONS = 1_000_000
MAX_BRANCHES = 1_000
_NEVER = Expression(source="false", literal=(False,))


@dataclass(frozen=True, slots=True)
class Blocks:
    """How a control step reads the lists inside it; given by whoever reads steps, because the two need each other."""

    read: Callable[[Fields, str, bool], tuple[Step, ...]]
    check_id: Callable[[str, Position], None]

    def steps(self, written: Fields, key: str, *, required: bool = True) -> tuple[Step, ...]:
        """Read the list of steps under a key. One that is written has to have a step in it."""
        return self.read(written, key, required)


def control_of(kind: str, written: Fields, reading: Reading, blocks: Blocks) -> Action:
    """Read a control step of a known kind."""
    return CONTROL_KINDS[kind](written, reading, blocks)


def _transform(written: Fields, reading: Reading, _: Blocks) -> Transform:
    node = _parameters(written, reading, "value")
    if node is None:
        return Transform(Literal(None))
    inner = Fields(node, reading)
    entry = inner.entry("value")
    if entry is None:
        reading.findings.report(node.position, "`value` is missing in `with`", "missing-key")
    inner.close()
    return Transform(template_of(entry.value, reading) if entry is not None else Literal(None))


def _parameters(written: Fields, reading: Reading, key: str) -> MapNode | None:
    """Give the `with` of a step that cannot do without it."""
    entry = written.entry("with")
    if entry is None or is_null(entry.value):
        hint = f"it needs at least `{key}`"
        reading.findings.report(written.position, "`with` is missing", "missing-key", hint)
        return None
    return written.mapping("with")


def _branch(written: Fields, reading: Reading, blocks: Blocks) -> Branch:
    cases = tuple(
        _case(Fields(node, reading), reading, blocks) for node in _branches(written, reading) if node is not None
    )
    return Branch(cases=cases, default=blocks.steps(written, "default", required=False))


def _branches(written: Fields, reading: Reading) -> list[MapNode | None]:
    nodes = written.items("branches", required=True, what="a list of branches")
    if nodes is not None and not 1 <= len(nodes) <= MAX_BRANCHES:
        entry = written.entry("branches")
        position = entry.value.position if entry is not None else written.position
        message = "`branches` is empty" if not nodes else f"more than {MAX_BRANCHES:,} branches"
        reading.findings.report(position, message, "out-of-range")
    return [_mapping(node, reading, "a branch") for node in (nodes or ())[:MAX_BRANCHES]]


def _mapping(node: Node, reading: Reading, what: str) -> MapNode | None:
    if isinstance(node, MapNode):
        return node
    reading.wrong_type(node, what, "a mapping")
    return None


def _case(written: Fields, reading: Reading, blocks: Blocks) -> Case:
    condition = written.node("if", required=True)
    compiled = condition_of(condition, reading, "if") if condition is not None else None
    case = Case(compiled or _NEVER, blocks.steps(written, "steps"))
    written.close()
    return case


def _parallel(written: Fields, reading: Reading, blocks: Blocks) -> Parallel:
    seen: dict[str, Position] = {}
    branches = [
        _named_branch(Fields(node, reading), reading, blocks, seen)
        for node in _branches(written, reading)
        if node is not None
    ]
    return Parallel(tuple(branches))


def _named_branch(written: Fields, reading: Reading, blocks: Blocks, seen: dict[str, Position]) -> NamedBranch:
    id = written.text("id", required=True) or ""
    entry = written.entry("id")
    if id and entry is not None:
        position = entry.value.position
        blocks.check_id(id, position)
        if seen.setdefault(id, position) is not position:
            message = f"the branch id '{shortened(id)}' is taken by the branch in line {seen[id].line}"
            reading.findings.report(position, message, "duplicate-id", "ids of branches are unique in their step")
    branch = NamedBranch(
        id=StepId(id),
        on_error=written.choice("on_error", OnError) or OnError.FAIL,
        steps=blocks.steps(written, "steps"),
    )
    written.close()
    return branch


def _foreach(written: Fields, reading: Reading, blocks: Blocks) -> ForEach:
    items = written.node("items", required=True)
    return ForEach(
        items=list_of(items, reading) if items is not None else Literal([]),
        parallelism=written.integer("parallelism", 1, MAX_PARALLELISM) or 1,
        steps=blocks.steps(written, "steps"),
    )


def _while(written: Fields, reading: Reading, blocks: Blocks) -> While:
    condition = written.node("condition", required=True)
    compiled = condition_of(condition, reading, "condition") if condition is not None else None
    return While(
        condition=compiled or _NEVER,
        max_iterations=written.integer("max_iterations", 1, MAX_ITERATIONS) or 1_000,
        steps=blocks.steps(written, "steps"),
    )


def _try(written: Fields, reading: Reading, blocks: Blocks) -> Try:
    steps = blocks.steps(written, "steps")
    catch = blocks.steps(written, "catch", required=False)
    final = blocks.steps(written, "finally", required=False)
    return Try(steps=steps, catch=catch, final=final)


def _workflow(written: Fields, reading: Reading, _: Blocks) -> SubWorkflow:
    node = _parameters(written, reading, "name")
    if node is None:
        return SubWorkflow(name="")
    inner = Fields(node, reading)
    name = inner.text("name", required=True) or ""
    entry = inner.entry("name")
    if name and entry is not None and not WORKFLOW_NAME.fullmatch(name):
        message = f"'{shortened(name)}' is not the name of a workflow"
        hint = "lower case letters, digits, _ and -, a letter first; the name is never filled in"
        reading.findings.report(entry.value.position, message, "bad-name", hint)
    given = inner.entry("input")
    wait = inner.boolean("wait")
    inner.close()
    value = template_of(given.value, reading) if given is not None else Literal(None)
    return SubWorkflow(name=name, input=value, wait=True if wait is None else wait)


def _wait(written: Fields, reading: Reading, _: Blocks) -> Wait:
    node = _parameters(written, reading, "for")
    if node is None:
        return Wait()
    inner = Fields(node, reading)
    duration, until = inner.node("for"), inner.node("until")
    inner.close()
    if duration is not None and until is not None:
        reading.findings.report(until.position, "`for` and `until` are both given", "exclusive-keys", "give one")
    elif duration is None and until is None:
        reading.findings.report(node.position, "`for` or `until` is missing in `with`", "missing-key")
    if duration is not None and not _has_hole(duration):
        duration_of(duration, reading, "`for`")
    if until is not None and not _has_hole(until):
        _check_time(until, reading)
    return Wait(duration=_optional(duration, reading), until=_optional(until, reading))


def _has_hole(node: Node) -> bool:
    return isinstance(node, ScalarNode) and isinstance(node.value, str) and HOLE in node.value


def _optional(node: Node | None, reading: Reading) -> Template | None:
    return template_of(node, reading) if node is not None else None


def _check_time(node: Node, reading: Reading) -> None:
    hint = "write for example 2026-12-01T00:00:00Z"
    if not isinstance(node, ScalarNode) or not isinstance(node.value, str):
        reading.wrong_type(node, "`until`", "a time", hint)
        return
    try:
        time = datetime.fromisoformat(node.value)
    except ValueError:
        message = f"`until`: '{shortened(node.value)}' is not a time"
        reading.findings.report(node.position, message, "time", hint)
        return
    if time.tzinfo is None:
        message = f"`until`: '{shortened(node.value)}' has no time zone"
        reading.findings.report(node.position, message, "time", hint)


CONTROL_KINDS: dict[str, Callable[[Fields, Reading, Blocks], Action]] = {
    "transform": _transform,
    "branch": _branch,
    "parallel": _parallel,
    "foreach": _foreach,
    "while": _while,
    "try": _try,
    "workflow": _workflow,
    "wait": _wait,
}
