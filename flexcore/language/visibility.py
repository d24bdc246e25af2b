"""Who can read whose result: order of steps, cycles, and every name in every expression, over the model.

Works on any front end's Workflow. Sets of steps are bits of whole numbers, because a file may have ten thousand steps.

A step is seen by name from everything that comes after it; steps inside branch, parallel and try also from outside
(null when they did not run), steps inside a loop only within the same iteration. `catch` and `finally` see the steps
of the body before them, a `while` condition sees the steps of its body.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias, assert_never

from flexcore.language.findings import Findings, alike, nearest, shortened
from flexcore.language.order import Order, order_of
from flexcore.language.reads import NamesInScope, check_reads
from flexcore.model.template import Expression, Position, Template, expressions_in
from flexcore.model.workflow import (
    Branch,
    ForEach,
    OnError,
    Parallel,
    Step,
    SubWorkflow,
    Task,
    Transform,
    Try,
    Wait,
    While,
    Workflow,
)

Bits: TypeAlias = int
Steps: TypeAlias = tuple[Step, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Place:
    """Where an expression stands: what has finished by then, and which loops are around it."""

    finished: Bits = 0
    loops: tuple[str, ...] = ()
    has_iter: bool = False
    has_error: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class _Declared:
    vars: frozenset[str]
    env: frozenset[str]


def check_names(workflow: Workflow, findings: Findings, needs_positions: Mapping[Position, Sequence[Position]]) -> None:
    """Report every `needs` and every expression that names something it cannot see."""
    _Names(workflow, findings, needs_positions).check()


class _Names:
    def __init__(
        self, workflow: Workflow, findings: Findings, needs_positions: Mapping[Position, Sequence[Position]]
    ) -> None:
        self._workflow = workflow
        self._findings = findings
        self._needs_positions = needs_positions
        self._bits: dict[str, Bits] = {}
        self._loops: dict[str, tuple[str, ...]] = {}
        self._exports: dict[int, Bits] = {}  # by identity: ids may be wrong or missing
        self._declared = _Declared(vars=frozenset(workflow.vars), env=frozenset(workflow.env))
        for step, loops in _all_steps((*workflow.steps, *workflow.on_failure), ()):
            if step.id and step.id not in self._bits:
                self._bits[step.id] = 1 << len(self._bits)
                self._loops[step.id] = loops

    def check(self) -> None:
        workflow = self._workflow
        self._check_environment(workflow.env, _Place(), self._declared)
        if workflow.concurrency is not None and workflow.concurrency.key is not None:
            self._check_template(workflow.concurrency.key, _Place(), self._declared)
        after = self._check_list(workflow.steps, _Place())
        self._check_list(workflow.on_failure, replace(after, has_error=True))
        if workflow.output is not None:
            self._check_template(workflow.output, after, self._declared)

    def _check_list(self, steps: Steps, around: _Place) -> _Place:
        """Check a list of steps; give the place after all of it."""
        order = order_of(steps)
        self._check_needs(steps, order)
        finished = self._finished_before(steps, order, around.finished)
        tolerated = _tolerated_before(steps, order)
        for index, step in enumerate(steps):
            place = replace(around, finished=finished[index], has_error=around.has_error or tolerated[index])
            with self._findings.within(step.id):
                self._check_step(step, place)
        everything = around.finished
        for step in steps:
            everything |= self._exported(step)
        has_error = around.has_error or any(_is_tolerant(step) for step in steps)
        return replace(around, finished=everything, has_error=has_error)

    def _finished_before(self, steps: Steps, order: Order, outside: Bits) -> list[Bits]:
        finished = [outside] * len(steps)
        for index in order.sequence:
            for before in order.before[index]:
                finished[index] |= finished[before] | self._exported(steps[before])
        if order.cycles:  # a cycle is reported as such, not again for every name in it
            everything = outside
            for step in steps:
                everything |= self._exported(step)
            for index in set(range(len(steps))) - set(order.sequence):
                finished[index] = everything
        return finished

    def _exported(self, step: Step) -> Bits:
        """Give what is seen from outside of a step once it has finished: itself and, but for loops, what is in it."""
        known = self._exports.get(id(step))
        if known is None:
            known = self._bits.get(step.id, 0)
            if not isinstance(step.action, ForEach | While):
                for inner in _lists_in(step):
                    for each in inner:
                        known |= self._exported(each)
            self._exports[id(step)] = known
        return known

    def _check_needs(self, steps: Steps, order: Order) -> None:
        siblings = frozenset(step.id for step in steps if step.id)
        for step in steps:
            for index, need in enumerate(step.needs or ()):
                if need not in siblings:
                    self._report_need(step, index, need, siblings)
        for cycle in order.cycles:
            first = steps[cycle[0]]
            names = " → ".join(steps[index].id for index in (*cycle, cycle[0]))
            message = f"'{first.id}' needs itself" if len(cycle) == 1 else f"cycle: {shortened(names, 200)}"
            needed = steps[cycle[1 % len(cycle)]].id
            index = list(first.needs or ()).index(needed) if needed in (first.needs or ()) else 0
            hint = "each of these steps waits for the other" if len(cycle) > 1 else "leave it out"
            with self._findings.within(first.id):
                self._findings.report(self._need_position(first, index), message, "cycle", hint)

    def _report_need(self, step: Step, index: int, need: str, siblings: frozenset[str]) -> None:
        position = self._need_position(step, index)
        with self._findings.within(step.id):
            if need in self._bits:
                message = f"`needs` cannot name '{need}', which is in another list of steps"
                hint = "it names steps of its own list; what comes before that list has finished anyway"
                self._findings.report(position, message, "step-not-visible", hint)
            else:
                message = f"unknown step '{shortened(need)}'"
                hint = nearest(need, siblings - {step.id})
                self._findings.report(position, message, "unknown-step", hint)

    def _need_position(self, step: Step, index: int) -> Position:
        positions = self._needs_positions.get(step.position, ())
        return positions[index] if index < len(positions) else step.position

    def _check_step(self, step: Step, place: _Place) -> None:
        declared = _Declared(
            vars=self._declared.vars | frozenset(step.vars), env=self._declared.env | frozenset(step.env)
        )
        if step.when is not None:
            self._check_expression(step.when, place, declared)
        if step.cache is not None and step.cache.key is not None:
            self._check_template(step.cache.key, place, declared)
        if step.concurrency is not None and step.concurrency.key is not None:
            self._check_template(step.concurrency.key, place, declared)
        self._check_environment(step.env, place, declared)
        self._check_action(step, place, declared)

    def _check_action(self, step: Step, place: _Place, declared: _Declared) -> None:
        match step.action:
            case Task(parameters=template) | Transform(value=template) | SubWorkflow(input=template):
                self._check_template(template, place, declared)
            case Wait(duration=duration, until=until):
                for template in (each for each in (duration, until) if each is not None):
                    self._check_template(template, place, declared)
            case Branch(cases=cases, default=default):
                for case in cases:
                    self._check_expression(case.condition, place, declared)
                    self._check_list(case.steps, place)
                self._check_list(default, place)
            case Parallel(branches=branches):
                for branch in branches:
                    self._check_list(branch.steps, place)
            case ForEach(items=items, steps=steps):
                self._check_template(items, place, declared)
                self._check_list(steps, self._inside(step, place))
            case While(condition=condition, steps=steps):
                body = self._check_list(steps, self._inside(step, place))
                seen = replace(place, finished=body.finished, loops=body.loops)
                self._check_expression(condition, seen, declared)
            case Try(steps=steps, catch=catch, final=final):
                after = replace(self._check_list(steps, place), has_error=place.has_error)
                caught = self._check_list(catch, replace(after, has_error=True))
                self._check_list(final, replace(caught, has_error=place.has_error))
            case _:
                assert_never(step.action)

    def _inside(self, loop: Step, place: _Place) -> _Place:
        return replace(place, loops=(*place.loops, loop.id), has_iter=True)

    def _check_environment(self, env: Mapping[str, Template], place: _Place, declared: _Declared) -> None:
        for template in env.values():
            for expression in expressions_in(template):
                if any(read[0] == "env" for read in expression.reads):
                    message, hint = "an entry of `env` cannot read `env`", "use `vars` for what several entries share"
                    self._findings.report(expression.position, message, "env-in-env", hint)
                else:
                    self._check_expression(expression, place, declared)

    def _check_template(self, template: Template, place: _Place, declared: _Declared) -> None:
        for expression in expressions_in(template):
            self._check_expression(expression, place, declared)

    def _check_expression(self, expression: Expression, place: _Place, declared: _Declared) -> None:
        if self._findings.is_full:
            return
        for problem in check_reads(expression, self._scope(expression, place, declared)):
            self._findings.add(problem)

    def _scope(self, expression: Expression, place: _Place, declared: _Declared) -> NamesInScope:
        """Describe the place for an expression: only the steps that it names, of however many there are."""
        finished, unfinished, elsewhere = set[str](), set[str](), dict[str, str]()
        for name in (read[1] for read in expression.reads if read[0] == "results" and len(read) > 1):
            if name not in self._bits:
                unfinished |= alike(name, self._bits)
            elif self._bits[name] & place.finished:
                finished.add(name)
            elif outer := next((loop for loop in self._loops[name] if loop not in place.loops), None):
                elsewhere[name] = f"it is inside the loop '{outer}': use the loop's result, results.{outer}"
            else:
                unfinished.add(name)
        return NamesInScope(
            finished=frozenset(finished),
            unfinished=frozenset(unfinished - finished - elsewhere.keys()),
            elsewhere=elsewhere,
            vars=declared.vars,
            env=declared.env,
            has_iter=place.has_iter,
            has_error=place.has_error,
        )


def _all_steps(steps: Steps, loops: tuple[str, ...]) -> Iterator[tuple[Step, tuple[str, ...]]]:
    for step in steps:
        yield step, loops
        inner = (*loops, step.id) if isinstance(step.action, ForEach | While) else loops
        for each in _lists_in(step):
            yield from _all_steps(each, inner)


def _lists_in(step: Step) -> tuple[Steps, ...]:
    match step.action:
        case Branch(cases=cases, default=default):
            return (*(case.steps for case in cases), default)
        case Parallel(branches=branches):
            return tuple(branch.steps for branch in branches)
        case ForEach(steps=steps) | While(steps=steps):
            return (steps,)
        case Try(steps=steps, catch=catch, final=final):
            return (steps, catch, final)
        case Task() | Transform() | SubWorkflow() | Wait():
            return ()


def _tolerated_before(steps: Steps, order: Order) -> list[bool]:
    """Tell for each step whether a failure may have been tolerated before it in this list."""
    tolerated = [False] * len(steps)
    for index in order.sequence:
        tolerated[index] = any(tolerated[before] or _is_tolerant(steps[before]) for before in order.before[index])
    return tolerated


def _is_tolerant(step: Step) -> bool:
    if isinstance(step.action, Parallel):
        return any(branch.on_error is OnError.CONTINUE for branch in step.action.branches)
    return step.on_error is OnError.CONTINUE


def steps_in(workflow: Workflow) -> Iterator[Step]:
    """Give every step of a workflow, nested ones and those of `on_failure` too, in the order written."""
    return (step for step, _ in _all_steps((*workflow.steps, *workflow.on_failure), ()))
