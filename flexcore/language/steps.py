"""Lists of steps, as written → the model. A step that is wrong still gives one, so that the rest can be checked."""

from dataclasses import replace

from flexcore.language.actions import CONTROL_KINDS, Blocks, control_of
from flexcore.language.findings import nearest, shortened
from flexcore.language.holes import condition_of
from flexcore.language.nodes import Entry, ListNode, MapNode, Node, ScalarNode
from flexcore.language.parameters import task_of
from flexcore.language.policies import (
    Defaults,
    cache_of,
    concurrency_of,
    environment_of,
    requirements_of,
    retry_of,
    variables_of,
    with_defaults,
)
from flexcore.language.reading import Fields, Reading
from flexcore.model.ids import RESERVED_STEP_IDS, STEP_ID
from flexcore.model.template import Literal, Position
from flexcore.model.workflow import (
    Action,
    Branch,
    ForEach,
    OnError,
    Parallel,
    Step,
    StepId,
    StepKind,
    Task,
    Transform,
    Try,
    Wait,
    While,
    type_name,
)

MAX_STEPS = 10_000
MAX_LEVELS = 20
KINDS = (*(kind.value for kind in StepKind), *CONTROL_KINDS)
LATER_KINDS = frozenset({"approval", "signal", "emit"})
_LATER_KEYS = frozenset({"compensate"})
_NAME = "letters, digits and _, no digit first, at most 63"
_ELSEWHERE = {
    "name": "a step is named by `id`",
    "depends_on": "did you mean 'needs'?",
    "when": "did you mean 'if'?",
    "args": "parameters of a step stand under `with`",
    "script": "parameters of a step stand under `with`",
    "file": "parameters of a step stand under `with`",
}


def steps_of(entry: Entry | None, reading: Reading, defaults: Defaults, level: int = 1) -> tuple[Step, ...]:
    """Read a list of steps that has to have at least one; None for a list that is not there."""
    if entry is None:
        return ()
    node = entry.value
    if not isinstance(node, ListNode):
        if isinstance(node, ScalarNode) and node.value is None:
            _report(reading, entry.position, f"`{entry.key}` is empty", "empty-steps", "add a step")
        else:
            reading.wrong_type(node, f"`{entry.key}`", "a list of steps", "each step starts with `- id: …`")
        return ()
    if not node.items:
        _report(reading, node.position, f"`{entry.key}` is empty", "empty-steps", "add a step")
    if level > MAX_LEVELS:
        _report(reading, node.position, f"steps are nested deeper than {MAX_LEVELS} levels", "too-deep")
        return ()
    read = (_step_of(each, reading, defaults, level) for each in node.items if not _is_over(each, reading))
    return tuple(step for step in read if step is not None)


def _is_over(node: Node, reading: Reading) -> bool:
    reading.steps += 1
    if reading.steps == MAX_STEPS + 1:
        _report(reading, node.position, f"more than {MAX_STEPS:,} steps", "too-many-steps", "use a foreach")
    return reading.steps > MAX_STEPS


def _step_of(node: Node, reading: Reading, defaults: Defaults, level: int) -> Step | None:
    if not isinstance(node, MapNode):
        reading.wrong_type(node, "a step", "a mapping", "start it with `id: …` and `type: …`")
        return None
    written = Fields(node, reading)
    id = _id_of(written, reading)
    with reading.findings.within(id):
        return _read(StepId(id), written, reading, defaults, level)


def _read(id: StepId, written: Fields, reading: Reading, defaults: Defaults, level: int) -> Step:
    own = requirements_of(written, reading)
    inner = Defaults(
        requirements=with_defaults(own, defaults.requirements), runtime=_runtime_of(written, defaults.runtime)
    )
    condition = written.node("if")
    step = Step(
        id=id,
        needs=_needs_of(written, reading),
        when=condition_of(condition, reading, "if") if condition is not None else None,
        retry=retry_of(written, reading),
        timeout=written.duration("timeout"),
        cache=cache_of(written, reading),
        concurrency=concurrency_of(written, reading),
        on_error=written.choice("on_error", OnError) or OnError.FAIL,
        vars=variables_of(written, reading),
        env=environment_of(written, reading),
        position=written.position,
        action=_action_of(written, reading, inner, level),
    )
    if not isinstance(step.action, Task):
        _without_effect(step, written, reading)
        return step
    return replace(step, runtime=inner.runtime, requirements=inner.requirements)


def _without_effect(step: Step, written: Fields, reading: Reading) -> None:
    """Report policies that this kind of step could only ignore: what is written is kept, or refused."""
    inside = isinstance(step.action, Branch | Parallel | ForEach | While | Try)
    timeless = ("timeout",) if isinstance(step.action, Transform | Wait) else ()
    for key in ("retry", "cache", "concurrency", *timeless):
        entry = written.entry(key)
        if entry is not None:
            hint = "put it on the steps inside" if inside else "leave it out"
            message = f"`{key}` has no effect on a {type_name(step)} step"
            _report(reading, entry.position, message, "no-effect", hint)


def _id_of(written: Fields, reading: Reading) -> str:
    id = written.text("id", required=True)
    if id is None:
        return ""
    entry = written.entry("id")
    position = entry.value.position if entry is not None else written.position
    check_step_id(id, position, reading)
    first = reading.first_seen.setdefault(id, position)
    if first is not position:
        message = f"the id '{shortened(id)}' is taken by the step in line {first.line}"
        _report(reading, position, message, "duplicate-id", "ids are unique in the whole workflow")
    return id


def check_step_id(id: str, position: Position, reading: Reading) -> None:
    """Report an id that no step or branch may have."""
    if not STEP_ID.fullmatch(id):
        _report(reading, position, f"'{shortened(id)}' is not a valid id", "bad-id", _NAME)
    elif id in RESERVED_STEP_IDS:
        _report(reading, position, f"the id '{id}' is reserved", "bad-id", "choose another one")


def _runtime_of(written: Fields, inherited: str | None) -> str | None:
    name = written.text("runtime")
    if name is None:
        return inherited
    return None if name == "auto" else name


def _needs_of(written: Fields, reading: Reading) -> tuple[StepId, ...] | None:
    items = written.items("needs", what="a list of step ids")
    if items is None:
        return None
    needs: list[StepId] = []
    positions: list[Position] = []
    for node in items:
        if isinstance(node, ScalarNode) and isinstance(node.value, str):
            needs.append(StepId(node.value))
            positions.append(node.position)
        else:
            reading.wrong_type(node, "an entry of `needs`", "a step's id")
    reading.needs_positions[written.position] = tuple(positions)
    return tuple(needs)


def _action_of(written: Fields, reading: Reading, inner: Defaults, level: int) -> Action:
    kind = written.text("type", required=True)
    blocks = _reader(reading, inner, level + 1)
    action: Action | None = None
    if kind in CONTROL_KINDS:
        action = control_of(kind, written, reading, blocks)
    elif kind in KINDS:
        action = task_of(StepKind(kind), written, reading)
    elif kind is not None:
        _unknown_kind(kind, written, reading)
    if action is None:  # its other keys cannot be judged, but its steps have names that others may use
        return Try(steps=blocks.steps(written, "steps")) if _has_steps(written) else Transform(Literal(None))
    written.close(later=_LATER_KEYS, elsewhere=_ELSEWHERE)
    return action


def _has_steps(written: Fields) -> bool:
    entry = written.entry("steps")
    return entry is not None and isinstance(entry.value, ListNode)


def _unknown_kind(kind: str, written: Fields, reading: Reading) -> None:
    entry = written.entry("type")
    position = entry.value.position if entry is not None else written.position
    if kind in LATER_KINDS:
        message = f"the step type '{kind}' is not supported yet in this version"
        _report(reading, position, message, "not-supported-yet", "leave it out")
    else:
        message = f"unknown step type '{shortened(kind)}'"
        _report(reading, position, message, "unknown-type", nearest(kind, KINDS))


def _reader(reading: Reading, inner: Defaults, level: int) -> Blocks:
    def steps(written: Fields, key: str, required: bool) -> tuple[Step, ...]:
        entry = written.entry(key)
        if entry is None and required:
            _report(reading, written.position, f"`{key}` is missing", "missing-key", "a list of steps")
        return steps_of(entry, reading, inner, level)

    def check_id(id: str, position: Position) -> None:
        check_step_id(id, position, reading)

    return Blocks(steps, check_id)


def _report(reading: Reading, position: Position, message: str, code: str, hint: str = "") -> None:
    reading.findings.report(position, message, code, hint)
